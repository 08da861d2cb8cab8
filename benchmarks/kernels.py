"""How far results move between processors: folds of one block's matrices under other instruction sets, compared.

Run:
    python benchmarks/kernels.py           # eight tasks, matrices of width 768: minutes
    python benchmarks/kernels.py --quick

Each fold runs in a process of its own, whose MKL is told which instructions it may use (``MKL_ENABLE_INSTRUCTIONS``) or
to pick kernels that are the same everywhere (``MKL_CBWR``). Prints, against the fold with what the processor has, how
far the accumulated sum moved and how many weights differ once the merge is rounded to float32 and to bfloat16.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import dense
import torch

from weightvc.merge import linalg
from weightvc.merge.table import create

KERNELS = {
    "run again": {},
    "one worker": {"WVC_BENCH_JOBS": "1"},
    "AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "compatible": {"MKL_CBWR": "COMPATIBLE"},
}
RULES = {"float64": {"precision": "float64"}, "mixed": {"precision": "mixed"}}


def _fold(width: int, count: int, out: Path) -> None:
    """Write the merge of each rule: base, sums and factor."""
    base, tasks = dense.models(width, count)
    jobs = int(os.environ.get("WVC_BENCH_JOBS", "2"))
    found = {rule: dense.fold(create("opcm-s", params), base, tasks, jobs) for rule, params in RULES.items()}
    torch.save({"base": base, "found": found}, out)


def _run(env: dict[str, str], quick: bool, out: Path) -> dict[str, object]:
    command = [sys.executable, __file__, "--out", str(out), *["--quick"] * quick]
    subprocess.run(command, env={**os.environ, **env}, check=True)
    return torch.load(out)


def main() -> None:
    """Print a line for each rule and each set of kernels."""
    parser = argparse.ArgumentParser(description="Compare folds under other instruction sets.")
    parser.add_argument("--quick", action="store_true", help="take matrices of width 192")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        _fold(192 if options.quick else 768, 8, options.out)
        return
    with tempfile.TemporaryDirectory() as work:
        plain = _run({}, options.quick, Path(work) / "plain")
        print(f"{'opcm-s':<10}{'kernels':<14}{'apart':>10}{'float32':>12}{'bfloat16':>12}   of weights that differ")
        for kernels, env in KERNELS.items():
            other = _run(env, options.quick, Path(work) / "other")
            for rule in RULES:
                _compare(rule, kernels, plain, other)


def _compare(rule: str, kernels: str, plain: dict[str, object], other: dict[str, object]) -> None:
    (sums, factor), (moved, second), base = plain["found"][rule], other["found"][rule], plain["base"]
    apart = max(float((moved[name] - sums[name]).norm() / sums[name].norm()) for name in sums)
    counts = []
    for dtype in (torch.float32, torch.bfloat16):
        models = [
            {n: base[n].double().add(s[n], alpha=f).to(dtype) for n in s} for s, f in ((sums, factor), (moved, second))
        ]
        counts.append(sum(int((models[0][name] != models[1][name]).sum()) for name in base))
    total = sum(tensor.numel() for tensor in base.values())
    print(f"{rule:<10}{kernels:<14}{apart:>10.1e}{counts[0]:>12,}{counts[1]:>12,}   {total:,}", flush=True)


if __name__ == "__main__":
    linalg.pin_thread()
    main()
