"""Forecast: about how long a plan will take, from what this machine does in a fraction of a second.

One thread decodes a small delta, multiplies and decomposes small matrices, and merges some numbers by each method that
looks at all tasks at once. The rest is counted: bytes that are read and written in each pass, m·n² for each product and
n³ for each decomposition of a matrix of m rows and n columns. What other programs do, a slow disk, and how the
machine's caches take matrices of other sizes is not known: it is an estimate.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType

import numpy as np
import torch

from weightvc.delta import encoding
from weightvc.delta.codec import CHUNK
from weightvc.merge import linalg
from weightvc.merge.joint import Joint, Piece, Task
from weightvc.merge.method import Fold
from weightvc.objects.tensors import TensorHasher, TensorSpec
from weightvc.repo.plan import Plan, TensorPlan

PRODUCTS = 4
"""Products of a matrix that one step of a method makes, besides its decomposition."""

_ROWS, _COLUMNS = 1024, 256
_ELEMENTS = 2**18
_STATE = 8
"""Bytes of an element of a state."""
_TRIES = 3


@dataclass(frozen=True)
class Speed:
    """What one thread does in a second: bytes streamed, m·n² of products, n³ of decompositions."""

    streamed: float
    product: float
    decomposition: float


def calibrate(device: str) -> Speed:
    """Measure this machine, in well under a second, and the device that matrices are computed on."""
    generator = torch.Generator().manual_seed(0)
    tall = torch.randn(_ROWS, _COLUMNS, generator=generator, dtype=torch.float64).to(device)
    square = tall.mT @ tall
    with linalg.single_thread():
        return Speed(
            streamed=CHUNK / _fastest(_stream()),
            product=_ROWS * _COLUMNS**2 / _fastest(lambda: float((tall.mT @ tall)[0, 0])),
            decomposition=_COLUMNS**3 / _fastest(lambda: float(torch.linalg.eigh(square)[0][0])),
        )


def seconds(
    plan: Plan, tasks: Sequence[Task], speed: Speed, jobs: int, held: Mapping[TensorPlan, int] = MappingProxyType({})
) -> float:
    """Return about how long a plan takes with so many threads.

    Args:
        plan: The merge.
        tasks: The tasks of the merge, by position.
        speed: What :func:`calibrate` measured.
        jobs: Threads.
        held: With how many tasks the merge of a tensor begins from a state of them.
    """
    merged = {tensor.names for part in plan.parts for tensor in part.tensors}
    work = [_work(tensor, None, speed, 0) for tensor in plan.tensors if tensor.names not in merged]
    for part in plan.parts:
        rate = _joining(part.method, tasks) if isinstance(part.method, Joint) and any(map(_moves, part.tensors)) else 0
        work += [_work(tensor, part.method, speed, held.get(tensor, 0)) for tensor in part.tensors]
        work += [rate * tensor.spec.elements * len(tensor.sources) for tensor in filter(_moves, part.tensors)]
    heads = sum(entry.spec.nbytes for entries in plan.heads.values() for entry in entries)
    return (math.fsum(work) + heads / speed.streamed) / min(jobs, os.cpu_count() or 1)


def _moves(tensor: TensorPlan) -> bool:
    """Tell whether a tensor is merged element by element from tasks that move it."""
    return tensor.rule == "elementwise" and bool(tensor.sources)


def _joining(method: Joint, tasks: Sequence[Task]) -> float:
    """Return the seconds that a method takes for each element of each task, all its passes together."""
    spec = TensorSpec("calibration", "F32", (1, _ELEMENTS // len(tasks)))
    generator = torch.Generator().manual_seed(0)
    base, *vectors = torch.randn(1 + len(tasks), spec.elements, generator=generator, dtype=torch.float64)

    def piece() -> Piece:
        return Piece(spec, 0, base, {at: vector.clone() for at, vector in enumerate(vectors)})

    def once() -> None:
        known = method.begin(tasks, [spec])
        for _ in range(method.passes):
            known = method.combine({spec.name: method.observe(piece(), known)}, known)
        method.merge(piece(), known)

    with linalg.single_thread():
        return _fastest(once) / (spec.elements * len(tasks))


def passes(tensor: TensorPlan, method: Fold | Joint | None) -> int:
    """Return how often a tensor's base and sources are read."""
    if method is None or tensor.rule in ("base", "task") or not tensor.sources:
        return 1
    if isinstance(method, Joint):
        return method.passes + 1
    return 2 if method.scaled and tensor.rule == "elementwise" else 1


def _work(tensor: TensorPlan, method: Fold | Joint | None, speed: Speed, held: int) -> float:
    """Return the seconds that one thread needs for one tensor."""
    if tensor.rule == "factored":
        return _factored(tensor, speed)
    read = tensor.spec.nbytes * (1 + len(tensor.sources) - held) * passes(tensor, method)
    read += tensor.spec.elements * _STATE if held else 0
    streamed = (read + tensor.spec.nbytes * len(tensor.names)) / speed.streamed
    steps = {"projected": len(tensor.sources) - max(1, held), "joined": len(tensor.sources) + 2}.get(tensor.rule, 0)
    if steps <= 0:
        return streamed
    n, m = sorted(tensor.base.spec.shape)
    return streamed + steps * (PRODUCTS * m * n**2 / speed.product + n**3 / speed.decomposition)


def _factored(tensor: TensorPlan, speed: Speed) -> float:
    """Return the same for a tensor whose tasks are adapters: two QR decompositions, steps on cores, one product."""
    n, m = sorted(tensor.base.spec.shape)
    rank = tensor.rank
    bases, product = PRODUCTS * (m + n) * rank**2, m * n * rank
    steps = (len(tensor.sources) - 1) * rank**3 / speed.decomposition
    return 2 * tensor.spec.nbytes / speed.streamed + (bases + product) / speed.product + steps


def _stream() -> Callable[[], object]:
    """Return what decodes a chunk of a delta, takes its difference from the base, and hashes the result."""
    spec = TensorSpec("calibration", "F32", (CHUNK // 4,))
    draw = np.random.default_rng(0)
    base = draw.standard_normal(spec.shape, np.float32)
    tuned = base + np.float32(0.01) * draw.standard_normal(spec.shape, np.float32)
    data = b"".join(encoding.encode(spec, tuned.data, base.data))
    encoded = encoding.Encoded.parse(memoryview(data), "calibration")
    out = np.empty_like(base)

    def once() -> None:
        encoded.decode_into(out.data, base.data)
        moved = torch.from_numpy(out).double().sub_(torch.from_numpy(base).double())
        hasher = TensorHasher(spec.dtype, spec.shape)
        hasher.update(moved.float().view(torch.uint8).numpy().data)

    return once


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few runs: the others were disturbed."""
    times = []
    for _ in range(_TRIES):
        begun = perf_counter()
        work()
        times.append(perf_counter() - begun)
    return min(times)
