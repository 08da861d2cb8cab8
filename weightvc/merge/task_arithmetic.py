"""Task arithmetic: base + scaling * sum of the task vectors.

Reference: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from weightvc.merge.method import Step, add
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class TaskArithmetic:
    """The plain sum of the task vectors, times ``scaling``."""

    name: ClassVar[str] = "task_arithmetic"
    scaled: ClassVar[bool] = False
    rotates: ClassVar[bool] = False

    scaling: float

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients as given."""
        return tuple(given)

    def projects(self, spec: TensorSpec) -> bool:
        """Return ``False``: every step is elementwise."""
        return False

    def step(self, state: Tensor | None, vector: Tensor, *, project: bool) -> Step:
        """Add one task vector; see :meth:`weightvc.merge.method.Fold.step`."""
        return Step(add(state, vector), None)

    def scale(self, task_norms: Sequence[float], merged_norm: float) -> float:
        """Return ``scaling``, whatever the norms."""
        return self.scaling
