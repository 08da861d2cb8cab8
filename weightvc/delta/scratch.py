"""Scratch arrays of one chunk that each thread allocates once."""

import threading

import numpy as np
from numpy.typing import NDArray

from weightvc.delta.container import CHUNK
from weightvc.delta.planes import Words


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.named: dict[str, Words] = {}
        self.indices = np.empty(0, np.intp)


_buffers = _Buffers()


def words(name: str, like: Words) -> Words:
    """Return this thread's array ``name`` with dtype and size of ``like``; what it holds is whatever was left there."""
    held = _buffers.named.get(name)
    if held is None:
        held = _buffers.named[name] = np.empty(CHUNK, np.uint8)
    return held[: like.nbytes].view(like.dtype)


def indices(size: int) -> NDArray[np.intp]:
    """Return this thread's array of up to a chunk's indices; what it holds is whatever was left there."""
    if _buffers.indices.size < size:
        _buffers.indices = np.empty(size, np.intp)
    return _buffers.indices[:size]
