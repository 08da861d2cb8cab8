"""Codec ``skillpack``: the strongest singular directions of a task vector, in fewer bits the weaker they are.

After the SkillPacks of GraftLLM (Du et al., "Knowledge Grafting of Large Language Models", arXiv:2505.18502), which
keep so many singular vectors for each kind of module and quantise them by bands to 8, 3 and 2 bits. What differs:

- How many there are, and with how many bits, is decided by each tensor's own spectrum: the water-filling of
  :mod:`weightvc.delta.lossy.grid`, by directions. A vector is worth its room while it explains as much as the mean one.
- There codes are calibrated on texts (GPTQ). Here nothing but the weights is looked at: codes are rounded to nearest,
  the right vectors are fitted to the rounded left ones, and the scales to both.
- There embeddings and heads are pruned. Measured, that saved 3 to 7 % and kept the same, so they are decomposed, too.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from weightvc.delta import lowrank, planes
from weightvc.delta.container import CHUNK
from weightvc.delta.lossy import moves, scaled
from weightvc.delta.lossy.grid import CLIPS
from weightvc.delta.lossy.svd import EXTRA, TURNS, matrix
from weightvc.delta.lowrank import MAX_WIDTH, LowRank, Matrix
from weightvc.delta.pair import Pair
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

if TYPE_CHECKING:
    from weightvc.delta.codec import Level

MAX_RANK = 256

BANDS = {127: 64.0, 7: 8.0, 3: 2.5, 1: 1.0}
"""The largest code of a vector, and from how many times the mean energy of all directions on vectors get it."""

SCALE_BITS = 20

_HEAD = struct.Struct("<h4H")
_CLIPS = (*CLIPS, 0.25, 0.2, 0.15, 0.1)


@dataclass(frozen=True, eq=False)
class SkillPack:
    """All is in :attr:`side`; chunks are empty.

    Attributes:
        side: Counts, scales, which rows moved, and the codes of each band: of its left vectors, then of its right.
        factors: The same as two matrices of integers, whose product is exact.
    """

    uses_base: ClassVar[bool] = True
    lossy: ClassVar[bool] = True
    name: ClassVar[str] = "skillpack"

    side: bytes
    factors: LowRank

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Find the directions, round them and fit the scales; see :class:`weightvc.delta.codec.Codec`."""
        moves.take(pair.spec, MAX_WIDTH)
        shape = matrix(pair.spec).shape
        energy, live = 0.0, np.zeros(shape[0], bool)
        for start, moved in moves.read(pair):
            energy += float((moved * moved).sum())
            live[(start + np.flatnonzero(moved)) // shape[1]] = True
        left, limits = np.zeros((0, shape[0])), np.zeros(0, np.int64)
        if energy > 0:
            rank = min(MAX_RANK, *shape)
            left = lowrank.factors(pair, min(rank + EXTRA, *shape), rank, TURNS[level])[0].T
            left[:, ~live] = 0
            left *= _signs(left)
            strengths = np.square(np.square(left).sum(axis=1))  # squares of singular values
            limits = _limits(strengths * (min(shape) / energy))
        codes = _rounded(left[: limits.size], limits)
        right, scales = _fitted(pair, codes, limits)
        shift = SCALE_BITS - int(np.frexp(scales.max(initial=0.0))[1])
        weights = np.rint(np.ldexp(scales, shift)).astype(np.uint32)
        head = [_HEAD.pack(shift, *(np.count_nonzero(limits == limit) for limit in BANDS))]
        head += [planes.pack_long(weights), planes.pack_long(live.view(np.uint8))]
        side = b"".join((*head, *_coded(limits, codes[:, live], right)))
        return cls(side, _joined(pair.spec, shift, weights, codes, right))

    @classmethod
    def parse(cls, spec: TensorSpec, side: memoryview) -> Self:
        """Return the codec; see :class:`weightvc.delta.codec.Codec`."""
        moves.check(spec)
        return cls(bytes(side), _joined(spec, *_read(matrix(spec).shape, side)))

    def encode_chunk(self, index: int, target: Words, base: Words | None) -> bytes:
        """Return nothing: all that is kept stands in :attr:`side`."""
        return b""

    def decode_chunk(self, index: int, body: memoryview, base: Words | None, out: Words) -> None:
        """Decode one chunk into ``out``; see :class:`weightvc.delta.codec.Codec`."""
        if body or base is None:
            raise Corrupt("a chunk of singular vectors is empty")
        moves.put(self.factors.dtype, base, self.factors.step(index, base.size), out)


def _joined(spec: TensorSpec, shift: int, weights: NDArray[np.uint32], left: Matrix, right: Matrix) -> LowRank:
    """Return the factors: sums of 256 products of 2**20, 127 and 127 at most are below 2**53."""
    return LowRank(spec.dtype, left.T * weights, right, shift, CHUNK // spec.itemsize)


def _limits(energies: Matrix) -> NDArray[np.int64]:
    """Return the largest code of each vector that is kept, given their energies over the mean."""
    limits = np.zeros(energies.size, np.int64)
    for limit, least in BANDS.items():
        limits[(limits == 0) & (energies >= least)] = limit
    return np.trim_zeros(np.minimum.accumulate(limits), "b")


def _signs(vectors: Matrix) -> Matrix:
    """Return for each row the sign of its largest element: which of two signs it has is the library's whim."""
    peaks = np.abs(vectors).argmax(axis=1)[:, None]
    return np.where(np.take_along_axis(vectors, peaks, axis=1) < 0, -1.0, 1.0)


def _bands(limits: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Return each largest code with the vectors that have it; their order is that of the bands."""
    for limit in BANDS:
        found = np.flatnonzero(limits == limit)
        if found.size:
            yield limit, slice(int(found[0]), int(found[-1]) + 1)


def _rounded(vectors: Matrix, limits: NDArray[np.int64]) -> Matrix:
    """Return the codes of each row: of the steps that are tried those that leave the least squared error."""
    peaks, most = np.abs(vectors).max(axis=1, initial=0.0), limits[:, None].astype(np.float64)
    codes, best = np.zeros_like(vectors), np.full(limits.size, -1.0)
    for clip in _CLIPS:
        steps = np.where(peaks > 0, clip * peaks, 1.0)[:, None] / most
        tried = np.clip(np.rint(vectors / steps), -most, most)
        norms = np.square(tried).sum(axis=1)
        gains = np.square((tried * vectors).sum(axis=1)) / np.maximum(norms, 1.0)
        better = gains > best
        codes[better], best[better] = tried[better], gains[better]
    return codes


def _fitted(pair: Pair, left: Matrix, limits: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Return the codes of the right vectors, fitted to those of the left, and the scales that fit both best."""
    inner = np.zeros((limits.size, matrix(pair.spec).shape[1]))
    for rows, columns, block in lowrank.blocks(pair):
        inner[:, columns] += left[:, rows] @ block
    gram = left @ left.T
    best: Matrix = np.linalg.lstsq(gram, inner, rcond=None)[0].astype(np.float64, copy=False)
    right = _rounded(best, limits)
    scales = np.linalg.lstsq(gram * (right @ right.T), (inner * right).sum(axis=1), rcond=None)[0]
    return right, np.maximum(scales, 0.0)


def _coded(limits: NDArray[np.int64], left: Matrix, right: Matrix) -> Iterator[bytes]:
    for limit, band in _bands(limits):
        yield from (planes.pack_long(scaled.digits(codes[band].reshape(-1), limit)) for codes in (left, right))


def _read(shape: tuple[int, ...], side: memoryview) -> tuple[int, NDArray[np.uint32], Matrix, Matrix]:
    """Return what :meth:`SkillPack.fit` wrote: shift, scales, left and right codes; raises :class:`Corrupt`."""
    if len(side) < _HEAD.size:
        raise Corrupt("singular vectors are cut short")
    if shape[1] > MAX_WIDTH:
        raise Corrupt(f"singular vectors for rows of {shape[1]}")
    shift, *counts = _HEAD.unpack_from(side)
    rank, rest = sum(counts), side[_HEAD.size :]
    if rank > min(MAX_RANK, *shape):
        raise Corrupt(f"{rank} singular vectors")
    planes.check_room(rest, shape[0], 1)
    weights, flags = np.empty(rank, np.uint32), np.empty(shape[0], np.uint8)
    for array in (weights, flags):
        rest = rest[planes.unpack_long(rest, array) :]
    if int(weights.max(initial=0)) > 1 << SCALE_BITS or int(flags.max()) > 1:
        raise Corrupt("a scale or a row's mark is out of range")
    live, moved = flags.astype(bool), int(flags.sum())
    codes = [count * (moved + shape[1]) // scaled.per_byte(limit) for limit, count in zip(BANDS, counts, strict=True)]
    planes.check_room(rest, sum(codes), 1)
    left, right = np.zeros((rank, shape[0])), np.zeros((rank, shape[1]))
    for limit, band in _bands(np.repeat(list(BANDS), counts)):
        size = band.stop - band.start
        for into, where, width in ((left, live, moved), (right, slice(None), shape[1])):
            packed: NDArray[np.uint8] = np.empty(-(-size * width // scaled.per_byte(limit)), np.uint8)
            rest = rest[planes.unpack_long(rest, packed) :]
            into[band, where] = scaled.numbers(packed, size * width, limit).reshape(size, width)
    if rest:
        raise Corrupt("bytes follow the singular vectors")
    return shift, weights, left, right
