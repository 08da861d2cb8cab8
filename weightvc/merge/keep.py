"""Keep: the base as it is, whatever the tasks. What a rule by name can ask for instead of a merge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from weightvc.merge.method import Step, add
from weightvc.objects.recipe import KEEP
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class Keep:
    """A sum in which every task vector has the factor 0, and so takes no part."""

    name: ClassVar[str] = KEEP
    scaled: ClassVar[bool] = False
    rotates: ClassVar[bool] = False

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return 0 for every task."""
        return (0.0,) * len(given)

    def projects(self, spec: TensorSpec) -> bool:
        """Return ``False``: there is nothing to project."""
        return False

    def step(self, state: Tensor | None, vector: Tensor, *, project: bool) -> Step:
        """Add one task vector; see :meth:`weightvc.merge.method.Fold.step`."""
        return Step(add(state, vector), None)

    def scale(self, task_norms: Sequence[float], merged_norm: float) -> float:
        """Return 1, whatever the norms."""
        return 1.0
