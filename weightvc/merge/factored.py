"""Folds of task vectors that are products of narrow matrices, in the bases that those span.

With the left factors of all tasks side by side as P X and the transposed right ones as Q Y, where P and Q have
orthonormal columns, the task vector L_t R_t is P M_t Q', and M_t = X_t Y_t' is as small as the ranks add up to. A step
that rotates (:attr:`weightvc.merge.method.Fold.rotates`) takes these cores for the matrices that they stand for.

P and Q come from Householder reflections, whose columns are orthonormal to rounding whatever the factors: a task that
spans nothing new gives directions in which all cores are zero, up to rounding, and any such directions will do. X and
Y are triangular, so the cores of the first tasks stay as small as their own ranks.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from weightvc.merge.method import Fold


class Product(NamedTuple):
    """A fold's result, ``left @ right``, never multiplied out.

    Attributes:
        left: m x k, float64, with k the sum of the ranks, or n if that is less.
        right: k x n, its rows orthonormal.
        squares: For each task, the squared Frobenius norm of its vector.
        merged: That of the product.
        ranks: The split ranks that the steps decided.
    """

    left: Tensor
    right: Tensor
    squares: tuple[float, ...]
    merged: float
    ranks: tuple[int, ...]


def fold(method: Fold, factors: Sequence[tuple[Tensor, Tensor]]) -> Product:
    """Fold the task vectors L_t R_t, in order.

    Args:
        method: One that rotates.
        factors: For each task L (m x r) and R (r x n), float64, the coefficient in one of them; at least one pair.

    Raises:
        BadInput: a product holds NaN or infinite values.
    """
    P, X = torch.linalg.qr(torch.cat([left for left, _ in factors], dim=1))
    Q, Y = torch.linalg.qr(torch.cat([right for _, right in factors]).mT)
    cores = _cores(X, Y, [left.shape[1] for left, _ in factors])
    first = next(cores)
    squares, ranks = [_square(first)], []
    state, _ = method.step(None, first, project=True)
    for core in cores:
        squares.append(_square(core))
        more_rows, more_columns = (wide - narrow for wide, narrow in zip(core.shape, state.shape, strict=True))
        state, rank = method.step(pad(state, (0, more_columns, 0, more_rows)), core, project=True)
        ranks += [] if rank is None else [rank]
    return Product(P @ state, Q.mT, tuple(squares), _square(state), tuple(ranks))


def _cores(X: Tensor, Y: Tensor, widths: Iterable[int]) -> Iterator[Tensor]:
    """Return each task's core, in the directions of its own factors and of those before it."""
    end = 0
    for width in widths:
        begin, end = end, end + width
        yield X[:end, begin:end] @ Y[:end, begin:end].mT


def _square(core: Tensor) -> float:
    return float(core.square().sum())
