"""Measure merges of LoRA adapters: OPCM in the bases of their factors, against the published loop and dense fine-tunes.

Run:
    python benchmarks/lora_merge.py           # two matrices, then whole checkouts; minutes
    python benchmarks/lora_merge.py --quick   # smaller ones; no bar of time binds then
    python benchmarks/lora_merge.py --check   # exit 1 if a bar is missed

The published loop gets the models that the adapters stand for, in float32 and with all threads; weightvc the adapters,
with a worker of one thread for each core, as in a checkout: a time is that of several matrices at once, over their
number. Both end with the merged matrix in float32. As several threads lose much on a busy machine, CPU time is
that of the loop on one thread, too. Errors are those of the merged task vector, relative to the same rule in float64 by
full decompositions, with directions that the sum does not have left alone.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import published
import torch
from bars import Bar
from safetensors.torch import save_file
from sampling import Usage, watch
from torch import Tensor

from weightvc.merge import factored, linalg
from weightvc.merge.method import Fold
from weightvc.merge.table import create
from weightvc.util import parallel

ALPHA = 0.5
RANK, TASKS = 16, 5
SCALE = 2.0
GAIN = 100.0
"""How many times faster than the published loop the fold and the merged matrix have to be."""


class Shape(NamedTuple):
    """A matrix to merge, and whether the bar of time is about it."""

    rows: int
    columns: int
    binds: bool = False


class Times(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float

    def over(self, count: int) -> "Times":
        """Return the seconds of one of ``count``."""
        return Times(self.wall / count, self.cpu / count)


LOOP, ALONE = "published", "published, one thread"
SHAPES = (Shape(1024, 1024, binds=True), Shape(3072, 768))
WORKERS = parallel.cores()
"""Matrices that are merged at a time, each by one thread, as in a checkout; times are those of one matrix."""
SPAN = 128
"""Rows of a span; a divisor of the shapes."""
ERRORS = {"opcm": 1e-6, "opcm-s": 1e-12}
Adapter = tuple[Tensor, Tensor]


def adapters(shape: Shape, count: int, seed: int = 0) -> list[Adapter]:
    """Return factors B (rows x rank) and A (rank x columns), float32; half of what they do is common to all."""
    random = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=random)
    common = normal(shape.rows, RANK), normal(RANK, shape.columns)
    pairs = ((normal(shape.rows, RANK), normal(RANK, shape.columns)) for _ in range(count))
    return [(0.02 * (b + common[0]), 0.02 * (a + common[1])) for b, a in pairs]


def merged(method: Fold, base: Tensor, given: Sequence[Adapter]) -> tuple[Tensor, factored.Product, float]:
    """Return the merged matrix, in the dtype of ``base``, and the sum and factor that it comes from."""
    found = factored.fold(method, [(b.double().mul_(SCALE), a.double()) for b, a in given])
    factor = method.scale([math.sqrt(square) for square in found.squares], math.sqrt(found.merged))
    out = torch.empty_like(base)
    moved, sums = (torch.empty(SPAN, base.shape[1], dtype=torch.float64) for _ in range(2))
    for rows in range(0, len(base), SPAN):
        part = slice(rows, rows + SPAN)
        torch.mm(found.left[part], found.right, out=moved)
        out[part] = sums.copy_(base[part]).add_(moved, alpha=factor)
    return out, found, factor


def clean_spanned(held: Tensor, delta: Tensor, alpha: float) -> Tensor:
    """Return what :func:`published.clean` leaves of ``delta``, and all of it where ``held`` has no extent."""
    U, s, Vh = torch.linalg.svd(held, full_matrices=True)
    turned = U.mT @ delta @ Vh.mT
    r, k = linalg.split_rank(s.tolist(), alpha)
    turned.diagonal()[:k].zero_()
    turned[:r, :r] = 0
    return U @ turned @ Vh


def _timed(step: Callable[[], object], rounds: int) -> list[Times]:
    times = []
    for _ in range(rounds):
        started, used = time.perf_counter(), time.process_time()
        step()
        times.append(Times(time.perf_counter() - started, time.process_time() - used))
    return times


def _by_workers(step: Callable[[], object]) -> None:
    """Do as much at once as a checkout does: a matrix a worker, each of one thread."""
    parallel.run(lambda _: step(), range(WORKERS), WORKERS, linalg.pin_thread)


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))


def _race(loop: Callable[[], object], ours: Mapping[str, Callable[[], object]]) -> dict[str, Times]:
    """Return the medians of alternating rounds: the loop's with all threads, and with one, as all others have."""
    times: dict[str, list[Times]] = {name: [] for name in (LOOP, ALONE, *ours)}
    for _ in range(3):
        times[LOOP] += _timed(loop, 1)
        with linalg.single_thread():
            times[ALONE] += _timed(loop, 1)
            for name, step in ours.items():
                times[name] += [each.over(WORKERS) for each in _timed(partial(_by_workers, step), 7)]
    return {
        name: Times(*(statistics.median(part) for part in zip(*found, strict=True))) for name, found in times.items()
    }


def of_matrix(shape: Shape, *, quick: bool) -> list[Bar]:
    """Print the times and errors of one matrix, and return their bars."""
    given = adapters(shape, TASKS)
    base = 0.02 * torch.randn(shape.rows, shape.columns, generator=torch.Generator().manual_seed(1))
    tasks = [{"w": base + SCALE * (b @ a)} for b, a in given]
    exact = [{"w": SCALE * (b.double() @ a.double())} for b, a in given]
    zero = {"w": torch.zeros_like(exact[0]["w"])}
    how = {"opcm": clean_spanned, "opcm-s": published.clean_stable}
    oracles = {name: published.merge(zero, exact, ALPHA, clean)["w"] for name, clean in how.items()}
    loop = partial(published.merge, {"w": base}, tasks, ALPHA)
    ours = {name: partial(merged, create(name, {"alpha": ALPHA, "norm": "mean"}), base, given) for name in ERRORS}
    away = _apart(loop()["w"].double() - base, oracles["opcm"])
    times = _race(loop, ours)
    label = f"{shape.rows} x {shape.columns}"
    print(f"{label:<14}{LOOP:<12}{times[LOOP].wall * 1e3:>10.1f} ms{'':>20}   {away:.1e}", flush=True)
    bars = []
    for name, most in ERRORS.items():
        with linalg.single_thread():
            _, found, factor = ours[name]()
        error = _apart(factor * (found.left @ found.right), oracles[name])
        gains = times[LOOP].wall / times[name].wall, times[ALONE].cpu / times[name].cpu
        gained = "".join(f"{gain:>9.0f}x" for gain in gains)
        print(f"{'':<14}{name:<12}{times[name].wall * 1e3:>10.1f} ms{gained}   {error:.1e}", flush=True)
        for what, gain in zip(("wall", "CPU of one thread"), gains, strict=True):
            binds = shape.binds and not quick
            bars.append(Bar(f"{label}, {name}: published loop / weightvc, {what}", gain, GAIN, most=False, binds=binds))
        bars.append(Bar(f"{label}, {name}: error / {most:.0e}", error / most, 1.0))
    return bars


def _wvc(repository: Path, *args: object) -> tuple[dict[str, Any], Usage]:
    """Run a command and return its document and what it used."""
    who = {f"GIT_{role}_{part}": "b@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    used = watch([sys.executable, "-m", "weightvc", "-C", str(repository), "--json", *map(str, args)], who)
    return json.loads(used.stdout), used


def _write(directory: Path, tensors: dict[str, Tensor], *, adapter: bool = False) -> Path:
    directory.mkdir(parents=True)
    save_file(tensors, directory / ("adapter_model.safetensors" if adapter else "model.safetensors"))
    if adapter:
        settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": SCALE * RANK}
        (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


def _stored(root: Path, width: int, layers: int) -> dict[str, list[str]]:
    """Make a repository of one base and every task twice, as an adapter and as a fine-tune; return their names."""
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(1))
    names = [f"h.{layer}.fc" for layer in range(layers)]
    base = {f"{name}.weight": 0.02 * normal(width, width) for name in names}
    _wvc(root, "init", root / "repository", "--base", _write(root / "base", base))
    given = {name: adapters(Shape(width, width), TASKS, seed) for seed, name in enumerate(names)}
    tasks: dict[str, list[str]] = {"adapters": [], "fine-tunes": []}
    for task in range(TASKS):
        factors = {}
        for name in names:
            b, a = given[name][task]
            factors |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
        dense = {f"{n}.weight": base[f"{n}.weight"] + SCALE * (given[n][task][0] @ given[n][task][1]) for n in names}
        made = _write(root / f"a{task}", factors, adapter=True), _write(root / f"f{task}", dense)
        for held, source in zip(tasks.values(), made, strict=True):
            _wvc(root / "repository", "add", source, "--task", source.name)
            held.append(source.name)
    _wvc(root / "repository", "commit", "-m", "Add them")
    return tasks


def of_checkout(*, quick: bool) -> None:
    """Print what checkouts of five tasks take, as adapters and as the fine-tunes that they stand for."""
    width, layers = (256, 2) if quick else (1024, 8)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tasks = _stored(root, width, layers)
        print(
            f"\nwvc checkout of {TASKS} tasks on {layers} matrices of {width} x {width}, float32, {os.cpu_count()} CPUs"
        )
        print(f"{'tasks':<14}{'method':<12}{'seconds':>9}{'peak MiB':>10}{'scratch MiB':>13}")
        for method in ERRORS:
            for kind, names in tasks.items():
                out = root / f"{kind}-{method}"
                options = ("--tasks", ",".join(names), "--method", method, "-o", out)
                done, used = _wvc(root / "repository", "checkout", *options)
                line = f"{used.seconds:>9.1f}{used.peak / 2**20:>10.0f}{done['scratch_bytes'] / 2**20:>13.1f}"
                print(f"{kind:<14}{method:<12}{line}", flush=True)


def measure(quick: bool) -> list[Bar]:
    """Print times and errors, and return their bars."""
    shapes = (Shape(256, 256), Shape(512, 256)) if quick else SHAPES
    threads = torch.get_num_threads()
    print(f"LoRA of rank {RANK}, {TASKS} tasks; the published loop with {threads} threads, {WORKERS} workers of one;")
    print(f"load {os.getloadavg()[0]:.1f}\n{'matrix':<14}{'':<12}{'median':>13}{'wall':>10}{'CPU':>10}   error")
    bars = [bar for shape in shapes for bar in of_matrix(shape, quick=quick)]
    of_checkout(quick=quick)
    return bars


def main() -> None:
    """Measure, and print the bars."""
    parser = argparse.ArgumentParser(description="Measure merges of LoRA adapters.")
    parser.add_argument("--quick", action="store_true", help="take smaller matrices; no bar of time binds then")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar that binds is missed")
    options = parser.parse_args()
    found = measure(options.quick)
    print("\n" + "\n".join(map(str, found)))
    missed = [bar.what for bar in found if bar.binds and bar.missed]
    if options.check and missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
