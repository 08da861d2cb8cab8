"""Byte planes: words split into planes, least significant byte first, each stored constant, raw or as a zstd frame.

Splitting lets a general byte coder see each byte's own statistics, as in blosc's shuffle (Alted, "Why Modern CPUs
Are Starving and What Can Be Done about It", CiSE 2010). zstd is RFC 8878.
"""

import math
import struct
import threading

import numpy as np
import zstandard
from numpy.typing import NDArray

from weightvc.delta import kernels
from weightvc.delta.container import CHUNK
from weightvc.delta.words import Words
from weightvc.util.errors import Corrupt

RAW, CONSTANT, ZSTD = range(3)
MAX_WINDOW = 8 * 2**20
_HEAD = struct.Struct("<BI")
_LENGTH = struct.Struct("<I")

_SAMPLE = 4096
_NARROW = 128  # so few values have at most 7 bits of entropy, whatever their shares
# c·log2(c) for each count c in a sample, in units of 2**-16 bit. Integers, so that the choice between raw and zstd
# does not hang on how a machine rounds a sum.
_C_LOG_C = np.array([0, *(round(c * math.log2(c) * 2**16) for c in range(1, _SAMPLE + 1))], np.int64)
_MOST = int(_C_LOG_C[_SAMPLE])


# Level 1, but only runs of 7 bytes count as matches, looked up in a small table. What repeats in planes is long runs
# of unchanged weights; shorter matches are chance and cost more than Huffman codes. Measured on two fine-tunes
# in fp32 and bf16 against plain level 1: 0.2 to 6 % smaller, encoding 1.2 to 2 times as fast.
_LEVEL = zstandard.ZstdCompressionParameters.from_level(
    1, min_match=7, hash_log=8, write_content_size=True, write_checksum=False
)


class _Tools(threading.local):
    """Each thread's own zstd contexts and room for the planes of one chunk."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self.planes = np.empty(CHUNK, np.uint8)


_tools = _Tools()


def pack(words: Words, bias: int = 0, start: bytes = b"") -> bytes:
    """Encode up to one chunk of words, at least one.

    Args:
        words: Serve as scratch: what they hold afterwards is undefined.
        bias: Added to every word first, wrapping.
        start: What the result begins with.
    """
    planes = _tools.planes[: words.nbytes].reshape(words.itemsize, words.size)
    parts: list[bytes | memoryview] = [start]
    for plane, (spread, cost) in zip(planes, kernels.loops.split(words, bias, planes, _C_LOG_C), strict=True):
        kind, payload = _pack_plane(plane, spread, cost)
        parts += _HEAD.pack(kind, len(payload)), payload
    return b"".join(parts)


def pack_long(array: Words) -> bytes:
    """Encode any number of words as chunks of planes, each after its length; keeps ``array`` as it is."""
    step = CHUNK // array.itemsize
    parts = [pack(array[start : start + step].copy()) for start in range(0, array.size, step)]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def check_room(body: memoryview, count: int, itemsize: int) -> None:
    """Raise :class:`Corrupt` if ``body`` is too short for :func:`unpack_long` to find that many words in it.

    A few bytes can claim gigabytes: this is asked before room for the words is set aside.
    """
    chunks = -(-count * itemsize // CHUNK)
    if len(body) < chunks * (_LENGTH.size + itemsize * (_HEAD.size + 1)):
        raise Corrupt("an array is cut short")


def unpack_long(body: memoryview, out: Words) -> int:
    """Decode what :func:`pack_long` made of ``out.size`` words into ``out`` and return how many bytes it took.

    Raises:
        Corrupt: ``body`` begins with anything else. What ``out`` then holds is undefined.
    """
    step = CHUNK // out.itemsize
    end = 0
    for start in range(0, out.size, step):
        if end + _LENGTH.size > len(body):
            raise Corrupt("an array is cut short")
        begin = end + _LENGTH.size
        end = begin + _LENGTH.unpack_from(body, end)[0]
        if end > len(body):
            raise Corrupt("an array is cut short")
        unpack(body[begin:end], out[start : start + step])
    return end


def _pack_plane(plane: NDArray[np.uint8], spread: int, cost: int) -> tuple[int, bytes | memoryview]:
    if not spread:
        return CONSTANT, plane[:1].tobytes()
    # Of over 7.85 bits of order-0 entropy a byte in a sample; trying zstd would be a waste.
    random = cost and (_MOST - cost) * 100 > 785 * _SAMPLE * 2**16
    if spread < _NARROW or not random:
        packed: bytes = _tools.compressor.compress(plane.data)
        if len(packed) < plane.size:
            return ZSTD, packed
    return RAW, plane.data


def unpack(body: memoryview, out: Words, bias: int = 0, base: Words | None = None) -> None:
    """Decode what :func:`pack` made of ``out.size`` words into ``out``.

    Args:
        body: All of it.
        out: 1-d; not the words of ``base``.
        bias: Taken off again.
        base: As many words to be added, wrapping.

    Raises:
        Corrupt: ``body`` is anything else. What ``out`` then holds is undefined.
    """
    planes = []
    end = 0
    for index in range(out.itemsize):
        start = end + _HEAD.size
        if start > len(body):
            raise Corrupt(f"plane {index} is cut short")
        kind, length = _HEAD.unpack_from(body, end)
        end = start + length
        if end > len(body):
            raise Corrupt(f"plane {index} is cut short")
        planes.append(_unpack_plane(kind, body[start:end], out.size, f"plane {index}"))
    if end != len(body):
        raise Corrupt(f"{len(body) - end} bytes follow the last plane")
    kernels.loops.merge(tuple(planes), out, -bias % (1 << 8 * out.itemsize), base)


def _unpack_plane(kind: int, payload: memoryview, size: int, where: str) -> NDArray[np.uint8]:
    if kind == ZSTD:
        payload = memoryview(_unzstd(payload, size, where))
    elif kind not in (RAW, CONSTANT):
        raise Corrupt(f"{where} has the unknown kind {kind}")
    wanted = 1 if kind == CONSTANT else size
    if len(payload) != wanted:
        raise Corrupt(f"{where} holds {len(payload)} bytes, {wanted} expected")
    return np.frombuffer(payload, np.uint8)


def _unzstd(payload: memoryview, size: int, where: str) -> bytes:
    # zstandard allocates what a frame declares, whatever max_output_size says, and its one-pass path ignores
    # max_window_size: so both are read from the frame's header first.
    try:
        declared = zstandard.get_frame_parameters(payload)
        if declared.content_size != size:
            raise Corrupt(f"{where} is a zstd frame that does not declare {size} bytes")
        if declared.window_size > MAX_WINDOW:
            raise Corrupt(f"{where} is a zstd frame with a window of {declared.window_size} bytes")
        plane: bytes = _tools.decompressor.decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"{where} is not one whole zstd frame ({error})") from None
    return plane
