"""OPCM as published, model by model, to compare with: the loop of arXiv 2501.09522, Algorithm 1.

It carries the scaled merge from task to task and decomposes it anew for each of them, with full matrices, in the
precision of the models that it is given: float32, as the published code does, or float64 to know what is right.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Model: TypeAlias = Mapping[str, Tensor]
Clean: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
"""(accumulated sum, task vector, alpha) → what is left of the task vector."""


def _split(s: Tensor, alpha: float) -> int:
    """Return how many leading singular values stay before the first whose cumulative share exceeds ``alpha``."""
    return int((s.cumsum(0) / s.sum() > alpha).int().argmax())


def clean(held: Tensor, delta: Tensor, alpha: float) -> Tensor:
    """Return ``delta`` without its leading block and its diagonal, in full singular bases of ``held``."""
    U, s, Vh = torch.linalg.svd(held, full_matrices=True)
    turned = U.mT @ delta @ Vh.mT
    r = _split(s, alpha)
    turned.diagonal().zero_()
    turned[:r, :r] = 0
    return U @ turned @ Vh


def clean_stable(held: Tensor, delta: Tensor, alpha: float) -> Tensor:
    """Return ``delta`` without its leading block and its component along what ``held`` has beyond it."""
    U, s, Vh = torch.linalg.svd(held, full_matrices=False)
    r = _split(s, alpha)
    block = U[:, :r] @ (U[:, :r].mT @ delta @ Vh[:r].mT) @ Vh[:r]
    tail = (U[:, r:] * s[r:]) @ Vh[r:]
    return delta - block - (tail * delta).sum() / tail.square().sum() * tail


def _norm(model: Model, base: Model) -> float:
    return math.sqrt(math.fsum(float(torch.linalg.vector_norm(model[name] - base[name])) ** 2 for name in base))


def merge(base: Model, tasks: Sequence[Model], alpha: float, how: Clean = clean) -> dict[str, Tensor]:
    """Return the merge of ``tasks``, every tensor of which is a matrix to project, in their own precision."""
    merged, scale, norms = dict(tasks[0]), 1.0, [_norm(tasks[0], base)]
    for task in tasks[1:]:
        norms.append(_norm(task, base))
        for name, start in base.items():
            held = merged[name] - start
            merged[name] = start + scale * held + how(held, task[name] - start, alpha)
        scale = _norm(merged, base) * len(norms) / math.fsum(norms)
        merged = {name: start + (merged[name] - start) / scale for name, start in base.items()}
    return merged
