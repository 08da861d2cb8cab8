"""Laws that hold for every fold of the table, and the linear methods against numbers worked out by hand."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch

from weightvc.merge.joint import Joint
from weightvc.merge.method import add
from weightvc.merge.table import METHODS, create
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Conflict, UsageError

FOLDS = [name for name in METHODS if not isinstance(create(name, {}), Joint)]
ALL = pytest.mark.parametrize("name", FOLDS)
SHAPES = [(6, 6), (9, 4), (7,), (), (0, 3), (1, 5), (2, 3, 2)]
EACH = pytest.mark.parametrize("shape", SHAPES, ids=str)


def vector(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fold(method, vectors):
    state = None
    for item in vectors:
        project = method.projects(TensorSpec("fc.weight", "F32", tuple(item.shape)))
        state = method.step(state, item.clone(), project=project).state
    return state


@ALL
def test_frozen_and_hashable(name):
    method = create(name, {})
    assert method.name == name
    assert method == create(name, {})
    assert hash(method) == hash(create(name, {}))
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        method.alpha = 2


@ALL
@EACH
def test_one_vector_at_coefficient_one_is_itself(name, shape):
    method, one = create(name, {}), vector(shape)
    assert method.coefficients([1.0]) == (1.0,)
    state = fold(method, [one])
    norm = float(one.norm())
    assert torch.equal(method.scale([norm], norm) * state, one)


@ALL
@EACH
def test_zeros_give_zeros_and_change_nothing(name, shape):
    method, zero, one = create(name, {}), torch.zeros(shape, dtype=torch.float64), vector(shape)
    assert not fold(method, [zero, zero]).any()
    bits = one.view(torch.int64) if shape else one
    for order in ([zero, one], [one, zero], [zero, one, zero]):
        state = fold(method, order)
        assert torch.equal(state.view(torch.int64) if shape else state, bits)


@ALL
def test_negative_zeros_do_not_tell_whether_a_zero_was_added(name):
    method, odd = create(name, {}), torch.tensor([-0.0, 1.0], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    alone, after, before = fold(method, [odd]), fold(method, [odd, zero]), fold(method, [zero, odd])
    assert [math.copysign(1, float(state[0])) for state in (alone, after, before)] == [1.0, 1.0, 1.0]


@ALL
@EACH
def test_float64_of_the_same_shape_comes_back(name, shape):
    state = fold(create(name, {}), [vector(shape, seed) for seed in range(3)])
    assert state.dtype == torch.float64
    assert state.shape == shape


@ALL
@pytest.mark.parametrize("project", [False, True])
def test_arguments_are_not_needed_afterwards(name, project):
    """A step may reuse its arguments' memory, but the state it returns is then the only reader of it."""
    method = create(name, {})
    if project and not method.projects(TensorSpec("fc.weight", "F32", (6, 6))):
        return
    kept = method.step(vector((6, 6)), vector((6, 6), 1), project=project).state
    state, new = vector((6, 6)), vector((6, 6), 1)
    found = method.step(state, new, project=project).state
    for argument in (state, new):
        if argument.data_ptr() != found.data_ptr():
            argument.fill_(math.nan)
    assert torch.equal(found, kept)


@ALL
def test_an_elementwise_step_can_be_taken_span_by_span(name):
    method = create(name, {})
    vectors = [vector((1000,), seed) for seed in range(4)]
    whole = fold(method, vectors)
    cuts = [0, 1, 7, 64, 333, 1000]
    spans = [fold(method, [item[a:b] for item in vectors]) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(spans), whole)


@ALL
@pytest.mark.parametrize("project", [False, True])
def test_callers_that_break_the_contract_are_told(name, project):
    method = create(name, {})
    with pytest.raises(ValueError, match=r"a task vector is float64, not torch\.float32"):
        method.step(None, torch.ones(2, 2), project=project)
    with pytest.raises(ValueError, match=r"a vector of shape \(2, 1\) for a state of shape \(2, 2\)"):
        method.step(vector((2, 2)), vector((2, 1)), project=project)


def test_add_reuses_the_states_memory():
    state, new = vector((5,)), vector((5,), 1)
    assert add(None, new) is new
    assert add(state, new) is state


@ALL
def test_coefficients_of_the_table(name):
    wanted = (0.25, 0.75) if name == "linear" else (1.0, 3.0)
    assert create(name, {}).coefficients([1, 3]) == wanted


def test_linear_averages_the_models(drive):
    base = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    tasks = [{"w": torch.tensor(row, dtype=torch.float64)} for row in ([3.0, 2.0], [5.0, -2.0])]
    method = create("linear", {})
    assert not method.scaled
    assert drive(method, base, tasks)[0]["w"].tolist() == [4.0, 0.0]
    assert drive(method, base, tasks, [3.0, 1.0])[0]["w"].tolist() == [3.5, 1.0]
    assert drive(method, base, tasks, [2.0, -1.0])[0]["w"].tolist() == [1.0, 6.0]


@pytest.mark.parametrize("given", [[0.5, -0.5], [0.0], [5e-324, 1e10, -1e10]])
def test_linear_refuses_coefficients_that_sum_to_nothing(given):
    with pytest.raises(UsageError, match=r"linear: the coefficients .* sum to .*, which no average can have") as error:
        create("linear", {}).coefficients(given)
    assert error.value.hint == "give coefficients with another sum, or use --method task_arithmetic"


def test_linear_refuses_coefficients_whose_sum_overflows():
    with pytest.raises(
        Conflict, match=r"the sum of the coefficients 1e\+308, 1e\+308 is beyond double precision"
    ) as error:
        create("linear", {}).coefficients([1e308, 1e308])
    assert error.value.hint == "use smaller coefficients"


def test_magmax_takes_the_largest_change_of_each_weight_and_the_first_of_equal_ones(drive):
    base = {"w": torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)}
    tasks = [{"w": torch.tensor(row, dtype=torch.float64)} for row in ([3.0, 1.0, 1.0], [0.0, 5.0, -1.0])]
    method = create("magmax", {})
    assert drive(method, base, tasks)[0]["w"].tolist() == [3.0, 5.0, 1.0]
    assert drive(method, base, tasks, [0.25, 1.0])[0]["w"].tolist() == [0.0, 5.0, -1.0]
    assert drive(create("magmax", {"scaling": 0.5}), base, tasks)[0]["w"].tolist() == [2.0, 3.5, 0.5]


def test_task_arithmetic_sums_the_task_vectors(drive):
    base = {"w": torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)}
    rows = ([[3.0, 2.0], [1.0, 0.0]], [[5.0, -2.0], [1.0, 4.0]])
    tasks = [{"w": torch.tensor(row, dtype=torch.float64)} for row in rows]
    method = create("task_arithmetic", {})
    assert not method.scaled
    assert drive(method, base, tasks)[0]["w"].tolist() == [[7.0, -2.0], [2.0, 4.0]]
    assert drive(method, base, tasks, [1.0, -0.5])[0]["w"].tolist() == [[1.0, 4.0], [0.5, -2.0]]
    half = create("task_arithmetic", {"scaling": 0.5})
    assert drive(half, base, tasks)[0]["w"].tolist() == [[4.0, 0.0], [1.0, 2.0]]
