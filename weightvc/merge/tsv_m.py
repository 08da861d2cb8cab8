"""TSV-M: the leading singular vectors of every task vector, made orthogonal to those of the others.

Reference: Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025,
arXiv 2412.00081.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from weightvc.merge import linalg
from weightvc.merge.joint import Piece, Scope, Seen, Task, weighted
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class _Known:
    """The tasks' versions, and the positions of those that move the current tensor, once it was seen."""

    versions: tuple[str, ...]
    moving: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TsvM:
    """Each matrix keeps p/T of each task's singular triples; both sides are replaced by their nearest orthonormal ones.

    Other tensors, and matrices with a side shorter than T, get the mean of the task vectors. T counts the tasks that
    move the tensor. The order of tasks does not matter.
    """

    name: ClassVar[str] = "tsv-m"
    passes: ClassVar[int] = 1
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

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> _Known:
        """Return the tasks' versions, in whose order they are taken."""
        return _Known(tuple(task.version for task in tasks))

    def observe(self, piece: Piece, known: _Known) -> Seen:
        """Return which tasks move the piece."""
        found = np.zeros(len(known.versions))
        for at, vector in piece.vectors.items():
            found[at] = bool(vector.any())
        return found

    def combine(self, seen: Mapping[str, Seen], known: _Known) -> _Known:
        """Return the tasks that move the one tensor, in the order of their versions."""
        (moves,) = seen.values()
        moving = sorted(np.flatnonzero(moves).tolist(), key=lambda at: (known.versions[at], at))
        return replace(known, moving=tuple(moving))

    def merge(self, piece: Piece, known: _Known) -> Tensor:
        """Return the merged matrix, or the mean."""
        vectors = [piece.vectors[at] for at in known.moving]
        if not vectors:
            return next(iter(piece.vectors.values()))  # zeros, like all of them
        rank = min(piece.spec.shape, default=0) // len(vectors)
        if not self.whole(piece.spec) or rank == 0 or len(vectors) == 1:
            return weighted(dict(enumerate(vectors)), dict.fromkeys(range(len(vectors)), self.scaling / len(vectors)))
        triples = [linalg.leading(vector, rank) for vector in vectors]
        left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triples, strict=True))
        return (linalg.polar(left) * (self.scaling * values)) @ linalg.polar(right).mT
