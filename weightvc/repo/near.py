"""How near a checkout is to a replay in another environment, where no bytes are promised."""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from weightvc.checkpoint.files import map_file
from weightvc.checkpoint.header import parse_header
from weightvc.objects.lock import TensorLine
from weightvc.repo.build import Builder
from weightvc.repo.factors import DTYPES
from weightvc.util.progress import Progress


def far(
    builder: Builder, directory: Path, lines: Iterable[TensorLine], tolerance: float, progress: Progress
) -> list[TensorLine]:
    """Return the tensors of a checkout that differ from a replay by more than arithmetic elsewhere can.

    A tensor is near if its values are those of the replay but for one unit in the last place each, which rounding
    explains, and for a rest whose norm is at most ``tolerance`` times that of the merged task vector.

    Args:
        builder: Replays the checkout's recipe.
        directory: The checkout, whose files are as locked.
        lines: Tensors whose bytes differ.
        tolerance: From :func:`weightvc.merge.table.tolerance`.
        progress: Told of bytes done.
    """
    plans = {name: plan for plan in builder.plan.tensors for name in plan.names}
    found = []
    with builder.materializer(builder.plan) as work:
        work.prepare(progress)
        for line in lines:
            plan = plans.get(line.name)
            if plan is None or plan.rule in ("base", "task"):
                found.append(line)
                continue
            excess = moved = 0.0
            data = _stored(directory, line)
            for (offset, span), (_, start) in zip(work.spans(plan), builder.base_spans(plan), strict=True):
                one, other = (_wide(part, plan.spec.dtype) for part in (data[offset : offset + len(span)], span))
                excess += _beyond_rounding(one, other, DTYPES[plan.spec.dtype])
                moved += _moved(other, _wide(start, plan.base.spec.dtype))
            if not math.sqrt(excess) <= tolerance * math.sqrt(moved):
                found.append(line)
    return found


def _stored(directory: Path, line: TensorLine) -> memoryview:
    data = map_file(directory / line.file)
    slot = parse_header(data, line.file, file_size=len(data)).tensors[line.name]
    return data[slot.start : slot.end]


def _wide(data: memoryview, dtype: str) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).double()


def _beyond_rounding(one: Tensor, other: Tensor, dtype: torch.dtype) -> float:
    """Return the squared norm of the difference less one unit in the last place of ``dtype`` an element."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(other)
    unit = torch.ldexp(torch.full_like(other, info.eps), exponent - 1).clamp_(min=info.tiny * info.eps)
    same = (one == other) | (one.isnan() & other.isnan())
    return float((one - other).abs_().sub_(unit).clamp_(min=0.0).masked_fill_(same, 0.0).square().sum())


def _moved(merged: Tensor, base: Tensor) -> float:
    vector = merged - base
    return float(vector.masked_fill_(~vector.isfinite(), 0.0).square().sum())
