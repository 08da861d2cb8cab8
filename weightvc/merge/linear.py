"""Linear: the weighted average of the tuned models.

Reference: Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from weightvc.merge.method import Step, add
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Conflict, UsageError


@dataclass(frozen=True, slots=True)
class Linear:
    """The sum of the task vectors with coefficients that sum to 1, which averages the tuned weights themselves."""

    name: ClassVar[str] = "linear"
    scaled: ClassVar[bool] = False
    rotates: ClassVar[bool] = False

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients divided by their sum.

        Raises:
            UsageError: the sum is zero, or so close to it that the quotients are no longer finite.
            Conflict: the sum is beyond double precision.
        """
        try:
            total = math.fsum(given)
        except OverflowError:
            shown = ", ".join(map(repr, given))
            what = f"linear: the sum of the coefficients {shown} is beyond double precision"
            raise Conflict(what, "use smaller coefficients") from None
        weights = tuple(weight / total for weight in given) if total else (math.nan,)
        if not all(map(math.isfinite, weights)):
            raise UsageError(
                f"linear: the coefficients {', '.join(map(repr, given))} sum to {total!r}, which no average can have",
                "give coefficients with another sum, or use --method task_arithmetic",
            )
        return weights

    def projects(self, spec: TensorSpec) -> bool:
        """Return ``False``: every step is elementwise."""
        return False

    def step(self, state: Tensor | None, vector: Tensor, *, project: bool) -> Step:
        """Add one task vector; see :meth:`weightvc.merge.method.Fold.step`."""
        return Step(add(state, vector), None)

    def scale(self, task_norms: Sequence[float], merged_norm: float) -> float:
        """Return 1: the coefficients have done it."""
        return 1.0
