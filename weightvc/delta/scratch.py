"""Scratch arrays of one chunk that each thread allocates once."""

import threading

import numpy as np

from weightvc.delta.container import CHUNK
from weightvc.delta.words import Words


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.named: dict[str, Words] = {}


_buffers = _Buffers()


def words(name: str, like: Words) -> Words:
    """Return this thread's array ``name`` with dtype and size of ``like``; what it holds is whatever was left there."""
    held = _buffers.named.get(name)
    if held is None:
        held = _buffers.named[name] = np.empty(CHUNK, np.uint8)
    return held[: like.nbytes].view(like.dtype)
