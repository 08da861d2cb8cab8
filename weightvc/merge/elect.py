"""The second half of TIES: a sign for each weight, and the task vectors that agree with it.

Reference: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, arXiv 2306.01708.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

AGGREGATES = ("mean", "sum", "max")
ELECTIONS = ("unweighted", "weighted")


def signs(vectors: Mapping[int, Tensor], weights: Sequence[float], *, weighted: bool) -> Tensor:
    """Return the sign of the sum of all task vectors: -1, 0 or 1."""
    total = torch.zeros_like(next(iter(vectors.values())))
    for at in sorted(vectors):
        total.add_(vectors[at], alpha=weights[at] if weighted else 1.0)
    return total.sign_()


def aggregate(
    vectors: Mapping[int, Tensor], weights: Sequence[float], elected: Tensor, how: str, divisor: str = "weights"
) -> Tensor:
    """Return what the task vectors that have the elected sign come to, element by element.

    Args:
        vectors: Task vectors, by position.
        weights: The coefficients of all tasks.
        elected: The sign of each element, 1 or -1.
        how: ``mean``, ``sum``, or ``max`` for the one of largest weighted magnitude.
        divisor: What a mean divides by: the ``weights`` that agree, or their ``count``.
    """
    total, share = torch.zeros_like(elected), torch.zeros_like(elected)
    some = torch.empty_like(elected)
    for at in sorted(vectors):
        part = (vectors[at] * elected).clamp_min_(0.0)  # the magnitude of what agrees; masks are slower than products
        torch.gt(part, 0.0, out=some)
        part.mul_(elected)
        if weights[at] != 1:
            part.mul_(weights[at])
        if how == "max":
            total = torch.where(part.abs() > total.abs(), part, total)
            continue
        total.add_(part)
        share.add_(some, alpha=weights[at] if divisor == "weights" else 1.0)
    if how != "mean":
        return total
    torch.eq(share, 0.0, out=some)
    return total.mul_(1.0 - some).add_(0.0).div_(share.add_(some))
