"""Measure what cached prefix states save: a task appended, and a late one removed, against replays from nothing.

Run:
    python benchmarks/prefix.py            # matrices of 1024 x 1024 in float32, opcm-s
    python benchmarks/prefix.py --quick    # smaller ones, for which no bar binds

Every checkout is a whole one, on one thread: decoding, folding, writing and syncing. Each round times one without the
cache and one that finds the states of the merge before the change; medians over the rounds are compared, and the files
of both must be equal. The bars are held to by processor time, which says the same on a machine that others use.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from bars import Bar
from memory import ENV
from safetensors.torch import save_file

import weightvc

MATRICES = 4
ROUNDS = 5


def repository(folder: Path, side: int, tasks: int) -> weightvc.Repository:
    """Make a repository with tasks named by their numbers: shared directions, and noise of their own."""
    random = torch.Generator().manual_seed(7)
    base = {f"layer.{at}.weight": torch.randn(side, side, generator=random) for at in range(MATRICES)}
    shared = {name: torch.randn(side, side, generator=random) for name in base}
    folder.mkdir()
    save_file(base, folder / "base.safetensors")
    os.environ.update(ENV)
    weightvc.initialize(folder / "repository", folder / "base.safetensors")
    repo = weightvc.open(folder / "repository")
    for task in range(1, tasks + 1):
        own = {name: torch.randn(side, side, generator=random) for name in base}
        tuned = {name: base[name] + 0.01 * (0.5 * shared[name] + own[name]) for name in base}
        save_file(tuned, folder / "tuned.safetensors")
        repo.add(folder / "tuned.safetensors", f"t{task}")
    repo.commit("Add tasks")
    return repo


def seconds(repo: weightvc.Repository, tasks: Sequence[str], out: Path, *, cached: bool) -> tuple[float, float]:
    """Check tasks out into ``out`` with the cache or without; return the seconds and those of the processor."""
    repo.local.joinpath("config.toml").write_text("" if cached else "cache.max_bytes = 0\n")
    began, busy = time.perf_counter(), time.process_time()
    repo.checkout(tasks, method="opcm-s", output=out, jobs=1)
    return time.perf_counter() - began, time.process_time() - busy


def compare(repo: weightvc.Repository, before: Sequence[str], after: Sequence[str]) -> float:
    """Print how long ``after`` takes with the states of ``before`` and without any; return the processor's ratio."""
    folder = repo.git.work_tree.parent
    pairs = []
    for _ in range(ROUNDS):
        cold = seconds(repo, after, folder / "cold", cached=False)  # which empties the cache, too
        seconds(repo, before, folder / "before", cached=True)
        warm = seconds(repo, after, folder / "warm", cached=True)
        pairs.append((cold, warm))
        for file in sorted(path for path in (folder / "cold").iterdir()):
            if file.read_bytes() != (folder / "warm" / file.name).read_bytes():
                sys.exit(f"{file.name} differs with the cache")
    medians = [[statistics.median(pair[side][kind] for pair in pairs) for side in (0, 1)] for kind in (0, 1)]
    for kind, (cold, warm) in zip(("wall", "processor"), medians, strict=True):
        print(f"  {kind:<10}{cold:>8.3f} s without{warm:>8.3f} s with{cold / warm:>7.2f} times")
    cold, warm = medians[1]
    return cold / warm


def measure(*, quick: bool) -> list[Bar]:
    """Print both measurements and return their bars."""
    side = 256 if quick else 1024
    who = {f"GIT_{role}_{part}": "b@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    os.environ.update(who)
    with tempfile.TemporaryDirectory() as name:
        repo = repository(Path(name) / "work", side, 10)
        tasks = [f"t{at}" for at in range(1, 11)]
        print(f"{MATRICES} matrices of {side} x {side}, float32, opcm-s; medians of {ROUNDS}")
        print("ten tasks, of which nine were merged before:")
        appended = compare(repo, tasks[:9], tasks)
        print("three of four tasks, without the third:")
        removed = compare(repo, tasks[:4], [tasks[0], tasks[1], tasks[3]])
    return [
        Bar("append a tenth task: without / with the cache", appended, 7.0, most=False, binds=not quick),
        Bar("remove task 3 of 4: without / with the cache", removed, 1.8, most=False, binds=not quick),
    ]


def main() -> None:
    """Measure, print the bars, and fail if one that binds is missed."""
    parser = argparse.ArgumentParser(description="Measure what cached prefix states save.")
    parser.add_argument("--quick", action="store_true", help="take small matrices")
    found = measure(quick=parser.parse_args().quick)
    print(*found, sep="\n")
    sys.exit(any(bar.missed and bar.binds for bar in found))


if __name__ == "__main__":
    main()
