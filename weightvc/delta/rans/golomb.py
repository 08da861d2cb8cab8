"""Exponential Golomb codes: small non-negative integers in few bits, without a table.

A value's lowest k bits are stored as they are, and one more than the rest in Elias's gamma code ("Universal codeword
sets and representations of the integers", 1975). ``docs/format/rans.md`` specifies each byte.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from weightvc.util.errors import Corrupt

_HEAD = struct.Struct("<BH")
_MOST = 6
_WIDTH = 16
LARGEST = (1 << _WIDTH - 1) - 2


def pack(values: NDArray[np.int64]) -> bytes:
    """Encode 1-d ``values``, each up to ``LARGEST``; their codes must fit 2**19 bits."""
    extra = [_extra(values, k) for k in range(_MOST + 1)]
    costs = [2 * int(bits.sum()) - k * values.size for k, bits in enumerate(extra)]
    k = costs.index(min(costs))
    unary = np.zeros(int((extra[k] - k + 1).sum()), np.bool_)
    unary[np.cumsum(extra[k] - k + 1) - 1] = True
    ones = np.packbits(unary, bitorder="little")
    columns = np.arange(_WIDTH)
    bits = (values + (1 << k))[:, None] >> columns & 1
    rests = np.packbits(bits[columns < extra[k][:, None]], bitorder="little")
    return _HEAD.pack(k, ones.size) + ones.tobytes() + rests.tobytes()


def _extra(values: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return how many bits each value has below its leading one, once 2**k is added."""
    return np.frexp(values + (1 << k))[1].astype(np.int64) - 1


def unpack(body: memoryview, count: int) -> tuple[NDArray[np.int64], memoryview]:
    """Decode ``count`` values from the front of ``body``; return them, and what follows them.

    Raises:
        Corrupt: ``body`` begins with no such values.
    """
    if len(body) < _HEAD.size:
        raise Corrupt("Golomb codes are cut short")
    k, size = _HEAD.unpack_from(body)
    body = body[_HEAD.size :]
    if k > _MOST or size > len(body):
        raise Corrupt("Golomb codes are cut short")
    ends = np.unpackbits(np.frombuffer(body[:size], np.uint8), bitorder="little").nonzero()[0]
    extra = np.diff(ends, prepend=-1) - 1 + k
    if extra.size != count or extra.max() >= _WIDTH:
        raise Corrupt(f"{extra.size} Golomb codes where {count} of less than {_WIDTH} bits were expected")
    bits = int(extra.sum())
    body = body[size:]
    size = (bits + 7) // 8
    if size > len(body):
        raise Corrupt("Golomb codes are cut short")
    columns = np.arange(_WIDTH)
    rests = np.zeros((count, _WIDTH), np.int64)
    rests[columns < extra[:, None]] = np.unpackbits(np.frombuffer(body[:size], np.uint8), count=bits, bitorder="little")
    return (rests << columns).sum(axis=1) + (1 << extra) - (1 << k), body[size:]
