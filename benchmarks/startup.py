"""Measure what ``wvc --help`` costs to start, against importing click alone.

Run:
    python benchmarks/startup.py

Both run fifteen times, in turn; the medians of their CPU time (user and system) are compared. It exits 1 when
``wvc --help`` takes more than 2.5 times as much.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 15
LIMIT = 2.5


def cpu_seconds(command: list[str]) -> float:
    """Run ``command`` without output and return its CPU time in seconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print both medians and their ratio."""
    script = Path(sys.executable).with_name("wvc")
    wvc = [str(script)] if script.exists() else [sys.executable, "-m", "weightvc"]
    commands = ([sys.executable, "-c", "import click"], [*wvc, "--help"])
    for command in commands:  # once unmeasured, so that all bytecode is compiled
        cpu_seconds(command)
    times = [[cpu_seconds(command) for command in commands] for _ in range(RUNS)]
    click, help_ = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = help_ / click
    print(f"import click {click * 1000:.0f} ms, wvc --help {help_ * 1000:.0f} ms: {ratio:.2f} times (limit {LIMIT})")
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()
