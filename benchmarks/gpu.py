"""Merges on a GPU beside the same on the CPU: matrices alone, and whole checkouts from file to file.

Run:
    python benchmarks/gpu.py            # says so, and measures nothing, where torch sees no CUDA device
    python benchmarks/gpu.py --quick    # the same steps on smaller models

All times are of one run, in alternating rounds; medians are printed, after a first round that is not counted. Results
are compared with those of the CPU, which are promised to agree within the tolerance that ``docs/methods.md`` gives.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dense
import torch
from bigmodel import Generator, Shapes, fitting
from memory import ENV, Bench
from published import Model
from sampling import watch
from torch import Tensor

from weightvc.merge.table import create
from weightvc.util import parallel

ROUNDS = 3
TOLERANCE = {"opcm": 1e-6, "opcm-s": 1e-12, "opcm-s mixed": 1e-5}
"""How far a merge of five tasks on another device may be."""


def _fold(rule: dense.Rule, base: Model, tasks: list[Model], jobs: int) -> dict[str, Tensor]:
    """Return the merged task vectors, which are complete on their device."""
    sums, factor = dense.fold(create(rule.method, rule.params), base, tasks, jobs)
    found = {name: factor * tensor for name, tensor in sums.items()}
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found


def _median(step: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def matrices(device: str, width: int) -> list[str]:
    """Print the times of merging one block of a vision transformer, and return what is too far from the CPU's."""
    base, tasks = dense.models(width, dense.DEPTH)
    there = [{name: tensor.to(device) for name, tensor in model.items()} for model in (base, *tasks)]
    jobs = parallel.cores()
    print(f"\none block of width {width}, {len(tasks)} tasks, medians of {ROUNDS}")
    print(f"{'':<16}{f'CPU, {jobs} workers':>18}{device:>10}{'gain':>8}   relative difference")
    far = []
    for rule in dense.RULES:
        on_cpu, on_device = partial(_fold, rule, base, tasks, jobs), partial(_fold, rule, there[0], there[1:], jobs)
        ours, theirs = _median(on_cpu, ROUNDS), _median(on_device, ROUNDS)
        apart = dense.apart({name: t.cpu() for name, t in on_device().items()}, on_cpu())
        print(f"{rule.label:<16}{ours:>17.3f}s{theirs:>9.3f}s{ours / theirs:>7.1f}x   {apart:.1e}", flush=True)
        if apart > TOLERANCE[rule.label]:
            far.append(f"width {width}, {rule.label}: {apart:.1e} from the CPU's, at most {TOLERANCE[rule.label]:.0e}")
    return far


def checkouts(device: str, shapes: Shapes) -> list[str]:
    """Print the times of whole checkouts, and return those that a replay on the CPU does not confirm."""
    wrong = []
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        bench = Bench(Path(work), Generator(shapes))
        bench.init()
        for task in (1, 2, 3):
            bench.add(task)
        wvc = [sys.executable, "-m", "weightvc", "-C", str(bench.repo)]
        (bench.repo / ".git/wvc/config.toml").write_text("[cache]\nmax_bytes = 0\n")
        for method in ("task_arithmetic", "opcm-s"):
            for one in ("cpu", device) * ROUNDS:
                bench.checkout(3, method, "--device", one)
            out = bench.work / "kept"
            watch([*wvc, "checkout", "--method", method, "--device", device, "-o", str(out)], ENV)
            try:
                watch([*wvc, "verify", str(out), "--replay", "--device", "cpu"], ENV)
            except RuntimeError:
                wrong.append(f"{method}: a replay on the CPU is not within the tolerance")
    return wrong


def main() -> None:
    """Measure, and exit 1 if a result is too far from the CPU's."""
    parser = argparse.ArgumentParser(description="Measure merges on a GPU beside the CPU.")
    parser.add_argument("--device", default="cuda", help="a torch device (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="take smaller models")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("torch sees no CUDA device: nothing was measured")
        return
    if options.device.startswith("cuda"):
        print(f"{torch.cuda.get_device_name(options.device)}, torch {torch.__version__}")
    wrong = [each for width in ((192,) if options.quick else (768, 2048)) for each in matrices(options.device, width)]
    wrong += checkouts(options.device, fitting(2**24 if options.quick else 2**31))
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
