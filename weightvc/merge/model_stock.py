"""Model stock: the average of the task vectors, shrunk by how little they agree.

Reference: Jang et al., "Model Stock: All we need is just a few fine-tuned models", ECCV 2024, arXiv 2403.19522.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from weightvc.merge.joint import Piece, Scope, Seen, Task, gram, weighted
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class ModelStock:
    """For each tensor t/N times the sum of its N task vectors, t = N·c/(1 + (N-1)·c) and c their mean cosine.

    Only tasks that move the tensor count. t is held between 0 and 1: task vectors that disagree give the base.
    """

    name: ClassVar[str] = "model_stock"
    passes: ClassVar[int] = 1
    decides: ClassVar[Scope] = "tensor"
    neutral: ClassVar[bool] = True

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients as given."""
        return tuple(given)

    def whole(self, spec: TensorSpec) -> bool:
        """Return ``False``: the sum is elementwise."""
        return False

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> float:
        """Return 1: nothing is known yet."""
        return 1.0

    def observe(self, piece: Piece, known: float) -> Seen:
        """Return the inner products of the piece's task vectors."""
        return gram([piece.vectors[at] for at in sorted(piece.vectors)])

    def combine(self, seen: Mapping[str, Seen], known: float) -> float:
        """Return the factor of the sum, from the one tensor that was seen."""
        (k,) = seen.values()
        norms = np.sqrt(np.diagonal(k))
        moving = np.flatnonzero(norms)
        count = len(moving)
        if count < 2:
            return 1.0
        units = k[np.ix_(moving, moving)] / np.outer(norms[moving], norms[moving])
        cosine = float((units.sum() - np.trace(units)) / (count * (count - 1)))
        return max(0.0, min(1.0, cosine / (1 + (count - 1) * cosine))) if cosine > 0 else 0.0

    def merge(self, piece: Piece, known: float) -> Tensor:
        """Return the shrunk average."""
        return weighted(piece.vectors, dict.fromkeys(piece.vectors, known))
