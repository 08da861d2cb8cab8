"""Merging task vectors jointly: passes that look, then one that merges."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightvc.merge import linalg
from weightvc.merge.joint import Joint, Piece, Reporting, Seen, Task
from weightvc.objects.tensors import MERGED
from weightvc.repo.plan import TensorPlan
from weightvc.repo.vectors import Sources, Vectors
from weightvc.util import parallel
from weightvc.util.progress import Progress


def decides(method: Joint) -> int:
    """Return the passes over a single tensor by which a method decides about it alone."""
    return method.passes if method.decides == "tensor" else 0


class Joining:
    """Joins the task vectors of a plan.

    Args:
        sources: Opens base and task vectors.
        method: What to do with them.
        tasks: The tasks of the merge, by position.
        jobs: Worker threads of passes over the whole model.
    """

    def __init__(self, sources: Sources, method: Joint, tasks: Sequence[Task], jobs: int) -> None:
        self._sources = sources
        self._method = method
        self._jobs = jobs
        specs = [plan.base.spec for plan in sources.plan.tensors if plan.base.spec.dtype in MERGED]
        self._known = method.begin(tasks, specs) if tasks else None

    def prepare(self, progress: Progress) -> None:
        """Take the passes of a method that decides about the whole model."""
        plans = [plan for plan in self._sources.changed() if plan.sources]
        plans.sort(key=lambda plan: -plan.spec.elements)
        if self._method.decides == "tensor" or not plans:
            return
        for number in range(self._method.passes):
            self._known = self._pass(plans, number, progress)

    def report(self) -> Sequence[tuple[int, str]]:
        """Return (position of the task, what a user should hear of it) pairs."""
        return self._method.report(self._known) if isinstance(self._method, Reporting) and self._known else ()

    def ranks(self, plan: TensorPlan) -> tuple[int, ...]:
        """Return nothing: a joint method decides no split ranks."""
        return ()

    def sums(self, plan: TensorPlan) -> Iterator[tuple[Tensor, Tensor | None, float]]:
        """Return (base, merged task vector, 1) span by span: float64, one-dimensional, valid until the next."""
        if not plan.sources:
            yield from ((base, None, 1.0) for base in self._sources.vectors(plan).spans())
            return
        passes = decides(self._method)
        vectors, known = self._sources.vectors(plan, again=passes > 0), self._known
        for _ in range(passes):
            known = self._method.combine({plan.names[0]: self._seen(plan, vectors, known)}, known)
        if plan.rule == "elementwise":
            for piece in self._pieces(plan, vectors):
                yield piece.base, self._method.merge(piece, known).reshape(-1), 1.0
            return
        (piece,) = self._pieces(plan, vectors)
        merged, done = self._method.merge(piece, known).reshape(-1), 0
        for base in vectors.spans():
            yield base, merged[done : done + base.numel()], 1.0
            done += base.numel()

    def _pass(self, plans: Sequence[TensorPlan], number: int, progress: Progress) -> Any:
        """Take one pass over the model. Counts are added up at once: they do not depend on the order, and are large."""
        counts: dict[str, Seen] = {}
        lock = threading.Lock()

        def job(plan: TensorPlan) -> Seen | None:
            seen = self._seen(plan, self._sources.vectors(plan), self._known)
            progress.advance(plan.spec.nbytes)
            if not np.issubdtype(seen.dtype, np.integer):
                return seen
            with lock:
                counts[""] = counts[""] + seen if counts else seen
            return None

        label = f"Looking, pass {number + 1} of {self._method.passes}"
        with progress.stage(label, sum(plan.spec.nbytes for plan in plans)):
            results = parallel.run(job, plans, self._jobs, linalg.pin_thread)
        named = {plan.names[0]: found for plan, found in zip(plans, results, strict=True) if found is not None}
        return self._method.combine(counts or dict(sorted(named.items())), self._known)

    def _seen(self, plan: TensorPlan, vectors: Vectors, known: Any) -> Seen:
        """Return the sum of what the method sees in the pieces of one tensor."""
        found = (self._method.observe(piece, known) for piece in self._pieces(plan, vectors))
        total = next(found).copy()
        for more in found:
            total += more
        return total

    def _pieces(self, plan: TensorPlan, vectors: Vectors) -> Iterator[Piece]:
        """Return the pieces of one tensor, each valid until the next."""
        spec, positions = plan.base.spec, [at for at, _ in plan.sources]
        if plan.rule != "elementwise":
            shape = (len(positions), *spec.shape)
            held = torch.empty(shape, dtype=torch.float64, device=self._sources.device)
            flat, done = held.reshape(len(positions), -1), 0
            for base in vectors.spans():
                for row in range(len(positions)):
                    vectors.vector(row, flat[row, done : done + base.numel()])
                done += base.numel()
            yield Piece(spec, 0, base.new_empty(0), dict(zip(positions, held, strict=True)))
            return
        offset = 0
        for base in vectors.spans():
            outs = self._sources.workspace.spans(len(positions))
            moved = {at: vectors.vector(row, outs[row]) for row, at in enumerate(positions)}
            yield Piece(spec, offset, base, moved)
            offset += base.numel()
