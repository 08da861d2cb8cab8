"""TIES: trim each task vector to its largest elements, elect a sign for each weight, join what agrees.

Reference: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, arXiv 2306.01708. The
paper trims over the whole model; ``compat`` gives what mergekit and peft compute instead, which differ from the paper
and, with unequal weights, from each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor

from weightvc.merge import elect, select
from weightvc.merge.joint import Piece, Scope, Seen, Task
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import UsageError

_COMPAT = {"mergekit": ("tensor", "weighted", "weights"), "peft": ("tensor", "unweighted", "count")}
"""What other tools do instead of ``scope`` and ``election``, and what their means divide by."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the passes so far found.

    Attributes:
        weights: The tasks' coefficients.
        total: Elements of the model, or 0 where each tensor is trimmed by itself.
        trims: How many passes are left that look for thresholds.
        buckets: For each task, the bucket of its threshold and the place in there, once they are known.
        thresholds: For each task, the bit pattern of the smallest magnitude that is kept.
        undecided: The sign of elements whose task vectors cancel.
    """

    weights: tuple[float, ...]
    total: int
    trims: int
    buckets: tuple[tuple[int, int], ...]
    thresholds: tuple[int, ...]
    undecided: float = 1.0


@dataclass(frozen=True, slots=True)
class Ties:
    """Trim, elect, join. Elements whose magnitude is that of the last one kept are kept too."""

    name: ClassVar[str] = "ties"

    density: float
    scope: str
    aggregate: str
    election: str
    scaling: float
    compat: str

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for ``compat`` beside the parameters that it stands for."""
        if self.compat != "none" and (self.scope, self.election, self.aggregate) != ("model", "unweighted", "mean"):
            raise UsageError("ties: compat stands for scope, election and aggregate", "leave those out, or compat")

    @property
    def passes(self) -> int:
        """Two to find thresholds, and one for the sign of what cancels, which other tools count as +."""
        return self._trims + (self.compat == "none")

    @property
    def decides(self) -> Scope:
        """Return the scope of the trim."""
        return "tensor" if "tensor" in (self.scope, _COMPAT.get(self.compat, ("",))[0]) else "model"

    @property
    def neutral(self) -> bool:
        """Return whether nothing scales the result."""
        return self.scaling == 1

    @property
    def _weighted(self) -> bool:
        return _COMPAT.get(self.compat, ("", self.election))[1] == "weighted"

    @property
    def _trims(self) -> int:
        return 2 if self.density < 1 else 0

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return 1 for every task that takes part: coefficients weigh what agrees, after the trim."""
        return tuple(1.0 if number else 0.0 for number in given)

    def whole(self, spec: TensorSpec) -> bool:
        """Return ``False``: thresholds apart, every step is elementwise."""
        return False

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> _Known:
        """Return the coefficients, and how many elements there are."""
        total = sum(spec.elements for spec in specs) if self.decides == "model" else 0
        nothing = tuple((0, 1) for _ in tasks)
        return _Known(tuple(task.coefficient for task in tasks), total, self._trims, nothing, (0,) * len(tasks))

    def observe(self, piece: Piece, known: _Known) -> Seen:
        """Return histograms of the magnitudes of each task's vector, and after those the sum of the elected signs."""
        if not known.trims:
            return np.array([sum(float(self._elected(part, known).sum()) for part in piece.parts())])
        found = np.zeros((len(known.weights), select.HIGH if known.trims == 2 else select.LOW), np.int64)
        for at, vector in piece.vectors.items():
            found[at] = select.high(vector) if known.trims == 2 else select.low(vector, known.buckets[at][0])
        return found

    def combine(self, seen: Mapping[str, Seen], known: _Known) -> _Known:
        """Return the buckets of the thresholds, then the thresholds, then the sign of what cancels."""
        if not known.trims:
            return replace(known, undecided=math.copysign(1.0, sum(float(part[0]) for part in seen.values())))
        counts = np.sum([*seen.values()], axis=0)
        if known.trims == 2:
            elements = known.total or int(counts.sum(axis=1).max())  # no row counts a tensor that its task leaves alone
            kept = max(1, math.floor(self.density * elements))
            return replace(known, trims=1, buckets=tuple(select.bucket(row, kept) for row in counts))
        places = zip(counts, known.buckets, strict=True)
        thresholds = tuple((high << 16) + select.bucket(row, k)[0] for row, (high, k) in places)
        return replace(known, trims=0, thresholds=thresholds)

    def merge(self, piece: Piece, known: _Known) -> Tensor:
        """Return what agrees with the elected signs, times ``scaling``."""
        divisor = _COMPAT.get(self.compat, ("", "", "count"))[2]
        for part in piece.parts():
            elected = self._elected(part, known)
            elected.add_(elected == 0, alpha=known.undecided)
            merged = elect.aggregate(
                part.vectors, known.weights, elected, self.aggregate, weighted=self._weighted, divisor=divisor
            )
            part.vectors[min(part.vectors)].copy_(merged.mul_(self.scaling))
        return piece.vectors[min(piece.vectors)]

    def _elected(self, piece: Piece, known: _Known) -> Tensor:
        """Trim the vectors in place, and return the sign of their sum."""
        for at, vector in piece.vectors.items():
            if known.thresholds[at]:
                vector.mul_(select.keeps(vector, known.thresholds[at]))
        return elect.signs(piece.vectors, known.weights, weighted=self._weighted)
