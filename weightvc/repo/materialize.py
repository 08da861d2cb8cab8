"""Materialize: a recipe → tensors, streaming.

Element-wise work runs over spans of a few MiB, so that its memory does not grow with tensors, tasks or models.
Only matrices that a method projects are held whole, in float64. A method whose result is scaled by one global
factor takes two passes: the first folds every tensor and adds up norms, keeping projected sums in a scratch file;
the second writes base + factor * sum, cast once. Every sum has a fixed order and every kernel one thread, so the
bytes do not depend on the number of workers.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightvc.delta import values
from weightvc.merge import linalg
from weightvc.merge.method import Fold
from weightvc.repo.decode import Decoder, Reader
from weightvc.repo.factors import DTYPES, Factors, LowRank
from weightvc.repo.plan import Plan, Source, TensorPlan
from weightvc.repo.vectors import Vectors, Workspace
from weightvc.util import fsio, heap, parallel
from weightvc.util.errors import Conflict
from weightvc.util.progress import Progress
from weightvc.util.text import printable

_F64 = 8


@dataclass(frozen=True)
class _Folded:
    """The first pass's result for one tensor: squared norms of the task vectors and of their sum, split ranks."""

    vectors: tuple[float, ...]
    merged: float
    ranks: tuple[int, ...] = ()


class Materializer:
    """Produces the tensors of one plan. A context manager: leaving it removes the scratch files.

    Args:
        reader: Decodes the base and the tasks.
        plan: What to do.
        method: The merge method; its ``scaled`` says whether a first pass is needed.
        device: A torch device; decoding and encoding stay on the CPU.
        scratch: A directory for projected sums, 8 bytes an element; the system's if it is read-only.
        jobs: Worker threads.
        special: Whether the base or a task holds infinities or NaN.
    """

    def __init__(
        self, reader: Reader, plan: Plan, method: Fold, *, device: str, scratch: Path, jobs: int, special: bool
    ) -> None:
        self._reader = reader
        self.plan = plan
        self._method = method
        self.device = torch.device(device)
        self._workspace = Workspace(self.device)
        self._scratch = scratch
        self._jobs = jobs
        self._folded: Mapping[tuple[str, ...], _Folded] = {}
        self._kept: dict[tuple[str, ...], int] = {}
        self._file: fsio.NewFile | None = None
        self._factor = 1.0
        self._special = special
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        heap.steady()
        self._stack.enter_context(linalg.single_thread())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def two_passes(self) -> bool:
        """Whether :meth:`prepare` has work to do."""
        return self._method.scaled and any(plan.sources and plan.rule != "task" for plan in self.plan.tensors)

    def prepare(self, progress: Progress) -> None:
        """Run the first pass, if the method needs one: fold every changed tensor and find the global factor."""
        if not self.two_passes:
            self._factor = 1.0 if self._method.scaled else self._method.scale((), 0.0)
            return
        plans = [plan for plan in self.plan.tensors if plan.rule in ("elementwise", "projected")]
        plans.sort(key=lambda plan: (plan.rule == "elementwise", -plan.spec.elements))
        self._reserve([plan for plan in plans if plan.rule == "projected"])

        def job(plan: TensorPlan) -> _Folded:
            folded = self._project(plan) if plan.rule == "projected" else self._measure(plan)
            progress.advance(plan.spec.nbytes)
            return folded

        with progress.stage("Folding", sum(plan.spec.nbytes for plan in plans)):
            results = parallel.run(job, plans, self._jobs, linalg.pin_thread)
        self._folded = dict(sorted(zip((plan.names for plan in plans), results, strict=True)))
        self._factor = self._global_factor()

    def _reserve(self, plans: Sequence[TensorPlan]) -> None:
        """Give each projected sum its place in one scratch file."""
        end = 0
        for plan in plans:
            self._kept[plan.names] = end
            end += plan.spec.elements * _F64
        if plans:
            self._file = self._stack.enter_context(fsio.scratch_file(self._scratch))

    def _global_factor(self) -> float:
        squares: list[list[float]] = [[] for _ in self.plan.weights]
        sources = {plan.names: plan.sources for plan in self.plan.tensors}
        for names, folded in self._folded.items():
            for (at, _), square in zip(sources[names], folded.vectors, strict=True):
                squares[at].append(square)
        merged = _norm([folded.merged for folded in self._folded.values()])
        factor = self._method.scale([_norm(parts) for parts in squares], merged)
        if not math.isfinite(factor) or not math.isfinite(merged):
            raise Conflict("the merged model's norm is beyond double precision", "use smaller coefficients")
        return factor

    def ranks(self, plan: TensorPlan) -> tuple[int, ...]:
        """Return the split ranks that the method decided for a tensor, one for each projection."""
        return self._folded[plan.names].ranks if plan.names in self._folded else ()

    def spans(self, plan: TensorPlan) -> Iterator[tuple[int, memoryview]]:
        """Return the result's raw bytes as (offset, span) pairs, in order; a span may be reused for the next."""
        if plan.rule == "base":
            yield from self._reader.open(plan.base).spans()
        elif plan.rule == "task":
            yield from self._reader.open(plan.own).spans()
        else:
            offset = 0
            for base, total in self._sums(plan):
                before = int(base.isfinite().logical_not_().sum()) if self._special else 0
                result = base if total is None else base.add_(total, alpha=self._factor)
                data = _raw(result.to(DTYPES[plan.spec.dtype]))
                if values.count_nonfinite(plan.spec.dtype, data) > before:
                    raise _overflow(plan)
                yield offset, data
                offset += len(data)

    def _sums(self, plan: TensorPlan) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Return (base, accumulated sum) span by span, both float64 and one-dimensional, each valid until the next."""
        vectors = self._vectors(plan)
        if self._file is None or plan.names not in self._kept:
            for base in vectors.spans():
                yield base, self._fold(vectors)
            return
        at = self._kept[plan.names]
        for base in vectors.spans():
            data = bytearray(os.pread(self._file.fileno(), base.numel() * _F64, at))
            at += len(data)
            yield base, torch.frombuffer(data, dtype=torch.float64).to(self.device)

    def _fold(self, vectors: Vectors, squares: list[float] | None = None) -> Tensor | None:
        """Fold the current span's task vectors, adding each one's squared norm to ``squares`` if given."""
        total: Tensor | None = None
        for at in range(len(vectors)):
            vector = vectors.vector(at, self._workspace.beside(total))
            if squares is not None:
                squares[at] += _square(vector)
            total = self._method.step(total, vector, project=False).state
        return total

    def _measure(self, plan: TensorPlan) -> _Folded:
        vectors = self._vectors(plan)
        squares = [0.0] * len(vectors)
        merged = 0.0
        for _ in vectors.spans():
            total = self._fold(vectors, squares)
            merged += 0.0 if total is None else _square(total)
        return _Folded(tuple(squares), merged)

    def _project(self, plan: TensorPlan) -> _Folded:
        squares: list[float] = []
        ranks: list[int] = []
        total: Tensor | None = None
        for at in range(len(plan.sources)):
            vector = self._whole(plan, at)
            squares.append(_square(vector))
            total, rank = self._method.step(total, vector, project=True)
            del vector
            if rank is not None:
                ranks.append(rank)
        if self._file is None or total is None:
            raise RuntimeError(f"{plan.names}: a projected tensor has sources and a place in the scratch file")
        self._file.pwrite(_raw(total), self._kept[plan.names])
        return _Folded(tuple(squares), _square(total), tuple(ranks))

    def _whole(self, plan: TensorPlan, at: int) -> Tensor:
        """Return one weighted task vector as a float64 matrix, filled span by span."""
        vectors = self._vectors(replace(plan, sources=plan.sources[at : at + 1]))
        flat = torch.empty(plan.spec.elements, dtype=torch.float64, device=self.device)
        done = 0
        for base in vectors.spans():
            vectors.vector(0, flat[done : done + base.numel()])
            done += base.numel()
        return flat.view(plan.spec.shape)

    def _vectors(self, plan: TensorPlan) -> Vectors:
        base = self._reader.open(plan.base)
        sources = [(self.plan.weights[at], self._open(source, base)) for at, source in plan.sources]
        return Vectors(base, sources, self._workspace, special=self._special)

    def _open(self, source: Source, base: Decoder) -> Decoder | Factors:
        if isinstance(source, LowRank):
            return Factors.open(self._reader, source, self.device)
        return self._reader.open(source, base=base)


def _overflow(plan: TensorPlan) -> Conflict:
    return Conflict(
        f"tensor {printable(plan.names[0])}: the merged values do not fit into {plan.spec.dtype}",
        "use smaller coefficients, or a wider --dtype",
    )


def _norm(squares: Sequence[float]) -> float:
    try:
        return math.sqrt(math.fsum(squares))
    except OverflowError:
        return math.inf


def _square(vector: Tensor) -> float:
    flat = vector.reshape(-1)
    return float(torch.dot(flat, flat))


def _raw(tensor: Tensor) -> memoryview:
    array: NDArray[np.uint8] = tensor.reshape(-1).cpu().view(torch.uint8).numpy()
    return array.data
