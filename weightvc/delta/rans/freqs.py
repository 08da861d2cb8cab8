"""Frequency tables for :mod:`weightvc.delta.rans`: which contexts share one, and how few bytes they take.

A table holds for each token the root of its count, rounded: the counts are noisy to about that degree, so a finer
table costs more than it saves. Everything is integer arithmetic, or roots that IEEE 754 rounds one way only, so every
machine has the same tables.
"""

import math

import numpy as np
from numpy.typing import NDArray

from weightvc.delta.rans import golomb
from weightvc.delta.rans.lanes import PRECISION
from weightvc.util.errors import Corrupt

MAX_GROUPS = 32
TOKENS = 2048
"""Tokens there are, whether or not they occur."""

_FEWEST = 256
_CELL_BITS = 4
_LARGEST = 1023

# log2(c) in units of 2**-16 bit. Integers, so that no choice hangs on how a machine rounds.
_LOGS = np.array([0, *(round(math.log2(c) * 2**16) for c in range(1, 4096))], np.int64)


def most_groups(size: int) -> int:
    """Return how many groups ``size`` words may have."""
    return max(1, min(MAX_GROUPS, size // _FEWEST))


def groups(contexts: NDArray[np.int64]) -> list[int]:
    """Return the first context of each group, given how often each of 256 contexts occurs.

    A group is a run of contexts that occur 256 times together, or more where that makes over ``MAX_GROUPS``.
    """
    fewest = _FEWEST
    while len(starts := _runs(contexts.tolist(), fewest)) > MAX_GROUPS:
        fewest *= 2
    return starts


def _runs(contexts: list[int], fewest: int) -> list[int]:
    starts, size = [0], 0
    for context, count in enumerate(contexts):
        if count and size >= fewest:
            starts.append(context)
            size = 0
        size += count
    if size < fewest and len(starts) > 1:
        starts.pop()
    return starts


def group_of(starts: list[int]) -> NDArray[np.int64]:
    """Return the group of each of 256 contexts."""
    marks = np.zeros(256, np.int64)
    marks[starts[1:]] = 1
    return np.cumsum(marks)


def cost(counts: NDArray[np.int64]) -> tuple[int, int]:
    """Return about how many bits the tokens take, and their tables; ``counts`` is (groups, tokens)."""
    found = counts[counts > 0]
    tokens = int(_c_log_c(counts.sum(axis=1)).sum() - _c_log_c(found).sum()) >> 16
    return tokens, _CELL_BITS * found.size


def _c_log_c(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    dropped = np.maximum(np.frexp(counts)[1] - 12, 0).astype(np.int64)
    logs: NDArray[np.int64] = counts * (_LOGS[counts >> dropped] + (dropped << 16))
    return logs


def roots(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return half the root of each count, rounded; at least 1 for what occurs."""
    found: NDArray[np.int64] = np.maximum((np.sqrt(counts).astype(np.int64) + 1) // 2, np.sign(counts))
    return found


def frequencies(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what each token's slots number, given the roots: at least 1 for what occurs, 2**``PRECISION`` a row.

    Raises:
        Corrupt: a row of roots has no token.
    """
    squares = table * table
    sums = squares.sum(axis=1, keepdims=True)
    if not sums.all():
        raise Corrupt("a table has no tokens")
    room = (1 << PRECISION) - np.count_nonzero(table, axis=1, keepdims=True)
    slots: NDArray[np.int64] = np.sign(table) + squares * room // sums
    slots[np.arange(len(table)), table.argmax(axis=1)] += (1 << PRECISION) - slots.sum(axis=1)
    return slots


def pack(table: NDArray[np.int64]) -> bytes:
    """Encode roots, (groups, tokens): how many each row has, the gaps between them, and their differences."""
    _, tokens = table.nonzero()
    numbers = np.count_nonzero(table, axis=1)
    gaps = np.diff(tokens, prepend=-1) - 1
    firsts = np.cumsum(numbers) - numbers
    gaps[firsts] = tokens[firsts]
    found = table[table > 0]
    found[2:] -= found[:-2].copy()
    return b"".join(map(golomb.pack, (numbers - 1, gaps, _fold(found))))


def unpack(body: memoryview, groups: int) -> tuple[NDArray[np.int64], memoryview]:
    """Decode what :func:`pack` made of that many rows, each of ``TOKENS`` roots; return them, and what follows them.

    Raises:
        Corrupt: ``body`` begins with no such roots.
    """
    numbers, body = golomb.unpack(body, groups)
    numbers += 1
    if numbers.max() > TOKENS:
        raise Corrupt("a table has too many tokens")
    total = int(numbers.sum())
    gaps, body = golomb.unpack(body, total)
    found, body = golomb.unpack(body, total)
    ends = np.cumsum(gaps + 1)
    firsts = np.cumsum(numbers) - numbers
    tokens = ends - np.repeat(ends[firsts] - gaps[firsts], numbers)
    roots = _unfold(np.pad(found, (0, total % 2))).reshape(-1, 2).cumsum(axis=0).ravel()[:total]
    if tokens.max() >= TOKENS or roots.min() < 1 or roots.max() > _LARGEST:
        raise Corrupt("a root in the tables is out of range")
    table = np.zeros((groups, TOKENS), np.int64)
    table[np.repeat(np.arange(groups), numbers), tokens] = roots
    return table, body


def _fold(values: NDArray[np.int64]) -> NDArray[np.int64]:
    folded: NDArray[np.int64] = (values << 1) ^ (values >> 63)
    return folded


def _unfold(values: NDArray[np.int64]) -> NDArray[np.int64]:
    unfolded: NDArray[np.int64] = (values >> 1) ^ -(values & 1)
    return unfolded
