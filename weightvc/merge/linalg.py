"""The two projections of OPCM, reproducible: float64, by the eigenvectors of a Gram matrix.

Both take an accumulated matrix C and a task vector D, m x n with n <= m (a wide pair goes in transposed), and add to
C what is left of D after parts along C's own singular vectors are removed (OPCM, arXiv 2501.09522, Algorithm 1).
``docs/methods.md`` has the formulas and says what differs from the published code. Only expressions that do not
depend on the signs of singular vectors occur, nor on the choice of a basis inside a null space.

A step stays below seven float64 copies of C, its arguments included, the most being LAPACK's workspace in ``eigh``.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor

from weightvc.util.errors import BadInput

RULES = "gram-eigh-f64/3"
"""Identifier of this arithmetic and of ``factored`` and ``mixed``. Change it with what can move a bit of a result."""

NULL = 1e-6
"""Singular values up to this share of the largest are null: the Gram matrix no longer resolves their vectors."""

SLACK = 1e-9
"""Relative margin of the comparison with alpha, so that rounding does not decide it."""

CLUSTER = 1e-8
"""Neighbouring singular values closer than this share of the largest are never separated."""

TALL = 2
"""Rows a column from which what is taken from a matrix is found by way of C'D."""

SHARP = 1e-3
"""Singular values above this share of the largest have squares, as eigenvalues, that are good to nine digits."""

PANELS = 4
"""Column panels of a Gram matrix: of ten products on and below its diagonal, six are not needed above it."""

ALIGNMENT = 64
"""Bytes at whose multiples torch lets a tensor's memory start."""

TINY = 1e-140
"""Frobenius norm below which squares underflow; such a matrix counts as zero."""


def pin_thread() -> None:
    """Give the calling thread one BLAS and OpenMP thread. Pass it as a thread pool's ``initializer``.

    With more threads ``eigh`` and long sums give other bits. OpenMP and MKL keep the setting for each thread, torch
    a default for threads yet to start: so every worker calls this, inside the main thread's :func:`single_thread`.
    """
    torch.set_num_threads(1)


@contextmanager
def single_thread() -> Iterator[None]:
    """Pin the calling thread as :func:`pin_thread` does, and restore its number of threads at the end."""
    before = torch.get_num_threads()
    pin_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def vanishes(C: Tensor) -> bool:
    """Tell whether C is zero, or so close to it that its Gram matrix is."""
    return float(torch.linalg.vector_norm(C)) < TINY


def gram(C: Tensor) -> Tensor:
    """Return C'C, n x n, on and below the diagonal and somewhat above it; the rest is zero.

    That triangle is all that ``eigh`` reads, and takes 5/8 of the time of the whole.
    """
    n = C.shape[1]
    G = C.new_zeros(n, n)
    width = max(1, -(-n // PANELS))
    for start in range(0, n, width):
        end = min(n, start + width)
        torch.mm(C[:, start:end].mT, C[:, :end], out=G[start:end, :end])
    return G


def spectrum(C: Tensor) -> tuple[list[float], Tensor]:
    """Return the singular values of C, m x n with n <= m, largest first, and its right singular vectors.

    The vectors are the columns of an n x n matrix in the opposite order: that of ``eigh``, smallest first.
    """
    squares, vectors = torch.linalg.eigh(gram(C))
    return squares.clamp_(min=0.0).sqrt_().flip(0).tolist(), vectors


def split_rank(s: Sequence[float], alpha: float) -> tuple[int, int]:
    """Return (r, k): the leading singular values to remove as a block, and those that are not null.

    r counts the leading values whose sum stays within ``alpha`` times the sum of all k, so that the value crossing
    the line is never in the block; it is lowered until it separates no cluster. s: descending, s[0] > 0.
    """
    k = sum(1 for value in s if value > NULL * s[0])
    sums = list(accumulate(s[:k]))
    r = bisect_right(sums, alpha * sums[-1] * (1.0 + SLACK))
    while 0 < r < len(s) and s[r - 1] - s[r] <= CLUSTER * s[0]:
        r -= 1
    return r, k


def tall(state: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as views with at least as many rows as columns, refusing what is not finite."""
    if not math.isfinite(float(torch.linalg.vector_norm(state) + torch.linalg.vector_norm(vector))):
        raise BadInput(
            "a task vector holds NaN, infinite or enormous values, along which nothing can be projected",
            "use --method task_arithmetic, or leave the tensor out of projection with -p other=PATTERNS",
        )
    return (state, vector) if state.shape[0] >= state.shape[1] else (state.mT, vector.mT)


def add_canonical(state: Tensor, vector: Tensor, alpha: float) -> tuple[Tensor, int]:
    """Return C + D - (the leading r x r block and the rest of the diagonal of U'DV, in C = U diag(s) V'), and r.

    Args:
        state: C, float64 and not zero; read only.
        vector: D, of the same shape; overwritten with the result.
        alpha: Share of the sum of singular values that the block covers, in [0, 1).

    Raises:
        BadInput: C or D holds NaN or infinite values.
    """
    C, D = tall(state, vector)
    s, V = spectrum(C)
    r, k = split_rank(s, alpha)
    sharp = sum(1 for value in s[:k] if value > SHARP * s[0]) if C.shape[0] >= TALL * C.shape[1] else 0
    top, faint = V[:, len(s) - r :], V[:, len(s) - k : len(s) - max(r, sharp)]
    if sharp > r:
        squares = C.new_tensor(s[r:sharp]).flip(0).square_()
        D.addmm_(C, _short(C, D, top, V[:, len(s) - sharp : len(s) - r], squares), alpha=-1.0)
    else:
        W, X = _block(C, D, top)
        D.addmm_(W @ X, top.mT, alpha=-1.0)
    W, Y = C @ faint, D @ faint
    # Column i of W is s_i u_i: its measured length is sharper than the square root of an eigenvalue.
    shares = Y.mul_(W).sum(0) / torch.square(W, out=Y).sum(0)
    D.addmm_(W.mul_(shares), faint.mT, alpha=-1.0)
    vector.add_(state)
    return vector, r


def _short(C: Tensor, D: Tensor, top: Tensor, rest: Tensor, squares: Tensor) -> Tensor:
    """Return Q, n x n, such that CQ is what :func:`add_canonical` takes from D along ``top`` and ``rest``.

    By way of C'D two products of the long side are enough, where vector by vector there are six.

    Args:
        C: m x n.
        D: m x n.
        top: Right singular vectors of the leading block, n x r.
        rest: Others, n x j.
        squares: The squared singular values of ``rest``.
    """
    M = C.mT @ D
    W = C @ top
    X = torch.cholesky_solve(top.mT @ (M @ top), torch.linalg.cholesky(W.mT @ W))
    shares = (M @ rest).mul_(rest).sum(0) / squares
    Q: Tensor = (rest * shares) @ rest.mT
    return Q.addmm_(top @ X, top.mT)


def add_stable(state: Tensor, vector: Tensor, alpha: float) -> tuple[Tensor, int]:
    """Return C + D - (the leading r x r block of U'DV) - (D's component along C without its top r), and r.

    Unlike the canonical rule this depends on the span of the top r vectors only, not on each vector, so rounding is
    not amplified from task to task. The inner product of C with what is added to it is zero under both.
    Arguments and errors as :func:`add_canonical`.
    """
    C, D = tall(state, vector)
    top, rest = leading_span(C, alpha)
    W, X = _block(C, D, top)
    # <C, block> is the trace of W'W X, so the numerator is the inner product of C with what the block leaves of D.
    share = (float((C * D).sum()) - float(((W.mT @ W) * X.mT).sum())) / rest
    X.diagonal().sub_(share)
    D.addmm_(W @ X, top.mT, alpha=-1.0)
    vector.add_(state, alpha=1.0 - share)
    return vector, top.shape[1]


def leading_span(C: Tensor, alpha: float) -> tuple[Tensor, float]:
    """Return the right singular vectors of C's leading block, and the sum of squares of its other singular values.

    That sum is infinite where there is no other that is not null: nothing is along it.
    """
    s, V = spectrum(C)
    r, k = split_rank(s, alpha)
    return V[:, len(s) - r :], math.fsum(value * value for value in s[r:]) if r < k else math.inf


def aligned(matrix: Tensor) -> Tensor:
    """Return the matrix, or a copy of it that starts where torch itself lets memory start.

    Products give other bits for memory that starts elsewhere, on some processors.
    """
    return matrix if matrix.data_ptr() % ALIGNMENT == 0 else matrix.clone()


def leading(D: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ``rank`` leading singular triples of D, less null ones: U, s and V, with vectors in columns.

    Raises:
        BadInput: D holds NaN or infinite values.
    """
    X, _ = tall(D, D)
    s, V = spectrum(X)
    count = min(rank, sum(1 for value in s if value > NULL * s[0]))
    right = V[:, len(s) - count :].flip(1)
    left = X @ right
    values = torch.linalg.vector_norm(left, dim=0)
    left /= values
    return (left, values, right) if X is D else (right, values, left)


def polar(X: Tensor) -> Tensor:
    """Return X(X'X)^(-1/2), m x n with n <= m: the nearest matrix with orthonormal columns.

    Directions in which the columns of X depend on each other, up to :data:`NULL`, are left out: no basis for them
    could be chosen that does not depend on the library.
    """
    squares, vectors = torch.linalg.eigh(gram(X))
    kept = squares > NULL**2 * squares[-1]
    vectors = vectors[:, kept]
    nearest: Tensor = X @ ((vectors / squares[kept].sqrt()) @ vectors.mT)
    return nearest


def _block(C: Tensor, D: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Return W = C top (m x r) and X (r x r) such that W X top' is the part of D between the spans of W and top.

    The projector on the span of W is W (W'W)^-1 W'. W'W is diagonal but for rounding; solving with it instead of
    dividing by the eigenvalues keeps that rounding out of the result.
    """
    W = C @ top
    return W, torch.cholesky_solve(W.mT @ (D @ top), torch.linalg.cholesky(W.mT @ W))
