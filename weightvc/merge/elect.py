"""The second half of TIES: a sign for each weight, and the task vectors that agree with it.

Reference: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, arXiv 2306.01708.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

AGGREGATES = ("mean", "sum", "max")
ELECTIONS = ("unweighted", "weighted")

CANCELLED = 1e-8
"""Share of their magnitudes' sum up to which coefficients add up to nothing: by nothing, a sum is not divided."""


def signs(vectors: Mapping[int, Tensor], weights: Sequence[float], *, weighted: bool) -> Tensor:
    """Return the sign of the sum of all task vectors: -1, 0 or 1."""
    total = torch.zeros_like(next(iter(vectors.values())))
    for at in sorted(vectors):
        total.add_(vectors[at], alpha=weights[at] if weighted else 1.0)
    return total.sign_()


def aggregate(
    vectors: Mapping[int, Tensor],
    weights: Sequence[float],
    elected: Tensor,
    how: str,
    *,
    weighted: bool,
    divisor: str = "count",
) -> Tensor:
    """Return what the weighted task vectors that agree with the elected sign come to, element by element.

    Args:
        vectors: Task vectors, by position.
        weights: The coefficients of all tasks.
        elected: The sign of each element, 1 or -1.
        how: ``mean``, ``sum``, or ``max`` for the one of largest weighted magnitude.
        weighted: As in :func:`signs`: whether a weighted task vector must have the elected sign, or the vector itself.
        divisor: What a mean divides by: the sum of the ``weights`` that agree, or their ``count``.
    """
    total, share = torch.zeros_like(elected), torch.zeros_like(elected)
    some, size = torch.empty_like(elected), torch.zeros_like(elected)
    mixed = divisor == "weights" and min(weights[at] for at in vectors) < 0 < max(weights[at] for at in vectors)
    for at in sorted(vectors):
        wanted = elected.neg() if weighted and weights[at] < 0 else elected
        part = (vectors[at] * wanted).clamp_min_(0.0)  # the magnitude of what agrees; masks are slower than products
        torch.gt(part, 0.0, out=some)
        part.mul_(wanted)
        if weights[at] != 1:
            part.mul_(weights[at])
        if how == "max":
            total = torch.where(part.abs() > total.abs(), part, total)
            continue
        total.add_(part)
        share.add_(some, alpha=weights[at] if divisor == "weights" else 1.0)
        if mixed:
            size.add_(some, alpha=abs(weights[at]))
    if how != "mean":
        return total
    torch.le(share.abs(), size.mul_(CANCELLED), out=some)
    return total.div_(share.mul_(1.0 - some).add_(some))
