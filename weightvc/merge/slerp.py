"""Slerp: two models along the arc between them, tensor by tensor.

Reference: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, on flattened tensors as merging tools
do it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from weightvc.merge.joint import Piece, Scope, Seen, Task, gram
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import UsageError

_PARALLEL = 0.9995
"""Cosine beyond which the arc is taken for a line."""


@dataclass(frozen=True, slots=True)
class Slerp:
    """sin((1-t)·θ)/sin θ of the first model and sin(t·θ)/sin θ of the second, θ the angle between their weights."""

    name: ClassVar[str] = "slerp"
    passes: ClassVar[int] = 1
    decides: ClassVar[Scope] = "tensor"
    neutral: ClassVar[bool] = True

    t: float

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients, which are 1.

        Raises:
            UsageError: other coefficients, or another number of tasks than two; one alone is itself.
        """
        if len(given) > 2 or (len(given) == 1 and tuple(given) != (1.0,)):
            raise UsageError(f"slerp is between two tasks, not {len(given)}", "name two, or use --method linear")
        if any(number != 1 for number in given):
            raise UsageError("slerp takes no coefficients", "pass -p t=0.3 for a point nearer to the first task")
        return tuple(given)

    def whole(self, spec: TensorSpec) -> bool:
        """Return ``False``: the sum is elementwise."""
        return False

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> tuple[float, float]:
        """Return the factors of both models in a tensor that neither moves."""
        return (1.0, 0.0) if len(tasks) == 1 else (1 - self.t, self.t)

    def observe(self, piece: Piece, known: tuple[float, float]) -> Seen:
        """Return the inner products of both models' weights."""
        return gram(self._models(piece))

    def combine(self, seen: Mapping[str, Seen], known: tuple[float, float]) -> tuple[float, float]:
        """Return the factors of both models in the one tensor that was seen."""
        (k,) = seen.values()
        norms = math.sqrt(k[0, 0]) * math.sqrt(k[1, 1])
        cosine = max(-1.0, min(1.0, k[0, 1] / norms)) if norms else 1.0
        if known == (1.0, 0.0) or abs(cosine) > _PARALLEL:
            return known
        angle = math.acos(cosine)
        return math.sin((1 - self.t) * angle) / math.sin(angle), math.sin(self.t * angle) / math.sin(angle)

    def merge(self, piece: Piece, known: tuple[float, float]) -> Tensor:
        """Return the point on the arc, less the base."""
        first, second = known
        moved = piece.base * (first + second - 1)
        for at, factor in enumerate(known):
            if at in piece.vectors:
                moved.add_(piece.vectors[at], alpha=factor)
        return moved

    @staticmethod
    def _models(piece: Piece) -> list[Tensor]:
        return [piece.base + piece.vectors[at] if at in piece.vectors else piece.base for at in (0, 1)]
