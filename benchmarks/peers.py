"""What other coders make of the same models: their sizes in bytes, and the times of the ``zstd`` command.

zipnn and blosc2 are optional (``pip install '.[bench]'``), and so is the command; a coder that is not installed has
no size, which the table says.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from entropy import difference, words
from pairs import Item, Pair

CHUNK = 512 * 1024
_ZIPNN = """
import sys, zipnn
data = bytearray(open(sys.argv[1], "rb").read())
data += bytes(-len(data) % 8)
print(len(zipnn.ZipNN(input_format="byte", bytearray_dtype=sys.argv[2], threads=1).compress(data)))
"""
ZIPNN = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def missing() -> dict[str, str]:
    """Return how to get each peer that is not installed, by its name."""
    absent = {name: "pip install '.[bench]'" for name in ("zipnn", "blosc2") if importlib.util.find_spec(name) is None}
    return absent if shutil.which("zstd") else absent | {"zstd": "install the zstd command"}


class _Zstd(threading.local):
    def __init__(self) -> None:
        self.level_3 = zstandard.ZstdCompressor(level=3)


_zstd = _Zstd()


def xor_bytes(item: Item) -> int:
    """XOR with the base, split into byte planes, each by zstd -3 or as it is; five bytes a plane say how."""
    total = 0
    for target, base in words(item, elements=CHUNK // item.spec.itemsize):
        mixed = target if base is None else target ^ base
        for plane in np.ascontiguousarray(mixed).view(np.uint8).reshape(mixed.size, -1).T:
            total += 5 + min(plane.size, len(_zstd.level_3.compress(np.ascontiguousarray(plane).data)))
    return total


def blosc_bytes(item: Item) -> int:
    """Integer difference from the base, through blosc2's byte shuffle and zstd at level 1."""
    import blosc2  # noqa: PLC0415 -- optional

    settings = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    parts = words(item, elements=CHUNK // item.spec.itemsize)
    return sum(len(blosc2.compress2(difference(*both), typesize=item.spec.itemsize, **settings)) for both in parts)


def zipnn_bytes(pair: Pair) -> int | None:
    """Return what zipnn makes of the whole file, told its dtype; ``None`` when it breaks down.

    It has a process of its own, and its input is filled up to whole words: on some other lengths zipnn 0.5.4 writes
    where it must not, and the process dies.
    """
    command = [sys.executable, "-c", _ZIPNN, str(pair.target), ZIPNN[pair.dtype]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode else int(done.stdout.split()[-1])


def zstd_bytes(pair: Pair) -> int:
    """Return what ``zstd -3`` makes of the whole file."""
    command = ["zstd", "-3", "-T1", "-q", "-c", str(pair.target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return sum(map(len, iter(lambda: process.stdout.read(1 << 20), b"")))


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall and CPU time (user and system, all threads) of one process's work."""

    wall: float
    cpu: float


def timed(command: Sequence[str]) -> Seconds:
    """Run a command and return its times.

    Raises:
        RuntimeError: it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(list(command), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}")
    return Seconds(wall, used.ru_utime + used.ru_stime)


def zstd(source: Path, out: Path, *options: str) -> Seconds:
    """Time the ``zstd`` command from file to file."""
    return timed(["zstd", "-q", "-f", *options, str(source), "-o", str(out)])
