"""Raw little-endian bytes seen as numbers."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weightvc.delta.words import Words, words_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FLOAT = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_PRECISION = {"F32": (24, -149), "F16": (11, -24), "BF16": (8, -133)}
"""Bits of a significand and the exponent of the smallest subnormal number."""

_EXPONENT = {"F64": (52, 0xFF), "F32": (23, 0xFF), "F16": (10, 0x1F), "BF16": (7, 0xFF)}
"""Where a float's exponent begins, and which of its bits are taken."""

_SPAN = 128 * 1024
"""Bytes looked at together, so that the intermediate arrays stay in a core's cache."""

_NONFINITE = {
    "F64": (8, 0x7FF0000000000000, 0x7FF0000000000000),
    "F32": (4, 0x7F800000, 0x7F800000),
    "C64": (4, 0x7F800000, 0x7F800000),
    "F16": (2, 0x7C00, 0x7C00),
    "BF16": (2, 0x7F80, 0x7F80),
    "F8_E5M2": (1, 0x7C, 0x7C),
    "F8_E4M3": (1, 0x7F, 0x7F),
    "F8_E8M0": (1, 0xFF, 0xFF),
    "F8_E4M3FNUZ": (1, 0xFF, 0x80),
    "F8_E5M2FNUZ": (1, 0xFF, 0x80),
}
"""Word size, mask and pattern: a word is NaN or infinite when ``word & mask == pattern``.

The 8-bit formats are those of the OCP 8-bit Floating Point Specification (E4M3, E5M2), of the OCP Microscaling
Formats Specification (E8M0; its 4- and 6-bit formats have no such values), and of arXiv:2206.02915 (FNUZ).
"""


def to_float(dtype: str, data: "ReadableBuffer", out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the values as float64, which holds each of them exactly.

    Args:
        dtype: F64, F32, F16 or BF16 (:data:`weightvc.objects.tensors.MERGED`).
        data: Raw bytes of whole elements.
        out: Where to put them, of as many elements; made when ``None``.

    Returns:
        ``out``, 1-d.
    """
    if dtype == "BF16":  # the upper half of a float32
        values = np.left_shift(words_of(data, 2), 16, dtype=np.uint32).view(np.float32)
    else:
        values = np.frombuffer(memoryview(data), _FLOAT[dtype])
    if out is None:
        out = np.empty(values.size)
    with np.errstate(invalid="ignore"):  # widening a signalling NaN makes it a quiet one
        np.copyto(out, values)
    return out


def to_words(dtype: str, numbers: NDArray[np.float64], out: Words) -> None:
    """Round numbers to nearest even and put their bit patterns into ``out``; beyond the range they become infinite.

    BF16 is rounded twice, by way of F32. The pattern that a NaN gets is not defined.

    Args:
        dtype: F32, F16 or BF16.
        numbers: float64, 1-d.
        out: As many words.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != "BF16":
            np.copyto(out.view(_FLOAT[dtype]), numbers, casting="same_kind")
            return
        single = numbers.astype(np.float32).view(np.uint32)
    odd = single >> 16
    odd &= 1
    single += 0x7FFF
    single += odd
    single >>= 16
    np.copyto(out, single, casting="unsafe")


def exponents(dtype: str, words: Words) -> NDArray[np.uint8]:
    """Return each float's biased exponent, of F64 its lower eight bits; 0 for every word of another dtype."""
    if dtype not in _EXPONENT:
        return np.zeros(words.size, np.uint8)
    shift, mask = _EXPONENT[dtype]
    return (words >> shift & mask).astype(np.uint8)


def spacing(dtype: str, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from each number to the next one that the dtype can hold.

    Args:
        dtype: F32, F16 or BF16.
        numbers: float64, within the dtype's range.
    """
    bits, least = _PRECISION[dtype]
    distance: NDArray[np.float64] = np.ldexp(1.0, np.maximum(np.frexp(numbers)[1] - bits, least))
    return distance


def count_nonfinite(dtype: str, data: "ReadableBuffer") -> int:
    """Count NaN and infinite values; of a C64 tensor each part counts. Always 0 for dtypes that have none."""
    if dtype not in _NONFINITE:
        return 0
    itemsize, mask, pattern = _NONFINITE[dtype]
    words = words_of(data, itemsize)
    span = _SPAN // itemsize
    scratch = np.empty(min(span, words.size), words.dtype)
    count = 0
    for start in range(0, words.size, span):
        part = words[start : start + span]
        masked = np.bitwise_and(part, words.dtype.type(mask), out=scratch[: part.size])
        count += int(np.count_nonzero(masked == words.dtype.type(pattern)))
    return count


def count_bad_bools(data: "ReadableBuffer") -> int:
    """Count bytes other than 0 and 1, which no BOOL tensor may hold."""
    return int(np.count_nonzero(words_of(data, 1) > 1))
