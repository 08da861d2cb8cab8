"""The published recursion, written out step by step as an oracle, and an in-memory driver of folds."""

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from weightvc.merge import linalg
from weightvc.objects.tensors import TensorSpec

State = Mapping[str, Tensor]


@pytest.fixture(autouse=True)
def _one_thread():
    with linalg.single_thread():
        yield


def _norm(model: State, base: State) -> float:
    return math.sqrt(sum(float((model[name] - base[name]).square().sum()) for name in base))


def _clean(C: Tensor, D: Tensor, alpha: float, null: float) -> Tensor:
    """D without the r x r block and the diagonal, in full singular bases of C."""
    U, s, Vh = torch.linalg.svd(C, full_matrices=True)
    k = int((s > null * s[0]).sum())
    if k == 0:
        return D
    r = int((s[:k].cumsum(0) / s[:k].sum() > alpha).double().argmax())
    P = U.mT @ D @ Vh.mT
    P[:r, :r] = 0
    P[range(r, k), range(r, k)] = 0
    return U @ P @ Vh


@pytest.fixture
def oracle():
    """OPCM on state dicts, model by model, carrying the *scaled* merge as the paper's Algorithm 1 does."""

    def run(base: State, tasks: Sequence[State], projected: set[str], alpha: float, null: float = 0.0) -> State:
        merged, before, norms = dict(tasks[0]), 1.0, [_norm(tasks[0], base)]
        for task in tasks[1:]:
            norms.append(_norm(task, base))
            for name, start in base.items():
                held, delta = merged[name] - start, task[name] - start
                delta = _clean(held, delta, alpha, null) if name in projected else delta
                merged[name] = start + before * held + delta
            factor = _norm(merged, base) * len(norms) / sum(norms)
            merged = {name: base[name] + (merged[name] - base[name]) / factor for name in base}
            before = factor
        return merged

    return run


@pytest.fixture
def drive():
    """Fold state dicts as the engine does: tensor by tensor in name order, one scale at the end."""

    def run(method, base: State, tasks: Sequence[State], given: Sequence[float] | None = None):
        weights = method.coefficients(given or [1.0] * len(tasks))
        squares = [0.0] * len(tasks)
        sums: dict[str, Tensor] = {}
        ranks: dict[str, list[int | None]] = {}
        for name in sorted(base):
            project = method.projects(TensorSpec(name, "F32", tuple(base[name].shape)))
            state = None
            for at, (weight, task) in enumerate(zip(weights, tasks, strict=True)):
                vector = (task[name] - base[name]) * weight
                squares[at] += float(vector.square().sum())
                state, rank = method.step(state, vector, project=project)
                ranks.setdefault(name, []).append(rank)
            sums[name] = state
        merged = math.sqrt(sum(float(total.square().sum()) for total in sums.values()))
        scale = method.scale([math.sqrt(square) for square in squares], merged)
        return {name: base[name] + scale * total for name, total in sums.items()}, ranks

    return run


@pytest.fixture
def matrix():
    """Random matrices with singular values from 1 down to ``smallest``, of a chosen rank."""

    def make(rows: int, cols: int, seed: int, rank: int | None = None, smallest: float = 1e-2) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        rank = min(rows, cols) if rank is None else rank
        left = torch.linalg.qr(torch.randn(rows, rank, generator=random, dtype=torch.float64))[0]
        right = torch.linalg.qr(torch.randn(cols, rank, generator=random, dtype=torch.float64))[0]
        return (left * torch.logspace(0, math.log10(smallest), rank, dtype=torch.float64)) @ right.mT

    return make


@pytest.fixture
def models(matrix):
    """Make a base and tasks with square, tall, wide, 1-D and 4-D tensors and a token table."""

    def make(count: int, rank: int | None = None):
        shapes = {
            "square.weight": (20, 20),
            "tall.weight": (30, 12),
            "wide.weight": (10, 28),
            "wte.weight": (25, 8),
        }
        random = torch.Generator().manual_seed(99)
        flat = {"bias": (17,), "conv.weight": (4, 3, 3, 3)}
        base = {
            name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in (shapes | flat).items()
        }

        def task(seed: int):
            moved = {
                name: matrix(*shape, seed=seed + at, rank=rank, smallest=1e-4)
                for at, (name, shape) in enumerate(shapes.items())
            }
            moved |= {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in flat.items()}
            return {name: base[name] + moved[name] for name in base}

        return base, [task(1000 * at) for at in range(1, count + 1)]

    return make


@pytest.fixture
def apart():
    """The norm of the difference of two tensors or state dicts, relative to the second."""

    def measure(found, wanted) -> float:
        if isinstance(found, Tensor):
            return float((found - wanted).norm() / wanted.norm())
        return max(measure(found[name], wanted[name]) for name in wanted)

    return measure
