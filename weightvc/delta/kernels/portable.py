"""The loops in NumPy: what a build without a C compiler uses, and what the compiled ones are held to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightvc.delta.words import Words

_RUNS, _SAMPLE, _SAMPLED = 16, 4096, 16384


def difference(target: Words, guess: Words, out: Words) -> int:
    """Put ``target - guess``, wrapping, into ``out`` and return how many words of it are not 0."""
    np.subtract(target, guess, out=out)
    return int(np.count_nonzero(out))


def split(words: Words, bias: int, planes: NDArray[np.uint8], costs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Put the bytes of ``words + bias``, wrapping, into planes, the lowest first; destroys ``words``.

    Args:
        words: 1-d, n words, at least one.
        bias: Within a word's range.
        planes: (bytes of a word, n).
        costs: int64, (4097,).

    Returns:
        For each plane its greatest byte less its least, and the sum over all byte values of
        ``costs[how often it occurs]`` among 4,096 of its bytes; 0 if it has less than 16,384.
    """
    if bias:
        np.add(words, words.dtype.type(bias), out=words)
    _split(words, planes)
    return [(int(plane.max()) - int(plane.min()), _sample(plane, costs)) for plane in planes]


def _split(words: Words, planes: NDArray[np.uint8]) -> None:
    """Put as many lower bytes of ``words`` as there are planes into these; destroys ``words``.

    By way of words of half the size: copying and shifting those costs half as much.
    """
    count = len(planes)
    if count == 1:
        np.copyto(planes[0], words, casting="unsafe")
        return
    if words.itemsize > count:
        words = words.astype(f"<u{count}")
    half = count // 2
    _split(words, planes[:half])
    np.right_shift(words, 8 * half, out=words)
    _split(words, planes[half:])


def _sample(plane: NDArray[np.uint8], costs: NDArray[np.int64]) -> int:
    if plane.size < _SAMPLED:
        return 0
    # Runs, since single bytes from all over the plane would take as long to fetch as the whole of it.
    runs = plane[: plane.size // _RUNS * _RUNS].reshape(_RUNS, -1)
    counts = np.bincount(runs[:, : _SAMPLE // _RUNS].reshape(-1), minlength=256)
    return int(costs[counts].sum())


def merge(planes: Sequence[NDArray[np.uint8]], out: Words, bias: int, base: Words | None) -> None:
    """Put the words of these planes, plus ``bias`` and the words of ``base``, wrapping, into ``out``.

    Args:
        planes: As many as a word has bytes, the lowest first; one that is constant may have a single byte.
        out: 1-d, n words; not those of ``base``.
        bias: Within a word's range.
        base: n words, or ``None`` for zeros.
    """
    constant, above = bias, None
    for index, plane in reversed(list(enumerate(planes))):
        if plane.size != out.size:
            constant += int(plane[0]) << 8 * index
            continue
        if above is None:
            np.copyto(out, plane)
        else:
            np.left_shift(out, 8 * (above - index), out=out)
            np.bitwise_or(out, plane, out=out)
        above = index
    rest = out.dtype.type(constant % (1 << 8 * out.itemsize))
    if above is None:
        out.fill(rest)
    else:
        np.left_shift(out, 8 * above, out=out)
        np.add(out, rest, out=out)
    if base is not None:
        np.add(out, base, out=out)


def mark(words: Words, which: NDArray[np.uint8]) -> None:
    """Put a bit for each word into ``which``, the lowest first: 1 if the word is not 0.

    Args:
        words: 1-d, n words.
        which: As many bytes as n bits take; bits past the last word become 0.
    """
    np.copyto(which, np.packbits(words != 0, bitorder="little"))


def count(which: NDArray[np.uint8]) -> int:
    """Return how many bits are 1."""
    return int(np.count_nonzero(np.unpackbits(which)))


def gather(which: NDArray[np.uint8], words: Words, bias: int, changed: Words) -> None:
    """Put those ``words`` that ``which`` has a 1 for, plus ``bias``, wrapping, into ``changed``, one after another.

    Raises:
        ValueError: ``which`` has another number of bits than there are words, or of ones than ``changed`` has room for.
    """
    np.add(words[_places(which, words, changed)], words.dtype.type(bias), out=changed)


def scatter(which: NDArray[np.uint8], changed: Words, out: Words) -> None:
    """Add, wrapping, one of ``changed`` after another to the words of ``out`` that ``which`` has a 1 for.

    Raises:
        ValueError: ``which`` has another number of bits than ``out`` words, or of ones than there are of ``changed``.
    """
    out[_places(which, out, changed)] += changed


def _places(which: NDArray[np.uint8], words: Words, changed: Words) -> NDArray[Any]:
    """Return the map as a mask where words stand in runs, and as indices otherwise: NumPy takes those faster."""
    mask = np.unpackbits(which, bitorder="little").view(bool)
    if which.size != -(-words.size // 8) or mask[words.size :].any() or np.count_nonzero(mask) != changed.size:
        raise ValueError("a map of another size, or of another number of changed words")
    mask = mask[: words.size]
    whole = int(np.count_nonzero(which == 0)) + int(np.count_nonzero(which == 0xFF))
    return mask if (which.size - whole) * 16 < which.size else np.flatnonzero(mask)


def turn(words: Words, left: int, out: Words) -> None:
    """Put ``words``, each rotated left by ``left`` bits, at least 1 and less than a word has, into ``out``."""
    np.left_shift(words, left, out=out)
    out |= words >> (8 * words.itemsize - left)


def shifted(base: Words, table: Words, down: int, out: Words) -> None:
    """Put ``base + table[base >> down & 255]``, wrapping, into ``out``.

    Args:
        base: 1-d words of four bytes.
        table: 256 such words.
        down: Bits, at most 24.
        out: As many words as ``base``.
    """
    np.right_shift(base, down, out=out)
    np.bitwise_and(out, 255, out=out)
    np.take(table, out.astype(np.intp), out=out, mode="wrap")  # no index needs it; it is the fastest mode
    np.add(out, base, out=out)
