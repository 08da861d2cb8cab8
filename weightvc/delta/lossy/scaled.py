"""Small integers times a scale: the format of the codecs that code element by element.

Elements stand in groups, such as the rows of a matrix; each group has a scale, and each element of a group that moved
a code, a small integer. Decoding is a product, a sum and one rounding of IEEE doubles, and so the same everywhere.
``docs/format/lossy.md`` specifies each byte.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from weightvc.delta import planes
from weightvc.delta.container import CHUNK
from weightvc.delta.lossy import moves
from weightvc.delta.lossy.moves import Numbers
from weightvc.delta.pair import Pair
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

if TYPE_CHECKING:
    from weightvc.delta.codec import Level

Groups = NDArray[np.int64]

_INFINITE = 0x7F800000


@dataclass(frozen=True, slots=True)
class Layout:
    """Which group an element is in: rows of ``columns``, each cut into groups of ``width``, the last one shorter."""

    columns: int
    width: int

    def groups(self, start: int, count: int) -> Groups:
        """Return the group of each of ``count`` elements from ``start`` on; they never decrease."""
        row, column = np.divmod(np.arange(start, start + count), self.columns)
        column //= self.width
        row *= self._in_row
        row += column
        return row

    def count(self, spec: TensorSpec) -> int:
        """Return the number of groups of a tensor."""
        return spec.elements // self.columns * self._in_row

    @property
    def _in_row(self) -> int:
        return -(-self.columns // self.width)


def gather(how: np.ufunc, into: NDArray[Any], groups: Groups, numbers: NDArray[Any]) -> None:
    """Reduce the numbers of each group by ``how``, along the last axis, into its place in ``into``."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    at = groups[starts]
    into[..., at] = how(into[..., at], how.reduceat(numbers, starts, axis=-1))


@dataclass(frozen=True, eq=False)
class Scaled(ABC):
    """The part of such a codec that the format decides; those below it fit :attr:`scales` and choose codes.

    Attributes:
        spec: The tensor's dtype and shape.
        scales: float32, one for each group, not negative; 0 for a group that stays the base's.
    """

    uses_base: ClassVar[bool] = True
    lossy: ClassVar[bool] = True
    name: ClassVar[str]
    limit: ClassVar[int]
    """The largest code; the smallest is its negative."""

    spec: TensorSpec
    scales: NDArray[np.float32]

    @classmethod
    def layout(cls, spec: TensorSpec) -> Layout:
        """Return how a tensor's elements stand in groups: a row each."""
        return Layout(moves.columns(spec), moves.columns(spec))

    @classmethod
    @abstractmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Return the codec for one tensor; see :class:`weightvc.delta.codec.Codec`."""

    @classmethod
    def parse(cls, spec: TensorSpec, side: memoryview) -> Self:
        """Return the codec; see :class:`weightvc.delta.codec.Codec`."""
        moves.check(spec)
        planes.check_room(side, cls.layout(spec).count(spec), 4)
        bits: NDArray[np.uint32] = np.empty(cls.layout(spec).count(spec), np.uint32)
        if planes.unpack_long(side, bits) != len(side):
            raise Corrupt("bytes follow the scales")
        if int(bits.max()) >= _INFINITE:
            raise Corrupt("a scale is negative or not finite")
        return cls(spec, bits.view(np.float32))

    @property
    def side(self) -> bytes:
        """The scales, as planes of their bit patterns."""
        return planes.pack_long(self.scales.view(np.uint32))

    @abstractmethod
    def codes(self, moved: Numbers, groups: Groups) -> Numbers:
        """Return the code of each element, given how it moved and its group."""

    def encode_chunk(self, index: int, target: Words, base: Words | None) -> bytes:
        """Encode one chunk; see :class:`weightvc.delta.codec.Codec`."""
        groups, live = self._groups(index, target.size)
        if base is None or not live.any():
            return b""
        moved = moves.difference(self.spec.dtype, target, base)
        codes = self.codes(moved, groups)[live]
        return planes.pack(digits(codes, self.limit))

    def decode_chunk(self, index: int, body: memoryview, base: Words | None, out: Words) -> None:
        """Decode one chunk into ``out``; see :class:`weightvc.delta.codec.Codec`."""
        if base is None:
            raise ValueError("a task vector is from a base")
        groups, live = self._groups(index, out.size)
        step = self.scales[groups].astype(np.float64)
        count = int(np.count_nonzero(live))
        if count:
            packed: NDArray[np.uint8] = np.empty(-(-count // per_byte(self.limit)), np.uint8)
            planes.unpack(body, packed)
            step[live] *= numbers(packed, count, self.limit)
        elif body:
            raise Corrupt("codes of a chunk in which nothing moved")
        moves.put(self.spec.dtype, base, step, out)

    def _groups(self, index: int, count: int) -> tuple[Groups, NDArray[np.bool_]]:
        groups = self.layout(self.spec).groups(index * (CHUNK // self.spec.itemsize), count)
        return groups, self.scales[groups] > 0


def per_byte(limit: int) -> int:
    """Return how many codes share a byte."""
    return {127: 1, 7: 2, 3: 2, 1: 5}[limit]


def digits(codes: Numbers, limit: int) -> NDArray[np.uint8]:
    """Return bytes whose digits, in base 2 · limit + 1, lowest first, are code + limit; the last is filled with 0."""
    base, held = 2 * limit + 1, per_byte(limit)
    filled = np.full(-(-codes.size // held) * held, limit, np.uint8)
    np.copyto(filled[: codes.size], codes + limit, casting="unsafe")
    columns = filled.reshape(-1, held)
    packed = columns[:, held - 1].copy()
    for at in range(held - 2, -1, -1):
        packed *= np.uint8(base)
        packed += columns[:, at]
    return packed


def numbers(packed: NDArray[np.uint8], count: int, limit: int) -> NDArray[np.int16]:
    """Return the ``count`` codes that :func:`digits` made bytes of; raises :class:`Corrupt`."""
    base, held = 2 * limit + 1, per_byte(limit)
    if packed.size and int(packed.max()) >= base**held:
        raise Corrupt("a code is out of range")
    parts = np.empty((packed.size, held), np.int16)
    for at in range(held):
        packed, parts[:, at] = np.divmod(packed, np.uint8(base))
    parts -= limit
    flat = parts.reshape(-1)
    if flat[count:].any():
        raise Corrupt("codes follow the last one")
    return flat[:count]


def kept(scales: Numbers, bits: int) -> NDArray[np.float32]:
    """Return scales as float32 with so many leading bits of their patterns, the rest zero: that takes less room."""
    most = np.finfo(np.float32).max
    patterns = np.minimum(scales, most).astype(np.float32).view(np.uint32)
    half = np.uint32((1 << (32 - bits)) >> 1)
    rounded = (np.minimum(patterns, np.uint32(_INFINITE - 1) - half) + half) >> (32 - bits) << (32 - bits)
    return rounded.astype(np.uint32).view(np.float32)
