"""The stable rule of OPCM, faster: what float32 can do in float32, what it cannot in float64.

Float32 loses in two places. Singular values come from a Gram matrix, which squares their spread: in float32 those below
some 3e-4 of the largest are noise. And the vectors of a float32 ``eigh`` turn by its rounding over the gap between
eigenvalues, which at the split is a thousandth of the largest or less.

So the Gram matrix is float64. Its float32 ``eigh`` decides the split only where its errors cannot change it; small
values are Rayleigh quotients, whose error is the square of the vectors'. One or two Newton steps with residuals in
float64 turn the leading span to where it belongs: those of Ogita and Aishima, "Iterative refinement for symmetric
eigenvalue decomposition", JJIAM 2018, between the two parts of the spectrum alone. Where a step is too large to be
relied on, or the split is close, ``eigh`` is done again in float64.
"""

import torch
from torch import Tensor

from weightvc.merge import linalg

SMALL = 1e-4
"""Eigenvalues below this share of the largest are taken from Rayleigh quotients."""

ERROR = 4e-6
"""Error of an eigenvalue by float32 ``eigh``, as a share of the largest: many times what is seen."""

CLOSE = 3e-6
"""Gap at the split, as a share of the largest eigenvalue, that float32 eigenvalues can tell."""

FAR, NEAR = 5e-2, 3e-3
"""Largest correction of one vector along another that a second step can follow, and that none need follow.

What a step leaves of a correction is some square of it.
"""


def add(state: Tensor, vector: Tensor, alpha: float) -> tuple[Tensor, int]:
    """Do as :func:`weightvc.merge.linalg.add_stable`, with what is taken of D computed in float32.

    Arguments and errors as :func:`weightvc.merge.linalg.add_canonical`.
    """
    C, D = linalg.tall(state, vector)
    top, rest = _refined(C, alpha) or linalg.leading_span(C, alpha)
    W = C @ top
    squares = W.mT @ W
    unit = float(torch.linalg.vector_norm(D)) or 1.0  # so that float32 holds D, whatever its size
    # Columns of norm 1, for the same reason: float32 has no room for the spread of singular values either.
    lengths = squares.diagonal().sqrt()
    U, right = (W / lengths).float(), top.float()
    found = (U.mT @ (torch.div(D, unit).float() @ right)).double() * (unit * lengths[:, None])
    X = torch.cholesky_solve(found, torch.linalg.cholesky(squares))
    share = (float((C * D).sum()) - float((squares * X.mT).sum())) / rest
    X.diagonal().sub_(share)
    taken = U @ (X * (lengths[:, None] / unit)).float()
    D.sub_(taken @ right.mT, alpha=unit)
    vector.add_(state, alpha=1.0 - share)
    return vector, top.shape[1]


def _refined(C: Tensor, alpha: float) -> tuple[Tensor, float] | None:
    """Return what :func:`weightvc.merge.linalg.leading_span` does, by float32; ``None`` where that will not do."""
    half = linalg.gram(C).tril_()
    unit = float(half.diagonal().max())
    G = half.add_(half.tril(-1).mT).div_(unit)
    values, rough = torch.linalg.eigh(G.float())
    squares = values.double()
    small = int((squares < SMALL * squares[-1]).sum())
    squares[:small] = _quotients(G, rough[:, :small].double())
    r = _split_rank(squares.clamp_(min=0.0).sqrt().flip(0).tolist(), alpha)
    if r is None:
        return None
    below, gaps = rough[:, :-r], squares[-r:] - squares[:-r, None]
    if float(gaps.min()) < CLOSE:
        return None
    top, turned = _turn(G, rough[:, -r:].double(), below, gaps)
    if NEAR < turned <= FAR:
        top, turned = _turn(G, top, below, gaps)
    return (top, float(squares[:-r].sum()) * unit) if turned <= NEAR else None


def _turn(G: Tensor, top: Tensor, below: Tensor, gaps: Tensor) -> tuple[Tensor, float]:
    """Return orthonormal columns nearer to the leading span than ``top``, and the largest correction that it took.

    Args:
        G: The symmetric matrix, float64.
        top: Its leading eigenvectors, nearly; float64.
        below: The others, float32: they give the correction its directions, not its digits.
        gaps: What the eigenvalue of each column of ``top`` is above that of each of ``below``.
    """
    moved = G @ top
    residual = moved.addmm(top, top.mT @ moved, alpha=-1.0)
    turn = (below.mT @ residual.float()).double().div_(gaps)
    top = top + (below @ turn.float()).double()
    largest = float(turn.abs().max())
    return 1.5 * top - 0.5 * top @ (top.mT @ top), largest


def _quotients(G: Tensor, vectors: Tensor) -> Tensor:
    """Return the Rayleigh quotients of columns."""
    return (vectors * (G @ vectors)).sum(0) / vectors.square().sum(0)


def _split_rank(s: list[float], alpha: float) -> int | None:
    """Return the split rank, or ``None`` if errors might change it, or if the block is nothing or all there is."""
    error = sum((ERROR * s[0] ** 2 / (2 * value)) ** 2 for value in s if value**2 > SMALL * s[0] ** 2) ** 0.5 / sum(s)
    r, k = linalg.split_rank(s, alpha * (1.0 - error))
    return r if 0 < r < k and r == linalg.split_rank(s, alpha * (1.0 + error))[0] else None
