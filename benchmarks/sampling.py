"""Run a command and watch the private memory of it and its children.

Private memory is what a process needs of its own: anonymous pages, shared memory without a file, and what was swapped
out. Pages of mapped files are not counted, since the kernel can drop them and read them again. They are also why
``Private_Dirty`` is no measure: pages of a file that was written a moment ago are in there when somebody maps it.
"""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two samples."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one command used: wall seconds, peak private bytes over all its processes, and its standard output."""

    seconds: float
    peak: int
    stdout: str


def private_bytes(pid: int) -> int:
    """Return the private memory of one process in bytes, from its ``status`` (proc(5)); 0 when it has ended.

    The kernel keeps these counters; ``smaps_rollup`` says the same but walks all pages, which costs the process dear.
    """
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = {key: rest for key, _, rest in (line.partition(":") for line in lines)}
        return 1024 * sum(int(fields.get(key, "0").split()[0]) for key in ("RssAnon", "RssShmem", "VmSwap"))
    return 0


def family(pid: int) -> list[int]:
    """Return ``pid`` and all its living descendants that run a program of their own.

    Between fork and exec a child shares its parent's pages, which its counters would show a second time.
    """
    found = [pid]
    for parent in found:  # grows as children are found
        with suppress(OSError):
            own = Path(f"/proc/{parent}/cmdline").read_bytes()
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = map(int, (task / "children").read_text().split())
                found += [child for child in children if Path(f"/proc/{child}/cmdline").read_bytes() != own]
    return found


def watch(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Usage:
    """Run ``command`` to its end, sampling the private memory of its whole process family.

    Raises:
        RuntimeError: it exits with another status than 0; its standard error is in the message.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        list(command),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, ended = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(INTERVAL):
            peak = max(peak, sum(map(private_bytes, family(process.pid))))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        stdout, stderr = process.communicate()
    finally:
        ended.set()
        sampler.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}:\n{stderr[-4000:]}")
    return Usage(time.perf_counter() - started, peak, stdout)
