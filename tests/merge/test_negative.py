"""Elections where coefficients are negative, against numbers worked out one element at a time."""

import math

import numpy as np
import pytest
import torch
from joined import SHAPES, TASKS, flat, join, near

from weightvc.merge.table import create

WEIGHTS = pytest.mark.parametrize(
    "weights", [[-1.0, -1.0, -1.0], [-2.0, -0.5, -1.0], [1.0, -1.0, 0.5], [-0.5, 2.0, -1.0], [0.1, 0.2, -0.3]], ids=str
)


def trimmed(row, density):
    kept = max(1, math.floor(density * len(row)))
    return np.where(np.abs(row) >= np.sort(np.abs(row))[-kept], row, 0)


def rows(density, *, by_tensor):
    """The tasks' vectors, flat and trimmed."""
    if not by_tensor:
        return [trimmed(flat(task), density) for task in TASKS]
    return [np.concatenate([trimmed(task[name].numpy().reshape(-1), density) for name in SHAPES]) for task in TASKS]


def joined(values, weights, aggregate, *, weighted, divisor="count"):
    """One element: the tasks' values, of which those that agree come to the result."""
    products = [weight * value for weight, value in zip(weights, values, strict=True)]
    votes = products if weighted else values
    elected = 1 if sum(votes) >= 0 else -1
    chosen = [at for at, vote in enumerate(votes) if vote * elected > 0]
    if not chosen:
        return 0.0
    if aggregate == "max":
        return max((products[at] for at in chosen), key=abs)
    total = sum(products[at] for at in chosen)
    if aggregate == "sum":
        return total
    by = len(chosen) if divisor == "count" else sum(weights[at] for at in chosen)
    return total / by if abs(by) > 1e-12 else total


def every(vectors, weights, aggregate, **options):
    return np.array([joined(values, weights, aggregate, **options) for values in zip(*vectors, strict=True)])


@WEIGHTS
def test_dare_ties_adds_up_the_products_that_agree(weights):
    found = join(create("dare_ties", {"density": 1}), TASKS, weights)
    near(found, every(rows(1, by_tensor=False), weights, "sum", weighted=True))


@WEIGHTS
@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize("election", ["weighted", "unweighted"])
@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_ties_joins_what_agrees_in_the_election_that_was_held(weights, density, aggregate, election, scope):
    params = {"density": density, "aggregate": aggregate, "election": election, "scope": scope}
    found = join(create("ties", params), TASKS, weights)
    vectors = rows(density, by_tensor=scope == "tensor")
    near(found, every(vectors, weights, aggregate, weighted=election == "weighted"))


@WEIGHTS
@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize(("compat", "divisor"), [("mergekit", "weights"), ("peft", "count")])
def test_ties_as_other_tools_do_it(weights, density, compat, divisor):
    found = join(create("ties", {"density": density, "compat": compat}), TASKS, weights)
    vectors = rows(density, by_tensor=True)
    near(found, every(vectors, weights, "mean", weighted=compat == "mergekit", divisor=divisor))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dare_ties", {}),
        ("ties", {}),
        ("ties", {"election": "weighted"}),
        ("ties", {"aggregate": "max"}),
        ("ties", {"compat": "peft"}),
    ],
)
def test_coefficients_with_the_other_sign_mirror_the_merge(name, params):
    method = create(name, params)
    there, back = (join(method, TASKS, [sign, 0.5 * sign, 2.0 * sign]) for sign in (1.0, -1.0))
    assert any(bool(vector.any()) for vector in there.values())
    assert all(torch.equal(there[key], -back[key]) for key in there)


def test_an_average_by_coefficients_that_are_all_negative_is_that_by_their_magnitudes():
    method = create("ties", {"compat": "mergekit"})
    there, back = (join(method, TASKS, [sign, 0.5 * sign, 2.0 * sign]) for sign in (1.0, -1.0))
    assert all(torch.equal(there[key], back[key]) for key in there)


@pytest.mark.parametrize(
    ("values", "weights", "wanted"),
    [
        ([1.0, -2.0], [1.0, -1.0], 3.0),  # both agree, and 1 - 1 = 0: the sum
        ([1.0, 1.0, -1.0], [0.1, 0.2, -0.3], 0.6),  # 5e-17, and not 0
        ([1.0, -2.0], [3.0, -1.0], 2.5),  # 5 / 2
        ([1.0, -2.0], [1.0, -3.0], -3.5),  # 7 / -2
        ([-1.0, -2.0], [-1.0, -1.0], -1.5),
        ([1.0, 2.0], [1.0, -1.0], 2.0),  # -2 / -1
        ([1e-3, 1e-3], [1e-12, 1e-12], 1e-3),  # small, but of one sign
        ([0.0, 0.0], [1.0, -1.0], 0.0),
    ],
)
def test_what_an_average_divides_by(values, weights, wanted):
    vectors = [{"w": torch.tensor([value], dtype=torch.float64)} for value in values]
    base = {"w": torch.zeros(1, dtype=torch.float64)}
    found = join(create("ties", {"density": 1, "compat": "mergekit"}), vectors, weights, base=base)["w"]
    assert float(found) == pytest.approx(wanted, rel=1e-15)
    assert math.copysign(1, float(found)) == math.copysign(1, wanted)
