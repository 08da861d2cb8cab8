"""TSV-M: the leading singular vectors of every task vector, made orthogonal to those of the others.

Reference: Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025,
arXiv 2412.00081.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from weightvc.merge import linalg
from weightvc.merge.joint import Piece, Scope, Seen, Task, weighted
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class TsvM:
    """Each matrix keeps p/T of each task's singular triples; both sides are replaced by their nearest orthonormal ones.

    Other tensors, and matrices with a side shorter than T, get the mean of the task vectors. T counts the tasks that
    move the tensor. The order of tasks does not matter.
    """

    name: ClassVar[str] = "tsv-m"
    passes: ClassVar[int] = 0
    decides: ClassVar[Scope] = "tensor"

    scaling: float

    @property
    def neutral(self) -> bool:
        """Return whether nothing scales the result."""
        return self.scaling == 1

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients as given."""
        return tuple(given)

    def whole(self, spec: TensorSpec) -> bool:
        """Tell whether it is a matrix with two rows and columns or more."""
        return len(spec.shape) == 2 and min(spec.shape) >= 2

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> tuple[str, ...]:
        """Return the tasks' versions, in whose order they are taken."""
        return tuple(task.version for task in tasks)

    def observe(self, piece: Piece, known: Any) -> Seen:
        """Never called: there are no passes."""
        raise NotImplementedError

    def combine(self, seen: Mapping[str, Seen], known: Any) -> Any:
        """Never called: there are no passes."""
        raise NotImplementedError

    def merge(self, piece: Piece, known: tuple[str, ...]) -> Tensor:
        """Return the merged matrix, or the mean."""
        order = sorted((at for at in piece.vectors if piece.vectors[at].any()), key=lambda at: (known[at], at))
        count = len(order)
        rank = min(piece.spec.shape, default=0) // count if count else 0
        if not self.whole(piece.spec) or rank == 0 or count == 1:
            return weighted(piece.vectors, dict.fromkeys(piece.vectors, self.scaling / max(count, 1)))
        triples = [linalg.leading(piece.vectors[at], rank) for at in order]
        left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triples, strict=True))
        return (linalg.polar(left) * (self.scaling * values)) @ linalg.polar(right).mT
