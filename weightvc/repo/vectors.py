"""One tensor's base and task vectors, span by span, in buffers that each thread allocates once.

A span is decoded to raw bytes and widened to float64 in place. Allocating afresh for every span would leave the heap
of each thread fragmented, at several times what is in use.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightvc.repo.decode import SPAN, Decoder, Reader
from weightvc.repo.factors import DTYPES, Factors, LowRank
from weightvc.repo.plan import Part, Source, TensorPlan
from weightvc.util.errors import Conflict
from weightvc.util.text import printable

_WIDEST = SPAN // 2
"""Elements of a span of the narrowest mergeable dtype."""


KEPT = 512 * 2**20
"""Most bytes of a tensor, and of it in the tasks, that a worker keeps to read them again."""


class _Buffers(threading.local):
    """A thread's raw spans (of the base and of a task) and its float64 spans: the base, and two to fold with."""

    def __init__(self, device: torch.device) -> None:
        self.raw = (memoryview(bytearray(SPAN)), memoryview(bytearray(SPAN)))
        self.base = torch.empty(_WIDEST, dtype=torch.float64, device=device)
        self.many: list[Tensor] = []
        self.fold = tuple(torch.empty(_WIDEST, dtype=torch.float64, device=device) for _ in range(2))


class Workspace:
    """The buffers of all threads that compute on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers = _Buffers(device)

    @property
    def raw(self) -> tuple[memoryview, memoryview]:
        """Two raw spans of this thread."""
        return self._buffers.raw

    @property
    def base(self) -> Tensor:
        """A float64 span of this thread for the base."""
        return self._buffers.base

    def spans(self, count: int) -> list[Tensor]:
        """Return this many float64 spans of this thread, which share no memory."""
        many = self._buffers.many
        while len(many) < count:
            many.append(torch.empty(_WIDEST, dtype=torch.float64, device=self.device))
        return many[:count]

    def beside(self, taken: Tensor | None) -> Tensor:
        """Return a float64 span of this thread that shares no memory with ``taken``."""
        first, second = self._buffers.fold
        return second if taken is not None and taken.data_ptr() == first.data_ptr() else first


class Vectors:
    """The base and the weighted task vectors of one tensor.

    Args:
        base: The base tensor.
        sources: The tasks' tensors, or factors of their task vectors, with the weight of each task vector.
        workspace: Where spans are computed; used by one thread for one tensor at a time.
        special: Whether the base or a task holds infinities or NaN, which need a closer look.
    """

    def __init__(
        self, base: Decoder, sources: Sequence[tuple[float, Decoder | Factors]], workspace: Workspace, *, special: bool
    ) -> None:
        self._special = special
        self._base = base
        self._sources = sources
        self._workspace = workspace
        self._offset = 0
        self._span = workspace.raw[0][:0]
        self._start = workspace.base[:0]

    def __len__(self) -> int:
        return len(self._sources)

    def spans(self) -> Iterator[Tensor]:
        """Return the base's spans in order, float64 and one-dimensional, each valid until the next."""
        total = self._base.entry.spec.nbytes
        for self._offset in range(0, total, SPAN):
            self._span = self._workspace.raw[0][: min(SPAN, total - self._offset)]
            self._base.read_into(self._span, self._offset)
            self._start = self._widen(self._base, self._span, self._workspace.base)
            yield self._start

    def vector(self, at: int, out: Tensor) -> Tensor:
        """Return the weighted task vector of source ``at`` over the current span, in the memory of ``out``."""
        weight, source = self._sources[at]
        if isinstance(source, Factors):
            vector = source.vector(self._offset // self._base.entry.spec.itemsize, out[: self._start.numel()])
            return vector if weight == 1.0 else vector.mul_(weight)
        raw = self._workspace.raw[1][: len(self._span)]
        source.read_into(raw, self._offset, self._span)
        tuned = self._widen(source, raw, out)
        same = self._unmoved(tuned) if self._special else None
        vector = tuned.sub_(self._start)
        if same is not None:
            self._refuse_moved(vector.masked_fill_(same, 0.0), source)
        return vector if weight == 1.0 else vector.mul_(weight)

    def _unmoved(self, tuned: Tensor) -> Tensor:
        """Return where the task left the base's value, which a difference does not show for infinities and NaN."""
        return (tuned == self._start) | (tuned.isnan() & self._start.isnan())

    @staticmethod
    def _refuse_moved(vector: Tensor, source: Decoder) -> None:
        if not bool(vector.isfinite().all()):
            raise Conflict(
                f"tensor {printable(source.entry.spec.name)}: a task changed a value from or to NaN or infinity, "
                "or by more than float64 holds, which no merge can weigh",
                "leave that task out, or check it out alone",
            )

    @staticmethod
    def _widen(decoder: Decoder, data: memoryview, out: Tensor) -> Tensor:
        numbers = torch.frombuffer(data, dtype=DTYPES[decoder.entry.spec.dtype])
        return out[: numbers.numel()].copy_(numbers)


class Sources:
    """Opens the base and the task vectors of the tensors that one method merges.

    Args:
        reader: Decodes the base and the tasks.
        plan: The part of the merge.
        workspace: Where vectors are computed.
        special: Whether the base or a task holds infinities or NaN.
    """

    def __init__(self, reader: Reader, plan: Part, workspace: Workspace, *, special: bool) -> None:
        self.plan = plan
        self.device = workspace.device
        self.workspace = workspace
        self._reader = reader
        self._special = special

    def changed(self) -> list[TensorPlan]:
        """Return the tensors that are merged, or cast."""
        return [plan for plan in self.plan.tensors if plan.rule not in ("base", "task")]

    def vectors(self, plan: TensorPlan, *, again: bool = False) -> Vectors:
        """Return the base and the weighted task vectors of one tensor; ``again`` if they are read more than once.

        What is read again is decoded once, unless the raw bytes take more than :data:`KEPT`.
        """
        base = self._reader.open(plan.base)
        sources = [(self.plan.weights[at], self._open(source, base)) for at, source in plan.sources]
        if again and kept(plan):
            base = base.kept()
            sources = [(w, one.kept() if isinstance(one, Decoder) else one) for w, one in sources]
        return Vectors(base, sources, self.workspace, special=self._special)

    def factors(self, plan: TensorPlan) -> list[Factors]:
        """Return the weighted task vectors of a tensor that its tasks only update, as the products that they are."""
        opened = (
            (at, Factors.open(self._reader, low, self.device)) for at, low in plan.sources if isinstance(low, LowRank)
        )
        return [Factors(found.left.mul_(self.plan.weights[at]), found.right) for at, found in opened]

    def _open(self, source: Source, base: Decoder) -> Decoder | Factors:
        if isinstance(source, LowRank):
            return Factors.open(self._reader, source, self.device)
        return self._reader.open(source, base=base)


def kept(plan: TensorPlan) -> int:
    """Return the bytes of a tensor and its tasks' that are kept to be read again; 0 if they are too many."""
    held = plan.base.spec.nbytes * (1 + len(plan.sources))
    return held if held <= KEPT else 0


def raw(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes, copied to the CPU if they are elsewhere."""
    array: NDArray[np.uint8] = tensor.reshape(-1).cpu().view(torch.uint8).numpy()
    return array.data
