"""Materialize: a recipe → tensors, streaming.

Element-wise work runs over spans of a few MiB, so that its memory does not grow with tensors, tasks or models.
Only matrices that a method projects or joins are held whole, in float64. Every sum has a fixed order and every kernel
one thread, so the bytes do not depend on the number of workers.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from weightvc.delta import values
from weightvc.merge import linalg
from weightvc.merge.joint import Joint, Task
from weightvc.repo.decode import Reader
from weightvc.repo.factors import DTYPES
from weightvc.repo.folding import Folding
from weightvc.repo.joining import Joining
from weightvc.repo.plan import Plan, TensorPlan
from weightvc.repo.prefix import States
from weightvc.repo.vectors import Sources, Workspace, raw
from weightvc.util import blas, heap
from weightvc.util.errors import Conflict
from weightvc.util.progress import Progress
from weightvc.util.text import printable


class Materializer:
    """Produces the tensors of one plan. A context manager: leaving it removes the scratch files.

    Args:
        reader: Decodes the base and the tasks.
        plan: What to do, by which methods.
        tasks: The tasks of the merge, by position.
        device: A torch device; decoding and encoding stay on the CPU.
        scratch: A directory for projected sums or their factors, 8 bytes an element; the system's if it is read-only.
        jobs: Worker threads.
        special: Whether the base or a task holds infinities or NaN.
        states: Where a fold's projections may begin.
    """

    def __init__(
        self,
        reader: Reader,
        plan: Plan,
        tasks: Sequence[Task],
        *,
        device: str,
        scratch: Path,
        jobs: int,
        special: bool,
        states: States,
    ) -> None:
        self._reader = reader
        self.plan = plan
        self.device = torch.device(device)
        self._special = special
        self._stack = ExitStack()
        self._engines: list[Folding | Joining] = []
        self._engine: dict[tuple[str, ...], Folding | Joining] = {}
        workspace = Workspace(self.device)
        for part in plan.parts:
            sources = Sources(reader, part, workspace, special=special)
            if isinstance(part.method, Joint):
                self._engines.append(Joining(sources, part.method, tasks, jobs))
            else:
                self._engines.append(Folding(sources, part.method, scratch, jobs, self._stack, states=states))
            self._engine |= dict.fromkeys((tensor.names for tensor in part.tensors), self._engines[-1])

    def __enter__(self) -> Self:
        heap.steady()
        self._stack.enter_context(blas.one_thread())
        self._stack.enter_context(linalg.single_thread())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def prepare(self, progress: Progress) -> None:
        """Take the passes over all changed tensors that the methods need before they can merge the first one."""
        for engine in self._engines:
            engine.prepare(progress)

    def report(self) -> list[tuple[int, str]]:
        """Return (position of the task, what a user should hear of it) pairs, which the passes found out."""
        return [found for engine in self._engines for found in engine.report()]

    def ranks(self, plan: TensorPlan) -> tuple[int, ...]:
        """Return the split ranks that the method decided for a tensor, one for each projection."""
        return self._engine[plan.names].ranks(plan) if plan.names in self._engine else ()

    def spans(self, plan: TensorPlan) -> Iterator[tuple[int, memoryview]]:
        """Return the result's raw bytes as (offset, span) pairs, in order; a span may be reused for the next."""
        if plan.rule == "base":
            yield from self._reader.open(plan.base).spans()
        elif plan.rule == "task":
            yield from self._reader.open(plan.own).spans()
        else:
            offset = 0
            for base, delta, factor in self._engine[plan.names].sums(plan):
                before = int(base.isfinite().logical_not_().sum()) if self._special else 0
                result = base if delta is None else base.add_(delta, alpha=factor)
                data = raw(result.to(DTYPES[plan.spec.dtype]))
                if values.count_nonfinite(plan.spec.dtype, data) > before:
                    raise _overflow(plan)
                yield offset, data
                offset += len(data)


def _overflow(plan: TensorPlan) -> Conflict:
    return Conflict(
        f"tensor {printable(plan.names[0])}: the merged values do not fit into {plan.spec.dtype}",
        "use smaller coefficients, or a wider --dtype",
    )
