"""MagMax: of each weight the largest change that any task made.

Reference: Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning", ECCV 2024,
arXiv 2407.06322.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from weightvc.merge.method import Step, add, check
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class MagMax:
    """The elements of largest magnitude, times ``scaling``; of equal ones, the earlier task's."""

    name: ClassVar[str] = "magmax"
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
        """Take the larger of both, element by element; see :meth:`weightvc.merge.method.Fold.step`."""
        check(state, vector)
        if state is None:
            return Step(add(None, vector), None)
        return Step(torch.where(vector.abs() > state.abs(), vector, state, out=state), None)

    def scale(self, task_norms: Sequence[float], merged_norm: float) -> float:
        """Return ``scaling``, whatever the norms."""
        return self.scaling
