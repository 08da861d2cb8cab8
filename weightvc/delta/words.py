"""Words: the elements of a tensor as unsigned integers."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""A 1-d array of little-endian unsigned words of 1, 2, 4 or 8 bytes."""


def words_of(data: "ReadableBuffer", itemsize: int) -> Words:
    """View bytes as words of ``itemsize`` bytes; writable if ``data`` is. Any alignment will do."""
    return np.frombuffer(memoryview(data), f"<u{itemsize}")
