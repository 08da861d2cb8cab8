"""Throughput and memory of encoding and decoding a whole model, beside the ``zstd`` command.

Throughput is from file to file in a tmpfs, everything in turn within each round; medians over the rounds are compared.
The weightvc side runs in a process of its own and is timed from after Python's imports, wall and CPU of all threads;
the ``zstd`` side is timed from its start to its end. The command reads, works and writes on three threads even with
``-T1``, so it is run on a single thread too: wall times of that, and CPU times, are compared besides. Memory is
sampled with the files on disk, since mapped pages of a tmpfs count as private memory.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import peers
from bars import Bar
from pairs import Pair
from peers import Seconds
from sampling import watch

SHM = Path("/dev/shm")
EXTRA = 64 * 2**20
"""Private bytes allowed beyond what the imports take."""
BUFFERS = 8 * 512 * 1024
"""As much again for each thread."""
ALONE = ("--single-thread", "--no-asyncio")
"""Options of ``zstd`` to read and write on the thread that works."""
REPEATS = 4
"""How often memory is sampled over the same work: it takes but some tenths of a second."""

Step = Callable[[], Seconds]


def tmpfs() -> str | None:
    """Return a folder of a tmpfs, if there is a writable one."""
    return str(SHM) if SHM.is_dir() and os.access(SHM, os.W_OK) else None


def _command(what: str, pair: Pair, folder: Path, threads: int, *options: str) -> list[str]:
    assert pair.base is not None
    script = str(Path(__file__).with_name("modelcodec.py"))
    files = map(str, (pair.target, pair.base, folder))
    return [sys.executable, script, what, *files, "--threads", str(threads), *options]


def _ours(what: str, pair: Pair, folder: Path, threads: int, level: str, *options: str) -> Seconds:
    """Time one run of ``modelcodec.py``."""
    if what == "encode":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    command = _command(what, pair, folder, threads, "--level", level, *options)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Seconds(**json.loads(done.stdout))


def _steps(pair: Pair, work: Path, level: str) -> dict[str, Step]:
    ours, packed, back = work / "objects", work / "packed.zst", work / "back"
    steps: dict[str, Step] = {
        "encode, 1 thread": partial(_ours, "encode", pair, ours, 1, level),
        "zstd -3 -T1": partial(peers.zstd, pair.target, packed, "-3", "-T1"),
        "zstd -3, one thread": partial(peers.zstd, pair.target, packed, "-3", *ALONE),
        "encode, 2 threads": partial(_ours, "encode", pair, ours, 2, level),
        "zstd -3 -T2": partial(peers.zstd, pair.target, packed, "-3", "-T2"),
        "decode, 1 thread": partial(_ours, "decode", pair, ours, 1, level),
        "zstd -d": partial(peers.zstd, packed, back, "-d"),
        "zstd -d, one thread": partial(peers.zstd, packed, back, "-d", *ALONE),
        "decode, 2 threads": partial(_ours, "decode", pair, ours, 2, level),
    }
    for threads in (1, 2):
        for what in ("encode", "decode"):
            steps[f"{what}, {threads}, NumPy"] = partial(_ours, what, pair, ours, threads, level, "--numpy")
    return {name: step for name, step in steps.items() if "zstd" not in name or "zstd" not in peers.missing()}


def measure_speed(pair: Pair, rounds: int, level: str, *, binds: bool) -> list[Bar]:
    """Print the throughputs on one model and return their bars."""
    assert pair.base is not None
    with tempfile.TemporaryDirectory(prefix="wvc-speed-", dir=tmpfs()) as name:
        work = Path(name)
        local = replace(pair, target=work / "target.safetensors", base=work / "base.safetensors")
        shutil.copyfile(pair.target, work / "target.safetensors")
        shutil.copyfile(pair.base, work / "base.safetensors")
        steps = _steps(local, work, level)
        times = [{what: step() for what, step in steps.items()} for _ in range(rounds)]
        nbytes = pair.target.stat().st_size
    wall = {what: statistics.median(one[what].wall for one in times) for what in steps}
    cpu = {what: statistics.median(one[what].cpu for one in times) for what in steps}
    print(f"\n{pair.name}, level {level}, {nbytes / 1e6:.1f} MB, medians of {rounds}")
    print(f"{'':<20}{'wall s':>9}{'MB/s':>8}{'CPU s':>9}{'MB/s':>8}{'wall from':>11}{'to':>7}")
    for what in steps:
        rates = f"{wall[what]:>9.3f}{nbytes / wall[what] / 1e6:>8.0f}{cpu[what]:>9.3f}{nbytes / cpu[what] / 1e6:>8.0f}"
        all_ = [one[what].wall for one in times]
        print(f"{what:<20}{rates}{min(all_):>11.3f}{max(all_):>7.3f}", flush=True)
    return _bars(pair.name, wall, cpu, binds=binds)


def _bars(name: str, wall: dict[str, float], cpu: dict[str, float], *, binds: bool) -> list[Bar]:
    """Return the bars on wall time, and beside them the ratios of CPU time and to a single thread of ``zstd``."""

    def gain(times: dict[str, float], one: str, other: str) -> float | None:
        return times[other] / times[one] if one in times and other in times else None

    ours, theirs = gain(wall, "encode, 2 threads", "encode, 1 thread"), gain(wall, "zstd -3 -T2", "zstd -3 -T1")
    scaling = ours / theirs if ours and theirs else None
    found = []
    for what, peer, limit in (("encode, 1 thread", "zstd -3 -T1", 1.3), ("decode, 1 thread", "zstd -d", 0.75)):
        label = f"{name}: {what} / {peer}"
        found.append(Bar(f"{label}, wall", gain(wall, what, peer), limit, most=False, binds=binds))
        found.append(Bar(f"{label}, CPU", gain(cpu, what, peer), limit, most=False, binds=False))
        alone = f"{peer.removesuffix(' -T1')}, one thread"
        found.append(Bar(f"{name}: {what} / {alone}", gain(wall, what, alone), limit, most=False, binds=False))
    both = gain(wall, "decode, 2 threads", "zstd -d")
    found.append(Bar(f"{name}: decode, 2 threads / zstd -d, wall", both, 0.75, most=False, binds=False))
    return [*found, Bar(f"{name}: gain by a second thread / that of zstd", scaling, 0.95, most=False, binds=binds)]


def measure_memory(pair: Pair, level: str, scratch: Path) -> list[Bar]:
    """Print the private memory that encoding and decoding take beyond the imports, and return the bars in MiB."""
    with tempfile.TemporaryDirectory(prefix=".memory-", dir=scratch) as name:
        folder, found = Path(name), []
        idle = watch(_command("idle", pair, folder, 1, "--repeat", "4")).peak
        print(
            f"\n{pair.name}, level {level}: the imports take {idle / 2**20:.0f} MiB of private memory, and beyond that:"
        )
        for threads in (1, 2):
            for what in ("encode", "decode"):
                options = ("--level", level, "--repeat", str(REPEATS))
                extra = watch(_command(what, pair, folder, threads, *options)).peak - idle
                limit = (EXTRA + threads * BUFFERS) / 2**20
                print(f"{what}, threads: {threads}{extra / 2**20:>10.1f} MiB", flush=True)
                found.append(Bar(f"{pair.name}: MiB to {what}, threads: {threads}", extra / 2**20, limit))
    return found
