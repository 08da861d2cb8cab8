"""Codec ``svd:R``: the task vector's best approximation of rank R, as two thin matrices of integers.

Truncated singular value decomposition, as in the compressed form of task vectors by Gargiulo et al. ("Task Singular
Vectors", arXiv:2412.00081). The factors are those of :mod:`weightvc.delta.lowrank`, whose product is exact.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from weightvc.delta import lowrank
from weightvc.delta.lossy import moves
from weightvc.delta.lowrank import MAX_RANK, MAX_WIDTH, LowRank
from weightvc.delta.pair import Pair
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt, Unsupported
from weightvc.util.text import printable

if TYPE_CHECKING:
    from weightvc.delta.codec import Level

BITS = 12
"""Of a factor's integers, sign included: their rounding leaves about a thousandth of the task vector."""

TURNS = {"fast": 0, "default": 1, "best": 3}
EXTRA = 8
"""Directions that are looked at beyond those that are kept."""


@dataclass(frozen=True, eq=False)
class Svd:
    """The factors are in :attr:`side`; chunks are empty. :func:`of_rank` makes the class for a rank.

    Attributes:
        factors: Of the tensor as a matrix of its first dimension's rows.
    """

    uses_base: ClassVar[bool] = True
    lossy: ClassVar[bool] = True
    name: ClassVar[str] = "svd"
    rank: ClassVar[int] = 0

    factors: LowRank

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Find the factors; see :class:`weightvc.delta.codec.Codec`."""
        moves.take(pair.spec, MAX_WIDTH)
        flat = matrix(pair.spec)
        still = np.ones(flat.shape[0], bool)
        for start, moved in moves.read(pair):
            still[(start + np.flatnonzero(moved)) // flat.shape[1]] = False
        rank = min(cls.rank, *flat.shape)
        found = lowrank.factors(pair, min(rank + EXTRA, *flat.shape), rank, TURNS[level])
        found[0][still] = 0
        return cls(lowrank.rounded(flat.dtype, found, BITS, pair.chunk_words))

    @classmethod
    def parse(cls, spec: TensorSpec, side: memoryview) -> Self:
        """Return the codec; see :class:`weightvc.delta.codec.Codec`."""
        moves.check(spec)
        made = LowRank.parse(matrix(spec), side)
        if made.right.shape[0] > cls.rank:
            raise Corrupt(f"low-rank factors of rank {made.right.shape[0]}")
        return cls(made)

    @property
    def side(self) -> bytes:
        """The factors."""
        return self.factors.to_bytes()

    def encode_chunk(self, index: int, target: Words, base: Words | None) -> bytes:
        """Return nothing: all that is kept stands in :attr:`side`."""
        return b""

    def decode_chunk(self, index: int, body: memoryview, base: Words | None, out: Words) -> None:
        """Decode one chunk into ``out``; see :class:`weightvc.delta.codec.Codec`."""
        if body or base is None:
            raise Corrupt("a chunk of low-rank factors is empty")
        moves.put(self.factors.dtype, base, self.factors.step(index, base.size), out)


@cache
def of_rank(text: str) -> type[Svd]:
    """Return the codec of a rank in decimal; raises :class:`Unsupported` for anything else."""
    if text not in map(str, range(1, MAX_RANK + 1)):
        name = printable(f"{Svd.name}:{text}".removesuffix(":"))[:80]
        raise Unsupported(f"codec {name!r} is unknown", f"give a rank from 1 to {MAX_RANK}, such as {Svd.name}:16")
    return type(f"Svd{text}", (Svd,), {"name": f"{Svd.name}:{text}", "rank": int(text), "__doc__": f"Of rank {text}."})


def matrix(spec: TensorSpec) -> TensorSpec:
    """Return a tensor's spec as that of a matrix of its first dimension's rows."""
    return TensorSpec(spec.name, spec.dtype, (spec.shape[0], moves.columns(spec)))
