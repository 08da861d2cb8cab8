"""OPCM of dense matrices: whole merges by weightvc's engine against the published loop, and both against float64.

The matrices are those of one block of ViT-B. Each task vector has singular values that fall as i^-0.7 in random bases,
a Gaussian bulk, and 30 % of its norm in common with the others. The published loop gets all threads, as its authors
run it; weightvc one worker a core, each with one BLAS thread, as ``wvc checkout`` runs it.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import published
import torch
from bars import Bar
from published import Model
from torch import Tensor

from weightvc.merge import linalg
from weightvc.merge.method import Fold
from weightvc.merge.table import create
from weightvc.objects.tensors import TensorSpec
from weightvc.util import parallel

ALPHA = 0.5
TASKS, ROUNDS = 4, 3
DEPTH = 5
"""Tasks of the merges whose errors are measured."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of weightvc: its method, what its speed and its error must be, and what it is compared with."""

    label: str
    method: str
    params: Mapping[str, str]
    gain: float
    error: float
    oracle: str


RULES = (
    Rule("opcm", "opcm", {}, 2.0, 1e-6, "published"),
    Rule("opcm-s", "opcm-s", {"norm": "mean"}, 2.5, 1e-12, "stable"),
    Rule("opcm-s mixed", "opcm-s", {"norm": "mean", "precision": "mixed"}, 3.5, 1e-5, "stable"),
)


def shapes(width: int) -> dict[str, tuple[int, int]]:
    """Return the matrices of one block of a vision transformer of this width."""
    square = {f"attention.{part}.weight": (width, width) for part in ("query", "key", "value", "output")}
    return {**square, "mlp.up.weight": (4 * width, width), "mlp.down.weight": (width, 4 * width)}


def _vector(rows: int, cols: int, random: torch.Generator) -> Tensor:
    """Return a matrix of Frobenius norm 1: a heavy tail in random bases over a Gaussian bulk."""
    short = min(rows, cols)
    left, right = (
        torch.linalg.qr(torch.randn(size, short, generator=random, dtype=torch.float64))[0] for size in (rows, cols)
    )
    tail = (left * torch.arange(1, short + 1, dtype=torch.float64) ** -0.7) @ right.mT
    bulk = torch.randn(rows, cols, generator=random, dtype=torch.float64)
    vector = tail / tail.norm() + 0.5 * bulk / bulk.norm()
    return vector / vector.norm()


def models(width: int, count: int) -> tuple[Model, list[Model]]:
    """Return a base and tasks, float32: weights of 0.02, changed by a twentieth of that."""
    random = torch.Generator().manual_seed(11)
    base: dict[str, Tensor] = {}
    tasks: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, (rows, cols) in shapes(width).items():
        start = 0.02 * torch.randn(rows, cols, generator=random, dtype=torch.float64)
        base[name] = start.float()
        common = _vector(rows, cols, random)
        for task in tasks:
            moved = _vector(rows, cols, random) + 0.3 * common
            task[name] = (base[name] + 0.05 * float(start.norm()) * moved).float()
    return base, tasks


def fold(method: Fold, base: Model, tasks: Sequence[Model], jobs: int) -> tuple[dict[str, Tensor], float]:
    """Return the accumulated sums and their factor, as the engine computes them: the largest matrix first."""
    specs = [TensorSpec(name, "F32", tuple(tensor.shape)) for name, tensor in base.items()]

    def job(spec: TensorSpec) -> tuple[Tensor, list[float]]:
        state, squares = None, []
        for task in tasks:
            vector = task[spec.name].double().sub_(base[spec.name])
            squares.append(_square(vector))
            state = method.step(state, vector, project=method.projects(spec)).state
        assert state is not None
        return state, [*squares, _square(state)]

    largest = sorted(specs, key=lambda spec: -spec.elements)
    with linalg.single_thread():
        found = parallel.run(job, largest, jobs, linalg.pin_thread)
    *norms, merged = (math.sqrt(math.fsum(squares)) for squares in zip(*(held for _, held in found), strict=True))
    sums = {spec.name: state for spec, (state, _) in zip(largest, found, strict=True)}
    return sums, method.scale(norms, merged)


def _square(tensor: Tensor) -> float:
    flat = tensor.reshape(-1)
    return float(torch.dot(flat, flat))


def _ours(method: Fold, base: Model, tasks: Sequence[Model], jobs: int) -> None:
    sums, factor = fold(method, base, tasks, jobs)

    def merged(name: str) -> Tensor:
        return base[name].double().add_(sums[name], alpha=factor).float()

    with linalg.single_thread():
        parallel.run(merged, list(sums), jobs, linalg.pin_thread)


def _alone(base: Model, tasks: Sequence[Model]) -> None:
    """Merge as published on one thread, whose CPU time, unlike that of waiting threads, is what the work takes."""
    with linalg.single_thread():
        published.merge(base, tasks, ALPHA)


def apart(found: Model, wanted: Model) -> float:
    """Return the norm of the difference of two merged task vectors, relative to the second."""
    away = math.fsum(float(torch.linalg.vector_norm(found[name] - wanted[name])) ** 2 for name in wanted)
    return math.sqrt(away / math.fsum(float(torch.linalg.vector_norm(wanted[name])) ** 2 for name in wanted))


def _moved(model: Model, base: Model) -> Model:
    return {name: tensor.double() - base[name] for name, tensor in model.items()}


def _errors(width: int, jobs: int) -> dict[str, float]:
    """Return how far every merge of five tasks is from float64, step by step: the task vectors, not yet rounded."""
    base, tasks = models(width, DEPTH)
    start, moved = ({name: t.double() for name, t in base.items()}, [_moved(task, base) for task in tasks])
    zero = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    oracles = {
        "published": published.merge(zero, moved, ALPHA, published.clean),
        "stable": published.merge(zero, moved, ALPHA, published.clean_stable),
    }
    found = {"published": apart(_moved(published.merge(base, tasks, ALPHA), base), oracles["published"])}
    for rule in RULES:
        sums, factor = fold(create(rule.method, rule.params), base, tasks, jobs)
        found[rule.label] = apart({name: factor * tensor for name, tensor in sums.items()}, oracles[rule.oracle])
    return found


def measure(quick: bool) -> list[Bar]:
    """Print times and errors, and return their bars."""
    width, jobs = (192 if quick else 768), parallel.cores()
    base, tasks = models(width, TASKS)
    steps: dict[str, Callable[[], object]] = {
        "published": partial(published.merge, base, tasks, ALPHA),
        "published, alone": partial(_alone, base, tasks),
    }
    for rule in RULES:
        steps[rule.label] = partial(_ours, create(rule.method, rule.params), base, tasks, jobs)
    wall: dict[str, list[float]] = {label: [] for label in steps}
    cpu: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(3 if quick else ROUNDS):
        for label, step in steps.items():
            started, used = time.perf_counter(), time.process_time()
            step()
            wall[label].append(time.perf_counter() - started)
            cpu[label].append(time.process_time() - used)
    errors = _errors(width, jobs)
    elements = sum(tensor.numel() for tensor in base.values())
    print(
        f"\none block of width {width}, {elements / 1e6:.1f} M weights, {TASKS} tasks; {jobs} workers, 1 thread each;"
    )
    print(f"the published loop in float32 with {torch.get_num_threads()} threads; load {os.getloadavg()[0]:.1f}")
    print(f"{'':<18}{'wall s':>9}{'from':>8}{'to':>8}{'CPU s':>9}{'wall':>8}{'CPU':>8}   error, {DEPTH} tasks")
    bars = []
    middle = {label: (statistics.median(wall[label]), statistics.median(cpu[label])) for label in steps}
    for label, (seconds, used) in middle.items():
        gains = [middle["published"][at] / of for at, of in enumerate((seconds, used))]
        times = f"{seconds:>9.3f}{min(wall[label]):>8.3f}{max(wall[label]):>8.3f}{used:>9.3f}"
        print(f"{label:<18}{times}{gains[0]:>7.2f}x{gains[1]:>7.2f}x   {errors.get(label, math.nan):.1e}", flush=True)
    for rule in RULES:
        gain = middle["published"][0] / middle[rule.label][0]
        bars.append(Bar(f"{rule.label}: published loop / weightvc, wall", gain, rule.gain, most=False, binds=not quick))
        bars.append(Bar(f"{rule.label}: error / {rule.error:.0e}", errors[rule.label] / rule.error, 1.0))
        worse = errors[rule.label] / errors["published"]
        bars.append(Bar(f"{rule.label}: error / that of the published loop", worse, 1.0))
    return bars
