"""Decay predictor: how far weight decay alone moved a weight, by the leading bits of its mantissa.

Decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101) multiplies every weight by a number just below 1 at
each step. In units of the last place that is a shift which hangs on the mantissa alone, and since each step rounds, it
takes few values, with jumps between them. A table of the median shifts predicts rows that no gradient reached.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from weightvc.delta import kernels, planes
from weightvc.delta.pair import Pair
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

INDEX = {"F32": 8}
"""Leading mantissa bits that index the table, by dtype. In narrower formats decay rarely moves a weight at all."""

WORTH = 0.15
"""Share of words that the table must predict exactly, beyond those that did not move at all."""

_MANTISSA = {"F32": 23}


@dataclass(frozen=True, eq=False)
class Decay:
    """Predicts ``base + table[leading mantissa bits of base]``, wrapping.

    Attributes:
        table: Words, one for each value of the leading mantissa bits.
        down: Bits to shift a word right so that those bits are lowest.
    """

    kind: ClassVar[int] = 1

    table: Words
    down: int

    def predict(self, index: int, base: Words, out: Words) -> None:
        """Put the prediction of one chunk's words into ``out``, given the base's."""
        kernels.loops.shifted(base, self.table, self.down, out)

    def to_bytes(self) -> bytes:
        """Return the table as planes."""
        return planes.pack(self.table.copy())

    @classmethod
    def parse(cls, spec: TensorSpec, body: memoryview) -> Self:
        """Return the predictor that :meth:`to_bytes` wrote for a tensor; raises :class:`Corrupt`."""
        if spec.dtype not in INDEX:
            raise Corrupt(f"no table of decay is for {spec.dtype}")
        table: NDArray[np.uint32] = np.empty(1 << INDEX[spec.dtype], np.uint32)
        planes.unpack(body, table)
        return cls(table, _MANTISSA[spec.dtype] - INDEX[spec.dtype])


def fit(pair: Pair, sample: int) -> list[Decay]:
    """Fit a table to one chunk if that one shows weights that were only decayed."""
    dtype = pair.spec.dtype
    if dtype not in INDEX:
        return []
    target, base = pair.target(sample), pair.base(sample)
    if _table(dtype, target, base, bits=4, sampled=1024)[1] < WORTH / 4:
        return []
    table, hits = _table(dtype, target, base, bits=INDEX[dtype], sampled=16384)
    return [Decay(table.view(np.uint32), _MANTISSA[dtype] - INDEX[dtype])] if hits > WORTH else []


def _table(dtype: str, target: Words, base: Words, *, bits: int, sampled: int) -> tuple[NDArray[np.int32], float]:
    """Return the median shift by leading mantissa bits, and the share of words that it alone predicts."""
    step = max(1, target.size // sampled) | 1
    start = base[::step]
    moved = (target[::step] - start).view(np.int32)
    at = (start >> (_MANTISSA[dtype] - bits)) & ((1 << bits) - 1)
    order = np.lexsort((moved, at))
    ends = np.searchsorted(at[order], np.arange((1 << bits) + 1))
    table = np.zeros(1 << bits, np.int32)
    some = ends[1:] > ends[:-1]
    table[some] = moved[order][((ends[:-1] + ends[1:]) // 2)[some]]
    hits = np.count_nonzero(moved == table[at]) - np.count_nonzero(moved == 0)
    return table, hits / max(1, moved.size)
