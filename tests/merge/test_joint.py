"""Laws of joint methods, and each of them against numbers worked out in another way."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from joined import BASE, SHAPES, TASKS, flat, join, model, near

from weightvc.merge import linalg
from weightvc.merge.dare import draw
from weightvc.merge.joint import Joint, Task
from weightvc.merge.mdm_oc import fidelity, solve
from weightvc.merge.table import METHODS, create
from weightvc.util.errors import BadInput, UsageError

JOINT = [name for name in METHODS if isinstance(create(name, {}), Joint)]
ALL = pytest.mark.parametrize("name", JOINT)
MANY = pytest.mark.parametrize("name", [name for name in JOINT if name != "slerp"])
"""Methods of any number of tasks, whose result is in proportion to task vectors."""
ORDER_FREE = [name for name in JOINT if name not in ("slerp", "mdm-oc")]


def two_only(name, vectors):
    return vectors[:2] if name == "slerp" else vectors


@ALL
def test_frozen_and_named(name):
    method = create(name, {})
    assert (method.name, method.neutral) == (name, True)
    assert method == create(name, {})
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
        method.density = 2


@ALL
def test_pieces_change_no_bit(name):
    method, vectors = create(name, {}), two_only(name, TASKS)
    one, other = (join(method, vectors, cuts=cuts) for cuts in (1000, 8))
    for key in one:
        if name in ("model_stock", "mdm-oc", "slerp"):  # sums of products, whose rounding depends on the pieces
            torch.testing.assert_close(one[key], other[key], rtol=1e-12, atol=1e-15)
        else:
            assert torch.equal(one[key], other[key])


@pytest.mark.parametrize("name", ORDER_FREE)
def test_the_order_of_tasks_does_not_matter(name):
    method = create(name, {})
    there = join(method, TASKS, [1.0, 0.5, 2.0], versions=["a", "b", "c"])
    back = join(method, TASKS[::-1], [2.0, 0.5, 1.0], versions=["c", "b", "a"])
    near(there, flat(back), 1e-9)


@MANY
def test_task_vectors_scale_the_result(name):
    method = create(name, {})
    once, twice = (join(method, [{k: f * t for k, t in v.items()} for v in TASKS]) for f in (1.0, 4.0))
    near(twice, 4.0 * flat(once))


@MANY
def test_a_task_at_coefficient_0_is_left_out(name):
    method = create(name, {})
    without = join(method, [TASKS[0], TASKS[2]], versions=["v0", "v2"])
    zero = join(method, TASKS, [1.0, 0.0, 1.0], versions=["v0", "v1", "v2"])
    assert all(torch.equal(without[key], zero[key]) for key in without)


# DARE.


@pytest.mark.parametrize("name", ["dare", "dare_ties"])
def test_what_is_dropped_is_a_share_and_made_up_for(name):
    large = {"w.weight": torch.ones(200, 300, dtype=torch.float64)}
    base = {"w.weight": torch.zeros(200, 300, dtype=torch.float64)}
    for rescale, kept in {"inverse-density": 4.0, "none": 1.0}.items():
        method = create(name, {"density": 0.25, "rescale": rescale})
        found = join(method, [large], base=base, cuts=1024)["w.weight"]
        assert set(found.unique().tolist()) == {0.0, kept}
        assert abs(float((found > 0).double().mean()) - 0.25) < 0.01
    found = join(create(name, {"density": 0.25, "rescale": "l1"}), [large], base=base, cuts=1024)["w.weight"]
    assert float(found.abs().sum()) == pytest.approx(60_000)


def test_what_is_dropped_depends_on_seed_version_and_name_alone():
    method = create("dare", {})
    both = join(method, TASKS[:2], versions=["x", "y"])
    parts = [join(method, [task], versions=[version]) for task, version in zip(TASKS[:2], "xy", strict=True)]
    near(both, flat(parts[0]) + flat(parts[1]))
    assert not torch.equal(join(method, TASKS[:1], versions=["z"])["a.weight"], parts[0]["a.weight"])
    other = join(create("dare", {"seed": 1}), TASKS[:1], versions=["x"])
    assert not torch.equal(other["a.weight"], parts[0]["a.weight"])


def test_vectors_are_left_alone_unless_asked_for():
    alone, asked = (join(create("dare", {"vectors": flag}), TASKS[:1]) for flag in (False, True))
    assert torch.equal(alone["c.bias"], TASKS[0]["c.bias"])
    assert not torch.equal(asked["c.bias"], TASKS[0]["c.bias"])


def test_the_numbers_drawn_are_these_whatever_the_start():
    row = draw("key", 0, 1000)
    assert (row >= 0).all()
    assert (row < 1).all()
    for start in (1, 3, 4, 997):
        assert (draw("key", start, 1000 - start) == row[start:]).all()
    seed = int.from_bytes(__import__("hashlib").sha256(b"key").digest()[:16], "little")
    assert (np.random.Generator(np.random.Philox(key=seed)).random(1000) == row).all()


def test_dare_ties_elects_among_what_is_left():
    method = create("dare_ties", {"density": 1, "rescale": "none"})
    weights = [1.0, 0.5, 2.0]
    rows = np.stack([flat(task) for task in TASKS]) * np.array(weights)[:, None]
    elected = np.where(rows.sum(0) >= 0, 1, -1)
    near(join(method, TASKS, weights), np.where(rows * elected > 0, rows, 0).sum(0))


# Slerp.


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_by_its_formula(t):
    found = join(create("slerp", {"t": t}), TASKS[:2])
    for name, start in BASE.items():
        first, second = ((start + task[name]).numpy().reshape(-1) for task in TASKS[:2])
        cosine = min(1.0, first @ second / np.linalg.norm(first) / np.linalg.norm(second))
        angle = math.acos(cosine)
        if cosine > 0.9995:
            wanted = (1 - t) * first + t * second
        else:
            wanted = (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)
        near((start + found[name]).numpy().reshape(-1), wanted)


def test_slerp_of_what_one_task_moves_is_between_it_and_the_base():
    found = join(create("slerp", {"t": 0.5}), [TASKS[0], {}])
    near((BASE["a.weight"] + found["a.weight"]).norm().numpy(), float(BASE["a.weight"].norm()), 0.02)


@pytest.mark.parametrize(
    ("given", "words"),
    [([1.0, 1.0, 1.0], "between two tasks, not 3"), ([0.5], "not 1"), ([1.0, 2.0], "takes no coefficients")],
)
def test_slerp_is_between_two_tasks(given, words):
    with pytest.raises(UsageError, match=words):
        create("slerp", {}).coefficients(given)


# Model stock.


def test_model_stock_by_pairs():
    found = join(create("model_stock", {}), TASKS)
    for name in SHAPES:
        rows = [task[name].numpy().reshape(-1) for task in TASKS]
        cosines = [
            rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]) for i in range(3) for j in range(i)
        ]
        cosine = sum(cosines) / 3
        t = min(1.0, max(0.0, 3 * cosine / (1 + 2 * cosine))) if cosine > 0 else 0.0
        near(found[name].numpy().reshape(-1), t * sum(rows) / 3)


def test_model_stock_of_equal_tasks_is_that_task():
    near(join(create("model_stock", {}), [TASKS[0], TASKS[0]]), flat(TASKS[0]))


# TSV-M.


def tsv(rows, shape):
    """By decompositions with numpy's own drivers."""
    rank = min(shape) // len(rows)
    u, s, v = [], [], []
    for row in rows:
        left, values, right = np.linalg.svd(row, full_matrices=False)
        u, s, v = [*u, left[:, :rank]], [*s, values[:rank]], [*v, right[:rank].T]

    def polar(parts):
        left, _, right = np.linalg.svd(np.concatenate(parts, 1), full_matrices=False)
        return left @ right

    return polar(u) @ np.diag(np.concatenate(s)) @ polar(v).T


def test_tsv_m_of_matrices_and_the_mean_of_the_rest():
    found = join(create("tsv-m", {"scaling": 0.5}), TASKS)
    for name, shape in SHAPES.items():
        rows = [task[name].numpy() for task in TASKS]
        wanted = tsv(rows, shape) if len(shape) == 2 else sum(rows) / 3
        near(found[name].numpy().reshape(-1), 0.5 * np.asarray(wanted).reshape(-1), 1e-10)


def test_tsv_m_of_more_tasks_than_a_side_has_rows_is_the_mean():
    vectors = [model(seed, 0.1) for seed in range(6)]
    near(join(create("tsv-m", {}), vectors)["b.weight"].numpy(), sum(v["b.weight"].numpy() for v in vectors) / 6)


def test_tsv_m_counts_the_tasks_that_move_a_tensor_and_not_its_pieces():
    half = {name: tensor.clone() for name, tensor in TASKS[0].items()}
    half["c.bias"][:20] = 0.0
    near(
        join(create("tsv-m", {}), [half, TASKS[1]])["c.bias"].numpy(),
        ((half["c.bias"] + TASKS[1]["c.bias"]) / 2).numpy(),
    )
    nothing = {"c.bias": torch.zeros(40, dtype=torch.float64)}
    assert not join(create("tsv-m", {}), [nothing, nothing], base={"c.bias": BASE["c.bias"]})["c.bias"].any()


def test_tsv_m_does_not_depend_on_the_order_of_tasks_by_a_single_bit():
    there, back = (
        join(create("tsv-m", {}), TASKS),
        join(create("tsv-m", {}), TASKS[::-1], versions=["version 2", "version 1", "version 0"]),
    )
    assert all(torch.equal(there[name], back[name]) for name in SHAPES)


def test_triples_of_a_matrix_of_low_rank_end_at_its_rank():
    made = torch.Generator().manual_seed(5)
    low = torch.randn(8, 2, generator=made, dtype=torch.float64) @ torch.randn(2, 6, generator=made).double()
    left, values, right = linalg.leading(low, 4)
    assert values.shape == (2,)
    torch.testing.assert_close((left * values) @ right.mT, low)
    with pytest.raises(BadInput, match="NaN, infinite"):
        linalg.leading(low * math.nan, 2)


def test_columns_that_depend_on_each_other_have_a_polar_factor_all_the_same():
    column = torch.randn(7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    twice = torch.cat([column, column], 1)
    found = linalg.polar(twice)
    torch.testing.assert_close(found[:, :2], linalg.polar(column) / math.sqrt(2))


# MDM-OC.


def orthogonal(rows, a):
    """Gram-Schmidt, written out."""
    parts = []
    for row in rows:
        parts.append(row - sum((row @ part) / (part @ part) * part for part in parts))
    return sum(number * part for number, part in zip(a, parts, strict=True))


@pytest.mark.parametrize("a", [[1.0, 1.0, 1.0], [0.5, -1.0, 2.0]])
def test_mdm_oc_is_gram_schmidt_over_the_model(a):
    near(join(create("mdm-oc", {}), TASKS, a), orthogonal([flat(task) for task in TASKS], a))


def test_a_task_in_the_span_of_others_adds_nothing():
    third = {key: 2 * TASKS[0][key] - TASKS[1][key] for key in SHAPES}
    near(join(create("mdm-oc", {}), [*TASKS[:2], third]), orthogonal([flat(task) for task in TASKS[:2]], [1, 1]), 1e-9)


def test_subtraction_takes_a_part_out_and_keeps_what_it_did_to_others():
    a = [1.0, 0.0, 1.0]
    near(
        join(create("mdm-oc", {"unmerge": "subtract"}), TASKS, a), orthogonal([flat(task) for task in TASKS], a), 1e-12
    )
    near(join(create("mdm-oc", {}), TASKS, a), orthogonal([flat(TASKS[0]), flat(TASKS[2])], [1.0, 1.0]))


def test_the_weights_solve_the_triangular_system():
    rows = np.random.default_rng(1).normal(size=(4, 50))
    lower = np.linalg.cholesky(rows @ rows.T)
    lower /= np.diagonal(lower)
    near(np.array(solve(rows @ rows.T, [1, 2, 3, 4])), np.linalg.solve(lower.T, [1, 2, 3, 4]))


def test_vectors_count_as_they_are_where_sums_are_kept():
    method = create("dare", {"density": 0.25, "rescale": "l1"})
    assert torch.equal(join(method, TASKS[:1])["c.bias"], TASKS[0]["c.bias"])


def test_one_task_that_moves_a_tensor_is_not_shrunk():
    near(join(create("model_stock", {}), TASKS[:1]), flat(TASKS[0]))


def test_the_fidelity_of_a_subtraction_is_that_of_the_vectors():
    rows = np.random.default_rng(2).normal(size=(4, 50)) + 0.3
    a = [1.0, 1.0, 0.5, 1.0]
    whole = orthogonal(rows, a)
    subtracted = orthogonal(rows, [1.0, 0.0, 0.5, 1.0])
    without = orthogonal(rows[[0, 2, 3]], [1.0, 0.5, 1.0])

    kept, left = fidelity(rows @ rows.T, a, 1)

    size = np.linalg.norm
    near(np.array(kept), 1 - size(subtracted - without) / size(whole - without))
    near(np.array(left), abs(subtracted @ rows[1]) / size(subtracted) / size(rows[1]))
    assert 0.5 < kept < 1 - 1e-3
    assert left > 1e-3


def test_subtracting_the_last_task_is_exact():
    rows = np.random.default_rng(3).normal(size=(3, 50))
    kept, _ = fidelity(rows @ rows.T, [1.0, 1.0, 0.0], 2)
    assert kept == pytest.approx(1.0, abs=1e-9)


def test_subtracting_the_only_task_leaves_nothing():
    assert fidelity(np.array([[2.0]]), [0.0], 0) == (1.0, 0.0)


def test_a_task_that_comes_to_nothing_changes_nothing():
    assert fidelity(np.zeros((1, 1)), [0.0], 0) == (1.0, 0.0)


def reported(tasks, a, **params):
    method = create("mdm-oc", params)
    known = method.begin([Task(number, f"v{at}") for at, number in enumerate(a)], [])
    rows = np.stack([flat(task) for task in tasks])
    return method.report(method.combine({"": rows @ rows.T}, known))


def test_a_report_names_tasks_that_add_nothing_and_how_far_others_are_out():
    third = {key: 2 * TASKS[0][key] - TASKS[1][key] for key in SHAPES}
    assert reported([*TASKS[:2], third], [1.0, 1.0, 1.0]) == [
        (2, "it lies in the span of the tasks before it, and adds nothing")
    ]
    ((at, says),) = reported(TASKS, [1.0, 0.0, 1.0], unmerge="subtract")
    assert at == 1
    assert re.fullmatch(
        r"taken out by subtraction, an approximation: weight fidelity 0\.9\d+ \(1 for the merge without it\), "
        r"residual alignment 0\.\d{4}",
        says,
    )
    method = create("mdm-oc", {})
    assert method.report(method.begin([], [])) == ()


@pytest.mark.parametrize("method", ["model_stock", "mdm-oc"])
def test_products_beyond_double_precision_are_refused(method):
    huge = [{key: 1e160 * value for key, value in task.items()} for task in TASKS[:2]]
    with pytest.raises(BadInput, match="enormous values, whose products overflow"):
        join(create(method, {}), huge)
