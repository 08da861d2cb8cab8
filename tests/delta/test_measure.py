"""Moments of two arrays: real values, exact addition, and values that cannot be summed."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from weightvc.delta.measure import Moments


def of(a, b):
    return Moments.of(np.array(a, np.float64), np.array(b, np.float64))


def test_small_numbers_by_hand():
    moments = of([3, 0, -1, 2], [4, 5, 1, 2])
    assert moments == Moments(Fraction(14), Fraction(46), Fraction(15), conflicts=1, changed=3, elements=4)
    assert moments.norm_a == math.sqrt(14)
    assert moments.norm_b == math.sqrt(46)
    assert moments.cosine == pytest.approx(15 / math.sqrt(14 * 46), rel=1e-15)
    assert moments.sign_conflict == 0.25


def test_nothing_has_no_direction():
    assert Moments().cosine is None
    assert Moments().norm_a == 0
    assert Moments().sign_conflict == 0
    assert of([0, 0], [1, 2]).cosine is None
    assert of([1, 2], [0, 0]).cosine is None


def test_signed_zeros_neither_conflict_nor_differ():
    moments = of([0.0, -0.0, -0.0, 1.0], [-0.0, 0.0, 5.0, -0.0])
    assert (moments.conflicts, moments.changed) == (0, 2)


def test_tiny_values_conflict_although_their_product_is_zero():
    assert of([1e-300], [-1e-300]).conflicts == 1


def test_parallel_arrays_have_cosine_exactly_within_one():
    a = np.random.default_rng(0).standard_normal(999)
    assert Moments.of(a, a * 3).cosine == pytest.approx(1)
    assert abs(Moments.of(a, -a).cosine) <= 1


def test_the_order_of_spans_does_not_matter():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((4, 1000)) * np.array([[1e-9], [1], [1e9], [1e-200]]) for _ in range(2))
    spans = [Moments.of(x, y) for x, y in zip(a, b, strict=True)]
    totals = {sum(order, Moments()) for order in itertools.permutations(spans)}
    totals.add((spans[0] + spans[1]) + (spans[2] + spans[3]))
    (total,) = totals
    assert total.elements == 4000
    assert float(total.dot) == pytest.approx(math.fsum((a * b).ravel()), rel=1e-13)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_values_that_cannot_be_squared_leave_the_sums_unknown(bad):
    moments = of([1, bad], [1, 2]) + of([1], [-1])
    assert moments.squares_a is None
    assert moments.norm_a is None
    assert moments.norm_b == math.sqrt(6)
    assert moments.cosine is None
    assert (moments.conflicts, moments.elements) == (1 + (bad < 0), 3)
    assert (moments + Moments()) == (Moments() + moments) == moments
    assert of([1], [bad]).norm_b is None
    assert of([1], [bad]).cosine is None


def test_sums_that_only_the_product_overflows():
    moments = of([1e140, 1e-20], [1e-20, 1e140])
    assert moments.cosine == pytest.approx(2e-160)
    assert of([1.0, math.nan], [0.0, math.nan]).changed == 2


def test_an_unknown_product_alone_hides_the_cosine():
    assert Moments(Fraction(1), Fraction(1), None, 0, 0, 1).cosine is None
