"""Keeping the C heap at what is in use."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE = 2 * 2**20  # four chunks: what is made anew for each chunk stays, or every use of it would fault its pages in


def steady() -> None:
    """Have glibc give large buffers back to the system when they are freed; does nothing with another C library.

    By default it raises its own threshold with every large buffer that is freed, up to 32 MiB, and from then on keeps
    such buffers in the heap of each thread: tens of MiB a worker that nothing uses. See ``benchmarks/memory.py``.
    The setting is the process's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
