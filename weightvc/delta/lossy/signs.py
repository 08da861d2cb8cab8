"""Codecs ``bitdelta`` and ``t-switch``: the signs of a task vector, of all elements or of the largest, and a scale."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from weightvc.delta.lossy import moves
from weightvc.delta.lossy.moves import Numbers
from weightvc.delta.lossy.scaled import Groups, Layout, Scaled, gather, kept
from weightvc.delta.pair import Pair
from weightvc.objects.tensors import TensorSpec

if TYPE_CHECKING:
    from weightvc.delta.codec import Level

TOP = 0.1
"""Share of the positive, and of the negative, elements that ``t-switch`` keeps."""

_BITS = 16
_BINS = 1 << 15


class BitDelta(Scaled):
    """The sign of each element and a scale a row, the mean magnitude: BitDelta (Liu et al., arXiv:2402.10193).

    There an element that did not move counts as positive, and the scales are one a matrix and trained on. Here such an
    element keeps the base's value, and the scale is what leaves the least squared error.
    """

    name: ClassVar[str] = "bitdelta"
    limit: ClassVar[int] = 1

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Take each row's mean magnitude; see :class:`weightvc.delta.codec.Codec`."""
        moves.take(pair.spec)
        layout = cls.layout(pair.spec)
        totals, counts = np.zeros((2, layout.count(pair.spec)))
        for start, moved in moves.read(pair):
            groups = layout.groups(start, moved.size)
            gather(np.add, totals, groups, np.abs(moved))
            gather(np.add, counts, groups, (moved != 0).astype(np.float64))
        return cls(pair.spec, kept(totals / np.maximum(counts, 1), _BITS))

    def codes(self, moved: Numbers, groups: Groups) -> Numbers:
        """Return each element's sign."""
        return np.sign(moved)


@dataclass(frozen=True, eq=False)
class TSwitch(Scaled):
    """The signs of the largest elements and one scale that keeps their norm: T-Switch (Qi et al., arXiv:2412.00054).

    Attributes:
        least: The smallest magnitude that is kept of positive and of negative elements; only encoding asks.
    """

    name: ClassVar[str] = "t-switch"
    limit: ClassVar[int] = 1

    least: tuple[float, float] = field(default=(np.inf, np.inf))

    @classmethod
    def layout(cls, spec: TensorSpec) -> Layout:
        """Return how a tensor's elements stand in groups: all in one."""
        return Layout(spec.elements, spec.elements)

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Find both thresholds, then the norm of what they keep; see :class:`weightvc.delta.codec.Codec`."""
        moves.take(pair.spec)
        above, below = np.zeros((2, _BINS), np.int64)
        for _, moved in moves.read(pair):
            above += np.bincount(_bin(moved[moved > 0]), minlength=_BINS)
            below += np.bincount(_bin(moved[moved < 0]), minlength=_BINS)
        made = cls(pair.spec, np.zeros(1, np.float32), (_threshold(above), _threshold(below)))
        squares, count = 0.0, 0
        for _, moved in moves.read(pair):
            chosen = moved[made.codes(moved, np.zeros(0, np.int64)) != 0]
            squares += float((chosen * chosen).sum())
            count += chosen.size
        scale = np.array([np.sqrt(squares / max(1, count))])
        return cls(pair.spec, kept(scale, _BITS), made.least)

    def codes(self, moved: Numbers, groups: Groups) -> Numbers:
        """Return the signs of the elements that are kept, else 0."""
        positive, negative = self.least
        return (moved >= positive).astype(np.float64) - (moved <= -negative)


def _bin(moved: Numbers) -> Groups:
    """Return the upper half of the bit pattern of each magnitude as float32, rounded towards zero: 1/128 apart."""
    single = np.minimum(np.abs(moved), np.finfo(np.float32).max).astype(np.float32)
    return (single.view(np.uint32) >> 16).astype(np.int64)


def _threshold(counts: Groups) -> float:
    """Return the least magnitude of the bin that the top share of the elements ends in; infinity if there are none."""
    kept_from = np.flatnonzero(np.cumsum(counts[::-1]) >= max(1.0, TOP * counts.sum()))
    if not counts.any():
        return float(np.inf)
    edge = np.array([_BINS - 1 - kept_from[0] << 16], np.uint32).view(np.float32)
    return max(float(edge[0]), float(np.finfo(np.float64).tiny))
