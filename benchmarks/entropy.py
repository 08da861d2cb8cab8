"""Order-0 entropies of integer differences: what an ideal coder of independent bytes would need.

A tensor's words are taken as unsigned integers; the base's is subtracted, wrapping, and half of each lower byte's
range is added, so that small differences of both signs share their upper bytes. Every 128 Ki elements, each byte
place (plane) has its own distribution. The tables that a real coder must send are not counted, so no order-0 coder
of those chunks gets below; one that knows more, such as the base's exponent or a neighbour, can.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pairs import Item

ELEMENTS = 128 * 1024
BIAS = {1: 0, 2: 0x80, 4: 0x808080, 8: 0x80808080808080}
EXPONENT = {"F32": (23, 0xFF), "BF16": (7, 0xFF), "F16": (10, 0x1F)}
"""Where the exponent field begins, and its mask."""

Words = NDArray[np.unsignedinteger]


def words(item: Item, *, elements: int = ELEMENTS) -> Iterator[tuple[Words, Words | None]]:
    """Yield (target, base) words of one tensor, chunk by chunk."""
    kind = f"<u{item.spec.itemsize}"
    target = np.frombuffer(item.target, kind)
    base = None if item.base is None else np.frombuffer(item.base, kind)
    for at in range(0, target.size, elements):
        yield target[at : at + elements], None if base is None else base[at : at + elements]


def difference(target: Words, base: Words | None) -> Words:
    """Return target - base + bias, wrapping; the target itself without a base."""
    return target if base is None else target - base + target.dtype.type(BIAS[target.itemsize])


def plane_bytes(item: Item) -> float:
    """Return the bytes that the differences' planes need at their order-0 entropy."""
    return sum(_bits(d, None) for d in (difference(*both) for both in words(item))) / 8


def context_bytes(item: Item) -> float:
    """Return the same when each exponent of the base has distributions of its own; without a base, the same."""
    total = 0.0
    for target, base in words(item):
        context = None
        if base is not None and item.spec.dtype in EXPONENT:
            shift, mask = EXPONENT[item.spec.dtype]
            context = (base >> shift & mask).astype(np.intp)
        total += _bits(difference(target, base), context)
    return total / 8


def _bits(delta: Words, context: NDArray[np.intp] | None) -> float:
    """Sum, over byte planes and contexts, count times entropy."""
    planes = np.ascontiguousarray(delta).view(np.uint8).reshape(delta.size, -1)
    total = 0.0
    for plane in planes.T:
        if context is None:
            counts = np.bincount(plane, minlength=256)[None]
        else:
            counts = np.bincount(context * 256 + plane, minlength=256 * 256).reshape(256, 256)
        total += _c_log_c(counts.sum(1)) - _c_log_c(counts)
    return total


def _c_log_c(counts: NDArray[np.intp]) -> float:
    some = counts[counts > 0].astype(np.float64)
    return float((some * np.log2(some)).sum())
