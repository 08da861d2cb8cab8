"""Codecs ``int8``, ``int4`` and ``int2``: each element of the task vector to the nearest of a few evenly spaced steps.

Symmetric uniform quantization to whole steps, as of weights (Krishnamoorthi, arXiv:1806.08342), of what a fine-tune
changed. The step of each group is found by search: clipping a few large elements costs less than a coarser step for
all. No step is much finer than the whole tensor needs (reverse water-filling; Cover and Thomas, Elements of
Information Theory, 10.3.3): rows that hardly moved then take next to no room, or stay the base's.
"""

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

CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Where a group may be clipped, as shares of its largest element."""


@dataclass(frozen=True, eq=False)
class Grid(Scaled):
    """A code is the number of steps, rounded; the scale is what brings the codes of a group nearest.

    Attributes:
        steps: What an element is divided by, one for each group; only encoding asks.
    """

    floor: ClassVar[float]
    """The least step, as a share of the root mean square of the elements in groups that moved."""
    scale_bits: ClassVar[int]
    usual: ClassVar[float]
    """The one share of :data:`CLIPS` that level ``fast`` looks at."""

    steps: Numbers = field(default_factory=lambda: np.empty(0))

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Search each group's step in two passes; see :class:`weightvc.delta.codec.Codec`."""
        moves.take(pair.spec)
        layout, spec = cls.layout(pair.spec), pair.spec
        peaks, squares, sizes = np.zeros((3, layout.count(spec)))
        for start, moved in moves.read(pair):
            groups = layout.groups(start, moved.size)
            gather(np.maximum, peaks, groups, np.abs(moved))
            gather(np.add, squares, groups, moved * moved)
            gather(np.add, sizes, groups, np.ones(moved.size))
        living = sizes[squares > 0].sum()
        least = cls.floor * np.sqrt(squares.sum() / max(1.0, living))
        clips = np.array([cls.usual] if level == "fast" else CLIPS)
        choices = np.maximum(clips[:, None] * peaks / cls.limit, least)
        products, norms = cls._tried(pair, layout, choices)
        gains = np.divide(products * products, norms, out=np.zeros_like(norms), where=norms > 0)
        best = gains.argmax(axis=0), np.arange(peaks.size)
        scales = np.divide(products[best], norms[best], out=np.zeros_like(peaks), where=norms[best] > 0)
        return cls(spec, kept(scales, cls.scale_bits), choices[best])

    @classmethod
    def _tried(cls, pair: Pair, layout: Layout, choices: Numbers) -> tuple[Numbers, Numbers]:
        """Return for each choice of steps and each group Σ code · element and Σ code²."""
        products, norms = np.zeros((2, *choices.shape))
        for start, moved in moves.read(pair):
            groups = layout.groups(start, moved.size)
            for at, steps in enumerate(choices):
                codes = cls._rounded(moved, steps[groups])
                gather(np.add, products[at], groups, codes * moved)
                codes *= codes
                gather(np.add, norms[at], groups, codes)
        return products, norms

    @classmethod
    def _rounded(cls, moved: Numbers, steps: Numbers) -> Numbers:
        codes = np.divide(moved, steps, out=np.zeros_like(moved), where=steps > 0)
        np.rint(codes, out=codes)
        return np.clip(codes, -cls.limit, cls.limit, out=codes)

    def codes(self, moved: Numbers, groups: Groups) -> Numbers:
        """Return each element's number of steps."""
        return self._rounded(moved, self.steps[groups])


class Int8(Grid):
    """255 steps a row."""

    name: ClassVar[str] = "int8"
    limit: ClassVar[int] = 127
    floor: ClassVar[float] = 0.03
    usual: ClassVar[float] = 1.0
    scale_bits: ClassVar[int] = 24


class Int4(Grid):
    """15 steps a row."""

    name: ClassVar[str] = "int4"
    limit: ClassVar[int] = 7
    floor: ClassVar[float] = 0.5
    usual: ClassVar[float] = 0.8
    scale_bits: ClassVar[int] = 16


class Int2(Grid):
    """Three steps for each 64 elements of a row."""

    name: ClassVar[str] = "int2"
    limit: ClassVar[int] = 1
    floor: ClassVar[float] = 0.8
    usual: ClassVar[float] = 0.5
    scale_bits: ClassVar[int] = 16

    @classmethod
    def layout(cls, spec: TensorSpec) -> Layout:
        """Return how a tensor's elements stand in groups: 64 each, the last of a row maybe fewer."""
        return Layout(moves.columns(spec), 64)
