"""Merging by a fold: one accumulated sum for each tensor, and one factor for the whole model.

A method whose result is scaled takes two passes: the first folds every tensor and adds up norms, keeping projected sums
in a scratch file, those of factored tensors as two factors; the second writes base + factor * sum, cast once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from weightvc.merge import factored, linalg
from weightvc.merge.method import Fold
from weightvc.repo.factors import Factors
from weightvc.repo.plan import TensorPlan
from weightvc.repo.prefix import States
from weightvc.repo.vectors import Sources, Vectors, raw
from weightvc.util import fsio, parallel
from weightvc.util.errors import Conflict
from weightvc.util.progress import Progress

_F64 = 8


@dataclass(frozen=True)
class _Folded:
    """The first pass's result for one tensor: squared norms of the task vectors and of their sum, split ranks."""

    vectors: tuple[float, ...]
    merged: float
    ranks: tuple[int, ...] = ()


class Folding:
    """Folds the task vectors of a plan.

    Args:
        sources: Opens base and task vectors.
        method: Its ``scaled`` says whether a first pass over all tensors is needed.
        scratch: A directory for projected sums.
        jobs: Worker threads of the first pass.
        stack: Closes the scratch file.
        states: Where projections may begin.
    """

    def __init__(
        self, sources: Sources, method: Fold, scratch: Path, jobs: int, stack: ExitStack, *, states: States
    ) -> None:
        self._sources = sources
        self._method = method
        self._scratch = scratch
        self._jobs = jobs
        self._stack = stack
        self._states = states
        self._folded: Mapping[tuple[str, ...], _Folded] = {}
        self._kept: dict[tuple[str, ...], tuple[fsio.NewFile, int]] = {}
        self._factor = 1.0

    def prepare(self, progress: Progress) -> None:
        """Run the first pass: fold the matrices, and every other tensor if a global factor is to be found."""
        scaled = self._method.scaled
        plans = [plan for plan in self._sources.changed() if plan.sources and (scaled or plan.kept)]
        if not plans:
            self._factor = 1.0 if scaled else self._method.scale((), 0.0)
            return
        plans.sort(key=lambda plan: (plan.rule != "projected", -plan.spec.elements))
        self._reserve([plan for plan in plans if plan.kept])
        whole = {"projected": self._project, "factored": self._factors}

        def job(plan: TensorPlan) -> _Folded:
            folded = whole.get(plan.rule, self._measure)(plan)
            progress.advance(plan.spec.nbytes)
            return folded

        with progress.stage("Folding", sum(plan.spec.nbytes for plan in plans)):
            results = parallel.run(job, plans, self._jobs, linalg.pin_thread)
        self._folded = dict(sorted(zip((plan.names for plan in plans), results, strict=True)))
        self._factor = self._global_factor()

    def report(self) -> Sequence[tuple[int, str]]:
        """Return nothing: a fold finds out nothing about tasks."""
        return ()

    def ranks(self, plan: TensorPlan) -> tuple[int, ...]:
        """Return the split ranks that the method decided for a tensor, one for each projection."""
        return self._folded[plan.names].ranks if plan.names in self._folded else ()

    def sums(self, plan: TensorPlan) -> Iterator[tuple[Tensor, Tensor | None, float]]:
        """Return (base, accumulated sum, factor) span by span: float64, one-dimensional, valid until the next."""
        if plan.names not in self._kept:
            vectors = self._sources.vectors(plan)
            for base in vectors.spans():
                yield base, self._fold(vectors), self._factor
            return
        product = self._product(plan) if plan.rule == "factored" else None
        done = 0
        for base in self._sources.vectors(replace(plan, sources=())).spans():
            if product is None:
                total = self._read(plan, done, base.numel())
            else:
                total = product.vector(done, self._sources.workspace.beside(None)[: base.numel()])
            done += base.numel()
            yield base, total, self._factor

    def _reserve(self, plans: Sequence[TensorPlan]) -> None:
        """Give each projected sum its place in one scratch file."""
        if not plans:
            return
        file, end = self._stack.enter_context(fsio.scratch_file(self._scratch)), 0
        for plan in plans:
            self._kept[plan.names] = file, end
            end += plan.kept

    def _global_factor(self) -> float:
        squares: list[list[float]] = [[] for _ in self._sources.plan.weights]
        sources = {plan.names: plan.sources for plan in self._sources.plan.tensors}
        for names, folded in self._folded.items():
            for (at, _), square in zip(sources[names], folded.vectors, strict=True):
                squares[at].append(square)
        merged = _norm([folded.merged for folded in self._folded.values()])
        factor = self._method.scale([_norm(parts) for parts in squares], merged)
        if not math.isfinite(factor) or not math.isfinite(merged):
            raise Conflict("the merged model's norm is beyond double precision", "use smaller coefficients")
        return factor

    def _fold(self, vectors: Vectors, squares: list[float] | None = None) -> Tensor | None:
        """Fold the current span's task vectors, adding each one's squared norm to ``squares`` if given."""
        total: Tensor | None = None
        for at in range(len(vectors)):
            vector = vectors.vector(at, self._sources.workspace.beside(total))
            if squares is not None:
                squares[at] += _square(vector)
            total = self._method.step(total, vector, project=False).state
        return total

    def _measure(self, plan: TensorPlan) -> _Folded:
        vectors = self._sources.vectors(plan)
        squares = [0.0] * len(vectors)
        merged = 0.0
        for _ in vectors.spans():
            total = self._fold(vectors, squares)
            merged += 0.0 if total is None else _square(total)
        return _Folded(tuple(squares), merged)

    def _project(self, plan: TensorPlan) -> _Folded:
        done = self._states.longest(plan)
        for at in range(len(done.squares), len(plan.sources)):
            vector = self._whole(plan, at)
            done.squares.append(_square(vector))
            done.total, rank = self._method.step(done.total, vector, project=True)
            del vector
            if rank is not None:
                done.ranks.append(rank)
            self._states.keep(plan, done)
        if done.total is None:
            raise RuntimeError(f"{plan.names}: a projected tensor has sources")
        self._keep(plan, done.total)
        return _Folded(tuple(done.squares), _square(done.total), tuple(done.ranks))

    def _factors(self, plan: TensorPlan) -> _Folded:
        """Fold a matrix in the bases of its factors."""
        found = factored.fold(self._method, [(each.left, each.right) for each in self._sources.factors(plan)])
        self._keep(plan, found.left, found.right)
        return _Folded(found.squares, found.merged, found.ranks)

    def _product(self, plan: TensorPlan) -> Factors:
        """Return what was kept of a matrix that was folded in the bases of its factors."""
        rows, columns = plan.spec.shape
        left, right = self._read(plan, 0, rows * plan.rank), self._read(plan, rows * plan.rank, plan.rank * columns)
        return Factors(left.view(rows, plan.rank), right.view(plan.rank, columns))

    def _keep(self, plan: TensorPlan, *tensors: Tensor) -> None:
        """Write a sum to its place in the scratch file."""
        file, at = self._kept[plan.names]
        for tensor in tensors:
            at += file.pwrite(raw(tensor), at)

    def _read(self, plan: TensorPlan, first: int, count: int) -> Tensor:
        """Return ``count`` numbers of what was kept, from number ``first`` on."""
        file, at = self._kept[plan.names]
        held = torch.empty(count, dtype=torch.float64)
        file.pread_into(held.numpy().data, at + first * _F64)
        return held.to(self._sources.device)

    def _whole(self, plan: TensorPlan, at: int) -> Tensor:
        """Return one weighted task vector as a float64 matrix, filled span by span."""
        vectors = self._sources.vectors(replace(plan, sources=plan.sources[at : at + 1]))
        flat = torch.empty(plan.spec.elements, dtype=torch.float64, device=self._sources.device)
        done = 0
        for base in vectors.spans():
            vectors.vector(0, flat[done : done + base.numel()])
            done += base.numel()
        return flat.view(plan.spec.shape)


def _norm(squares: Sequence[float]) -> float:
    try:
        return math.sqrt(math.fsum(squares))
    except OverflowError:
        return math.inf


def _square(vector: Tensor) -> float:
    flat = vector.reshape(-1)
    return float(torch.dot(flat, flat))
