"""``wvc add`` of an unchanged checkpoint, beside ``cp -r`` of it: what it costs to find that nothing is new."""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from bars import Bar
from bigmodel import Generator, fitting
from memory import ENV
from sampling import watch

ROUNDS = 3


def _warm(directory: Path) -> None:
    """Read every file once, so that all comes from the page cache."""
    for file in directory.iterdir():
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 22):
                pass


def measure_add(gib: float, scratch: Path) -> list[Bar]:
    """Print the times of adding and of copying a generated sharded checkpoint, and return the bar."""
    with tempfile.TemporaryDirectory(prefix="add-", dir=scratch) as name:
        work = Path(name)
        generator = Generator(fitting(int(gib * 2**30)))
        model, repo, copy = str(generator.write(work / "model", 0)), str(work / "repo"), work / "copy"
        wvc = [sys.executable, "-m", "weightvc"]
        watch([*wvc, "init", repo, "--base", model], ENV)
        adds, copies = [], []
        for number in range(ROUNDS):
            _warm(work / "model")
            copies.append(watch(["cp", "-r", model, str(copy)]).seconds)
            shutil.rmtree(copy)
            _warm(work / "model")
            adds.append(watch([*wvc, "-C", repo, "add", model, "--task", f"t{number}"], ENV).seconds)
    nbytes, add, copied = generator.shapes.nbytes, statistics.median(adds), statistics.median(copies)
    print(f"\n{nbytes / 2**30:.2f} GiB in shards, unchanged, medians of {ROUNDS}, wall time")
    print(f"wvc add {add:.2f} s, {nbytes / add / 1e6:.0f} MB/s; cp -r {copied:.2f} s, {nbytes / copied / 1e6:.0f} MB/s")
    return [Bar(f"wvc add of {nbytes / 2**30:.1f} GiB, unchanged / cp -r", copied / add, 0.5, most=False)]
