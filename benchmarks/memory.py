"""Measure that memory is bounded by the largest tensors, not by the model or the number of tasks.

Run:
    python benchmarks/memory.py                  # 6 GiB of 7B-like shapes: needs 45 GB of disk, some 20 minutes
    python benchmarks/memory.py --size 0.3       # the same steps on a small model
    python benchmarks/memory.py --opcm           # OPCM on two layers of those shapes instead

The first part makes a sharded bfloat16 model and eight tasks of it, one on disk at a time, and prints the peak private
memory of ``wvc add`` and of ``wvc checkout --method task_arithmetic`` with 2, 4 and 8 tasks. It exits 1 when a peak is
above 1.5 GiB or when the checkouts differ by more than 5 %. The second part checks out two tasks with ``opcm-s`` and
``opcm`` and one and two workers; it exits 1 when a peak reaches eight float64 copies of the largest matrix a worker.
Python and torch themselves are in every peak, so that limit is for the full size: small matrices cannot meet it.

All is made under ``--work`` (a new temporary folder unless given) and removed in the end.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bigmodel import Generator, Shapes, fitting
from sampling import Usage, watch

LIMIT = 1536 * 2**20
"""Peak private bytes allowed in the first part."""
SPREAD = 0.05
"""How far the checkouts' peaks may lie apart, relative to the smallest."""
COPIES = 8
"""float64 copies of the largest matrix allowed to each worker of OPCM."""
COUNTS = (2, 4, 8)

ENV = {
    "GIT_AUTHOR_NAME": "Benchmark",
    "GIT_AUTHOR_EMAIL": "benchmark@example.org",
    "GIT_COMMITTER_NAME": "Benchmark",
    "GIT_COMMITTER_EMAIL": "benchmark@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "WVC_NO_PROGRESS": "1",
}


@dataclass(frozen=True, slots=True)
class Bench:
    """One repository being measured, below ``work``."""

    work: Path
    generator: Generator

    @property
    def repo(self) -> Path:
        """The repository."""
        return self.work / "repo"

    def wvc(self, step: str, *args: str) -> Usage:
        """Run ``wvc ARGS``, print a line of the table and return what it used."""
        usage = watch([sys.executable, "-m", "weightvc", *args], ENV)
        print(f"{step:<34}{usage.peak / 2**20:>12.0f}{usage.seconds:>10.1f}", flush=True)
        return usage

    @contextmanager
    def model(self, task: int) -> Iterator[str]:
        """Yield the path of a generated model directory, which is gone afterwards."""
        directory = self.work / f"model-{task}"
        try:
            yield str(self.generator.write(directory, task))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def init(self) -> Usage:
        """Make the repository."""
        print(f"{self.generator.shapes}, {self.generator.shapes.nbytes / 2**30:.2f} GiB in bfloat16")
        print(f"{'step':<34}{'peak MiB':>12}{'seconds':>10}")
        with self.model(0) as base:
            return self.wvc("init", "init", str(self.repo), "--base", base)

    def add(self, task: int, *args: str) -> Usage:
        """Add one task and commit it."""
        with self.model(task) as path:
            usage = self.wvc(f"add task {task}", "-C", str(self.repo), "add", path, "--task", f"t{task}", *args)
        watch([sys.executable, "-m", "weightvc", "-C", str(self.repo), "commit", "-m", f"Add t{task}"], ENV)
        return usage

    def checkout(self, count: int, method: str, *args: str) -> Usage:
        """Check out the first ``count`` tasks merged and remove the result."""
        out, names = self.work / "merged", ",".join(f"t{i + 1}" for i in range(count))
        step = " ".join((f"{method} of {count} tasks", *args))
        common = ("-C", str(self.repo), "checkout", "--tasks", names, "--method", method, "-o", str(out), "--force")
        try:
            return self.wvc(step, *common, *args)
        finally:
            shutil.rmtree(out, ignore_errors=True)


def measure_tasks(bench: Bench, jobs: list[str]) -> list[str]:
    """Measure adds and plain checkouts, and return what went wrong."""
    usages = {"init": bench.init()}
    checkouts = []
    for task in range(1, max(COUNTS) + 1):
        usages[f"add task {task}"] = bench.add(task, *jobs)
        if task in COUNTS:
            checkouts.append(bench.checkout(task, "task_arithmetic", *jobs))
            usages[f"checkout of {task} tasks"] = checkouts[-1]
    peaks = [usage.peak for usage in checkouts]
    spread = max(peaks) / min(peaks) - 1
    print(f"highest peak {max(u.peak for u in usages.values()) / 2**20:.0f} MiB (limit {LIMIT / 2**20:.0f})")
    print(f"checkouts lie {spread:.1%} apart (limit {SPREAD:.0%})")
    wrong = [f"{step}: {u.peak / 2**20:.0f} MiB of private memory" for step, u in usages.items() if u.peak > LIMIT]
    return wrong + ([f"checkouts lie {spread:.1%} apart"] if spread > SPREAD else [])


def measure_opcm(bench: Bench) -> list[str]:
    """Measure both OPCM rules, and return what went wrong."""
    bench.init()
    bench.add(1)
    bench.add(2)
    copy = 8 * bench.generator.shapes.largest_matrix
    wrong = []
    for method in ("opcm-s", "opcm"):
        for workers in (1, 2):
            usage = bench.checkout(2, method, "--jobs", str(workers))
            copies = usage.peak / copy / workers
            print(f"  {copies:.1f} float64 copies of the largest matrix a worker (limit {COPIES})", flush=True)
            if copies >= COPIES:
                wrong.append(f"{method} --jobs {workers}: {copies:.1f} float64 copies a worker")
    return wrong


def main() -> None:
    """Measure one part and exit 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description="Measure the peak private memory of wvc.")
    parser.add_argument("--size", type=float, default=6.0, metavar="GIB", help="size of the model (default 6)")
    parser.add_argument("--work", type=Path, help="make everything below this folder")
    parser.add_argument("--jobs", help="workers of add and checkout; wvc's own default unless given")
    parser.add_argument("--opcm", action="store_true", help="measure OPCM on two layers instead")
    options = parser.parse_args()
    shapes = fitting(int(options.size * 2**30))
    if options.opcm:
        shapes = Shapes(2, shapes.hidden, shapes.mlp, 0)
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="memory-", dir=options.work) as work:
        bench = Bench(Path(work), Generator(shapes))
        wrong = (
            measure_opcm(bench) if options.opcm else measure_tasks(bench, ["--jobs", options.jobs] * bool(options.jobs))
        )
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
