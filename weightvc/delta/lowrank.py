"""Low-rank predictor: a tuned matrix is the base's plus a product of two thin matrices of integers.

A LoRA update (Hu et al., arXiv:2106.09685) that was merged into its base looks like noise to a byte coder, though
a few columns and rows explain all of it but the rounding. The factors are found again by a randomized range finder
(Halko, Martinsson, Tropp, SIAM Review 2011) and rounded to integers. Their product is then a sum of integers below
2**53, so every BLAS computes it exactly, in any order; one power of two turns it into weights, and one rounding to
nearest even into words. The prediction is therefore the same on every machine, while fitting it need not be.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from weightvc.delta import planes, values
from weightvc.delta.container import CHUNK
from weightvc.delta.pair import Pair
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

if TYPE_CHECKING:
    from weightvc.delta.codec import Level

MAX_RANK = 128
MAX_WIDTH = 2**18
"""Columns of a matrix: a chunk is predicted by whole rows."""

BITS = {"F32": (20, 24), "BF16": (11,), "F16": (14, 17)}
"""Bits of a factor's integers, sign included, to choose from: more of them cost room and leave smaller residues."""

LOUD = 100
"""How many times the energy of its rounding errors a difference must have: below that, factors hardly save a bit."""

_HEAD = struct.Struct("<Hh")
_EXTRA = 8

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LowRank:
    """Predicts ``base + left @ right * 2**-shift``, rounded to the dtype; where that is NaN, the base's word.

    Attributes:
        dtype: F32, BF16 or F16.
        left: float64 integers, (rows, rank).
        right: float64 integers, (rank, columns).
        shift: Of the product's binary point.
        chunk: Words of every chunk but the last.
    """

    kind: ClassVar[int] = 2

    dtype: str
    left: Matrix
    right: Matrix
    shift: int
    chunk: int

    def predict(self, index: int, base: Words, out: Words) -> None:
        """Put the prediction of one chunk's words into ``out``, given the base's."""
        guess = values.to_float(self.dtype, base.data)
        nan = np.isnan(guess)
        with np.errstate(over="ignore", invalid="ignore"):  # only factors that nobody fitted reach that far
            guess += self.step(index, base.size)
        values.to_words(self.dtype, guess, out)
        np.copyto(out, base, where=nan)

    def step(self, index: int, size: int) -> Matrix:
        """Return what is added to the base's values of chunk ``index``, of so many words; 1-d."""
        columns = self.right.shape[1]
        start = index * self.chunk
        first, last = start // columns, -(-(start + size) // columns)
        product = (self.left[first:last] @ self.right).reshape(-1)
        start -= first * columns
        with np.errstate(over="ignore"):
            return np.ldexp(product[start : start + size], -self.shift)

    def to_bytes(self) -> bytes:
        """Return the factors: rank and shift, then both matrices as planes of 32-bit words, centred on 2**23."""
        head = _HEAD.pack(self.right.shape[0], self.shift)
        return head + b"".join(
            planes.pack_long((part.reshape(-1).astype(np.int32) + 2**23).view(np.uint32))
            for part in (self.left, self.right)
        )

    @classmethod
    def parse(cls, spec: TensorSpec, body: memoryview) -> Self:
        """Return the predictor that :meth:`to_bytes` wrote for a tensor; raises :class:`Corrupt`."""
        if not _fits(spec) or len(body) < _HEAD.size:
            raise Corrupt(f"no low-rank factors of a {spec.dtype} tensor of {len(spec.shape)} dimensions")
        rank, shift = _HEAD.unpack_from(body)
        rows, columns = spec.shape
        if not 1 <= rank <= min(MAX_RANK, rows, columns):
            raise Corrupt(f"low-rank factors of rank {rank}")
        planes.check_room(body[_HEAD.size :], rank * (rows + columns), 4)
        found = np.empty(rank * (rows + columns), np.uint32)
        end = planes.unpack_long(body[_HEAD.size :], found[: rank * rows])
        rest = body[_HEAD.size + end :]
        if planes.unpack_long(rest, found[rank * rows :]) != len(rest):
            raise Corrupt("bytes follow the low-rank factors")
        if found.size and int(found.max()) > 2**24:
            raise Corrupt("low-rank factors are out of range")
        numbers = found.astype(np.float64) - 2**23
        left, right = numbers[: rank * rows].reshape(rows, rank), numbers[rank * rows :].reshape(rank, columns)
        return cls(spec.dtype, left, right, shift, CHUNK // spec.itemsize)


def _fits(spec: TensorSpec) -> bool:
    return spec.dtype in BITS and len(spec.shape) == 2 and 0 < spec.shape[1] <= MAX_WIDTH and spec.shape[0] > 0


def fit(pair: Pair, sample: int, level: "Level") -> list[LowRank]:
    """Find the factors of a merged low-rank update, rounded in several ways to choose from.

    Args:
        pair: The tensor and its base.
        sample: The chunk that decides whether a closer look is worth its time; it often is not.
        level: ``best`` looks at a larger block, which shows higher ranks.
    """
    spec = pair.spec
    rank = _rank(pair, sample, 192 if level == "best" else 64) if _fits(spec) and min(spec.shape) >= 64 else 0
    if not rank:
        return []
    found = factors(pair, min(rank + _EXTRA, *spec.shape), rank)
    return [rounded(spec.dtype, found, bits, pair.chunk_words) for bits in BITS[spec.dtype]]


def rounded(dtype: str, found: tuple[Matrix, Matrix], bits: int, chunk: int) -> LowRank:
    """Return the predictor by factors that are rounded to integers of so many bits, sign included."""
    up = [bits - 1 - int(np.frexp(np.abs(part).max() or 1.0)[1]) for part in found]
    left, right = (np.rint(np.ldexp(part, by)) for part, by in zip(found, up, strict=True))
    return LowRank(dtype, left, right, sum(up), chunk)


def _rank(pair: Pair, sample: int, most: int) -> int:
    """Return after how many rows of one block nothing but rounding errors is left; 0 for none, or too many.

    The block is made triangular by Gram-Schmidt with pivoting: each step takes the direction of the longest row that
    is left out of all rows. A singular value decomposition would say it better and cost more than the encoding. Most
    blocks have no such rank; a decomposition without pivoting tells that in an eighth of the time.
    """
    left, noise = _block(pair, sample, most)
    energy = np.square(left).sum(axis=1)
    if not np.isfinite(left).all() or energy.sum() < LOUD * noise or np.count_nonzero(energy) * 8 < energy.size * 7:
        return 0
    triangle = cast("Matrix", np.linalg.qr(left, mode="r"))  # its types say otherwise
    half = len(triangle) // 2
    if np.square(triangle[half:, half:]).sum() > 24 * noise:
        return 0
    for step in range(1, min(left.shape) // 3 + 1):
        pivot = left[energy.argmax()]
        pivot = pivot / np.sqrt(pivot @ pivot)
        left -= np.outer(left @ pivot, pivot)
        energy = np.square(left).sum(axis=1)
        if energy.sum() < 6 * noise:
            return step
    return 0


def _block(pair: Pair, sample: int, most: int) -> tuple[Matrix, float]:
    """Return the difference at up to ``most`` rows and columns of one chunk, and its rounding errors' squared norm."""
    columns = pair.spec.shape[1]
    target, base = pair.target(sample), pair.base(sample)
    start = -sample * pair.chunk_words % columns
    rows = max(0, target.size - start) // columns
    down, across = (slice(None, None, max(1, size // most)) for size in (rows, columns))
    parts = [
        np.ascontiguousarray(part[start : start + rows * columns].reshape(rows, columns)[down, across][:most, :most])
        for part in (target, base)
    ]
    tuned, before = (values.to_float(pair.spec.dtype, part.data).reshape(part.shape) for part in parts)
    with np.errstate(invalid="ignore"):
        return tuned - before, float(np.square(values.spacing(pair.spec.dtype, tuned)).sum()) / 12


def factors(pair: Pair, width: int, rank: int, turns: int = 0) -> tuple[Matrix, Matrix]:
    """Return (rows, rank) and (rank, columns) whose product is near the difference, their columns alike in size.

    Args:
        pair: The tensor, taken for a matrix of its first dimension's rows, and its base.
        width: Directions to look at, at least ``rank``.
        rank: Directions to keep.
        turns: How often the directions are improved, by two more reads; needed where singular values fall slowly.
    """
    rows, columns = pair.spec.shape[0], pair.spec.elements // pair.spec.shape[0]
    seen = (np.random.Generator(np.random.PCG64(0)).integers(0, 2, (columns, width)) * 2.0 - 1).T
    for turn in range(turns + 1):
        image = np.zeros((rows, width))
        for r, c, block in blocks(pair):
            image[r] += block @ seen[:, c].T
        basis = np.linalg.qr(image)[0]
        inner = np.zeros((width, columns))
        for r, c, block in blocks(pair):
            inner[:, c] += basis[r].T @ block
        if turn < turns:
            seen = np.linalg.qr(inner.T)[0].T
    squares, around = np.linalg.eigh(inner @ inner.T)
    squares, around = squares[::-1][:rank], around[:, ::-1][:, :rank]
    # Directions that are nothing but rounding stay out of both, or their reciprocals would drown all others.
    seen_at_all = squares > max(rows, columns) * np.finfo(np.float64).eps * max(squares[0], 0.0)
    root = np.sqrt(np.sqrt(np.where(seen_at_all, squares, 1.0)))
    return (basis @ around) * (root * seen_at_all), (around.T @ inner) * (seen_at_all / root)[:, None]


def blocks(pair: Pair) -> Iterator[tuple[slice, slice, Matrix]]:
    """Return the difference as blocks with their rows and columns: of each chunk what it has of rows, cut or whole.

    Values that are not finite count as 0.
    """
    columns = pair.spec.elements // pair.spec.shape[0]
    at = 0
    for index in range(pair.chunks):
        moved = values.to_float(pair.spec.dtype, pair.target(index).data)
        with np.errstate(invalid="ignore"):
            moved -= values.to_float(pair.spec.dtype, pair.base(index).data)
        np.nan_to_num(moved, copy=False, posinf=0.0, neginf=0.0)
        done = 0
        while done < moved.size:
            row, column = divmod(at + done, columns)
            whole = (moved.size - done) // columns if column == 0 else 0
            size = whole * columns or min(columns - column, moved.size - done)
            height = whole or 1
            block = moved[done : done + size].reshape(height, -1)
            yield slice(row, row + height), slice(column, column + block.shape[1]), block
            done += size
        at += moved.size
