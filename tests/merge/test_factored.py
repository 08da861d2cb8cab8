"""Folds in the bases of narrow factors, against folds of the matrices and against the paper's own decompositions."""

import math

import numpy as np
import pytest
import torch

from weightvc.merge import factored, linalg
from weightvc.merge.joint import Joint
from weightvc.merge.table import METHODS, create
from weightvc.util.errors import BadInput

BOTH = pytest.mark.parametrize("name", ["opcm", "opcm-s"])
SHAPES = pytest.mark.parametrize("shape", [(48, 48), (70, 40), (40, 70)], ids=["square", "tall", "wide"])
FIVE = {"equal": (4, 4, 4, 4, 4), "different": (1, 7, 2, 6, 4)}
NEAR = {"opcm": 1e-9, "opcm-s": 1e-12}


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def narrow(shape, ranks, seed=0):
    """Factors of a task vector for each rank."""
    rows, columns = shape
    return [
        (normal(rows, rank, seed=seed + 10 * at), 0.1 * normal(rank, columns, seed=seed + 10 * at + 1))
        for at, rank in enumerate(ranks)
    ]


def multiplied(method, factors):
    """The fold of the matrices themselves: the sum, the task vectors' squares, and the split ranks."""
    state, ranks, squares = None, [], []
    for left, right in factors:
        vector = left @ right
        squares.append(float(vector.square().sum()))
        state, rank = method.step(state, vector, project=True)
        ranks += [] if rank is None else [rank]
    return state, squares, ranks


def published(factors, alpha, *, stable):
    """Algorithm 1 of the paper on the unscaled sum, or the stable rule, by full decompositions in float64."""
    total = factors[0][0] @ factors[0][1]
    for left, right in factors[1:]:
        U, s, Vh = torch.linalg.svd(total)
        k = int((s > linalg.NULL * s[0]).sum())
        r = int((s[:k].cumsum(0) / s[:k].sum() > alpha).double().argmax())
        P = U.mT @ left @ right @ Vh.mT
        tail = P.diagonal()[r:k].clone()
        P[:r, :r] = 0
        share = (tail * s[r:k]).sum() / s[r:k].square().sum()
        P.diagonal()[r:k] -= share * s[r:k] if stable else tail
        total = total + U @ P @ Vh
    return total


@BOTH
@SHAPES
@pytest.mark.parametrize("ranks", FIVE)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_five_tasks_are_those_of_the_matrices_and_of_the_paper(name, shape, ranks, alpha, apart):
    method, factors = create(name, {"alpha": alpha}), narrow(shape, FIVE[ranks])
    total, squares, split = multiplied(method, factors)

    found = factored.fold(method, factors)

    assert apart(found.left @ found.right, total) < NEAR[name]
    assert apart(found.left @ found.right, published(factors, alpha, stable=name == "opcm-s")) < NEAR[name]
    assert found.squares == pytest.approx(squares, rel=1e-13)
    assert found.merged == pytest.approx(float(total.square().sum()), rel=NEAR[name])
    assert list(found.ranks) == split
    assert (max(split) > 0) == (alpha > 0)
    assert (found.left.shape[1], found.right.shape[0]) == (20, 20)


@BOTH
def test_coefficients_of_any_sign(name, apart):
    method = create(name, {})
    weights = zip([-1, 0.3, 7], narrow((30, 30), (4, 3, 5)), strict=True)
    factors = [(weight * left, right) for weight, (left, right) in weights]

    found = factored.fold(method, factors)

    assert apart(found.left @ found.right, multiplied(method, factors)[0]) < NEAR[name]


def equal(factors):
    """A task twice."""
    return [*factors, factors[0]]


def shared(factors):
    """A task whose left factor is another's, one whose left factor is part of two others' sum, and one in reverse."""
    (a, x), (b, y), (c, z) = factors
    return [*factors, (a, normal(*x.shape, seed=90)), (a[:, :2] + b[:, :2], y[:2]), (c.flip(1), z)]


def deficient(factors):
    """A task two of whose columns are one, and one that is numerically of rank one."""
    (a, x), *rest = factors
    b, y = a.clone(), x.clone()
    b[:, 1] = b[:, 0]
    return [(b, x), *rest, (a[:, :1].expand(-1, 3) * (1 + 1e-15 * normal(len(a), 3, seed=91)), y[:3])]


def zero(factors):
    """A task that moves nothing, first, in between and last."""
    nothing = (torch.zeros_like(factors[0][0]), factors[0][1])
    return [nothing, factors[0], nothing, *factors[1:], nothing]


def tiny(factors):
    """A task that vanishes beside the others, and one of factors very unequal in size."""
    (a, x), *rest = factors
    return [*rest, (1e-30 * a, x), (1e60 * a, 1e-60 * x)]


@BOTH
@SHAPES
@pytest.mark.parametrize("kind", [equal, shared, deficient, zero, tiny])
def test_factors_that_depend_on_each_other(name, shape, kind, apart):
    method, factors = create(name, {}), kind(narrow(shape, (4, 3, 5)))
    total, squares, split = multiplied(method, factors)

    found = factored.fold(method, factors)

    assert apart(found.left @ found.right, total) < NEAR[name]
    assert found.squares == pytest.approx(squares, rel=1e-12)
    assert list(found.ranks) == split


@BOTH
@pytest.mark.parametrize("shape", [(9, 30), (30, 9), (6, 6)])
def test_ranks_that_add_up_to_more_than_the_matrix_has(name, shape, apart):
    method, factors = create(name, {}), narrow(shape, (4, 4, 4, 4))

    found = factored.fold(method, factors)

    assert apart(found.left @ found.right, multiplied(method, factors)[0]) < NEAR[name]
    assert found.left.shape[1] == found.right.shape[0] == min(shape[1], 16)


@BOTH
def test_one_task_is_itself(name, apart):
    (pair,) = narrow((20, 30), (3,))

    found = factored.fold(create(name, {}), [pair])

    assert apart(found.left @ found.right, pair[0] @ pair[1]) < 1e-14
    assert found.ranks == ()


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_what_is_not_finite_is_refused(name, bad):
    factors = narrow((20, 30), (3, 3))
    factors[0][0][1, 1] = bad

    with pytest.raises(BadInput, match="NaN, infinite or enormous values"):
        factored.fold(create(name, {}), factors)


# what a method that rotates promises


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_rotate_do(name, apart):
    method = create(name, {})
    if isinstance(method, Joint) or not method.rotates:
        return
    P, Q = (torch.linalg.qr(normal(rows, 7, seed=rows))[0] for rows in (19, 30))
    S, D = normal(7, 7, seed=1), normal(7, 7, seed=2)

    small = method.step(S.clone(), D.clone(), project=True)
    large = method.step(P @ S @ Q.mT, P @ D @ Q.mT, project=True)

    assert apart(P @ small.state @ Q.mT, large.state) < 1e-12
    assert small.rank == large.rank
    assert small.rank is not None


# the library that decomposes


def gram_schmidt(matrix):
    """Orthonormal columns by projection, twice, and not by reflections; null columns get a random direction."""
    Q, R = torch.zeros_like(matrix), torch.zeros(matrix.shape[1], matrix.shape[1], dtype=matrix.dtype)
    for at, column in enumerate(matrix.unbind(1)):
        left, size = column.clone(), float(column.norm())
        for _ in range(2):
            R[:, at] += Q.mT @ left
            left = column - Q @ R[:, at]
        R[at, at] = left.norm()
        if R[at, at] <= 1e-13 * size or not size:
            left, R[at, at] = normal(len(column), seed=at), 0.0
            left -= Q @ (Q.mT @ left)
            left -= Q @ (Q.mT @ left)
        Q[:, at] = left / left.norm()
    return Q, R


def flipped(matrix):
    signs = torch.sign(normal(matrix.shape[1], seed=5))
    Q, R = QR(matrix)
    return Q * signs, signs[:, None] * R


def numpy_qr(matrix):
    return tuple(map(torch.from_numpy, np.linalg.qr(matrix.numpy())))


def numpy_eigh(matrix):
    return tuple(map(torch.from_numpy, np.linalg.eigh(matrix.numpy())))


def by_svd(matrix):
    """The eigenvectors of a Gram matrix by its singular value decomposition, of which they are a case."""
    U, s, _ = torch.linalg.svd(matrix.tril() + matrix.tril(-1).mT)  # eigh reads the lower triangle only
    return s.flip(0), U.flip(1)


QR = torch.linalg.qr


@pytest.fixture(params=[(QR, numpy_eigh), (flipped, by_svd), (gram_schmidt, by_svd), (numpy_qr, numpy_eigh)])
def another_library(request, monkeypatch):
    def change():
        monkeypatch.setattr(torch.linalg, "qr", request.param[0])
        monkeypatch.setattr(torch.linalg, "eigh", request.param[1])

    return change


@BOTH
@SHAPES
@pytest.mark.parametrize("kind", [list, equal, deficient, shared])
def test_the_library_that_decomposes_changes_rounding_only(name, shape, kind, another_library, apart):
    method, factors = create(name, {}), kind(narrow(shape, (4, 4, 4)))
    wanted = factored.fold(method, factors)
    another_library()

    found = factored.fold(method, factors)

    assert found.ranks == wanted.ranks
    assert 0 < apart(found.left @ found.right, wanted.left @ wanted.right) < NEAR[name]
