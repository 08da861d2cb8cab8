"""The exact k-th largest magnitude of a stream, in two passes over it and memory that does not depend on its length.

Magnitudes are compared as float32, whose bit patterns are in the order of their values: a histogram of the upper 15 of
31 bits says in which bucket the k-th one is, a histogram of the lower 16 bits within that bucket which one it is.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HIGH, LOW = 2**15, 2**16


def keys(vector: Tensor) -> Tensor:
    """Return the bit patterns of the magnitudes, rounded to float32, as int32 of the vector's shape."""
    return vector.float().view(torch.int32).bitwise_and_(0x7FFFFFFF)


def high(vector: Tensor) -> NDArray[np.int64]:
    """Return how many magnitudes are in each bucket."""
    return np.bincount(_halves(vector)[:, 1], minlength=HIGH)


def low(vector: Tensor, bucket: int) -> NDArray[np.int64]:
    """Return how many magnitudes of one bucket have each lower half."""
    halves = _halves(vector)
    return np.bincount(halves[:, 0][halves[:, 1] == bucket], minlength=LOW)


def _halves(vector: Tensor) -> NDArray[np.uint16]:
    """Return the lower and the upper 16 bits of each key."""
    found: NDArray[np.uint16] = keys(vector).reshape(-1).cpu().numpy().view("<u2").reshape(-1, 2)
    return found


def bucket(counts: NDArray[np.int64], k: int) -> tuple[int, int]:
    """Return where in ascending counts the ``k``-th largest item is, and which largest it is of those there.

    Args:
        counts: How many items have each key.
        k: From 1; where there are fewer items it is 0, as if the rest were zeros, and the second number is ``k``.
    """
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, k))
    if place == len(counts):
        return 0, k
    return len(counts) - 1 - place, k - (int(above[place - 1]) if place else 0)


def keeps(vector: Tensor, threshold: int) -> Tensor:
    """Tell which elements have a magnitude of at least the one whose bit pattern is ``threshold``."""
    return keys(vector) >= threshold
