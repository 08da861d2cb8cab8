"""TIES against numbers worked out in another way, and the order statistic that it trims by."""

import math

import numpy as np
import pytest
import torch
from joined import SHAPES, TASKS, flat, join, near

from weightvc.merge import select
from weightvc.merge.table import create
from weightvc.util.errors import UsageError


def ties_by_the_paper(vectors, density, weights, aggregate="mean", *, weighted=False):
    """Over flattened vectors: trim, elect, join."""
    rows = np.stack(vectors)
    kept = max(1, math.floor(density * rows.shape[1]))
    for row in rows:
        row[np.abs(row) < np.sort(np.abs(row))[-kept]] = 0
    elected = np.sign((np.array(weights)[:, None] * rows if weighted else rows).sum(0))
    elected[elected == 0] = np.sign(elected.sum()) or 1
    agree = rows * elected > 0
    parts = np.where(agree, np.array(weights)[:, None] * rows, 0)
    if aggregate == "max":
        return np.take_along_axis(parts, np.abs(parts).argmax(0)[None], 0)[0]
    total = parts.sum(0)
    return total if aggregate == "sum" else np.divide(total, agree.sum(0), np.zeros_like(total), where=agree.any(0))


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize("election", ["weighted", "unweighted"])
@pytest.mark.parametrize("density", [0.2, 0.55, 1.0, 1e-9])
def test_ties_over_the_model(density, aggregate, election):
    weights = [1.0, 0.5, 2.0]
    method = create("ties", {"density": density, "aggregate": aggregate, "election": election, "scaling": 0.5})

    found = join(method, TASKS, weights)

    wanted = ties_by_the_paper(
        [flat(task) for task in TASKS], density, weights, aggregate, weighted=election == "weighted"
    )
    near(found, 0.5 * wanted)


@pytest.mark.parametrize("compat", ["mergekit", "peft"])
def test_ties_as_other_tools_do_it(compat):
    weights = [1.0, 0.5, 2.0]

    found = join(create("ties", {"density": 0.4, "compat": compat}), TASKS, weights)

    for name in SHAPES:
        rows = np.stack([task[name].numpy().reshape(-1) for task in TASKS])
        kept = max(1, math.floor(0.4 * rows.shape[1]))
        for row in rows:
            row[np.argsort(np.abs(row))[: len(row) - kept]] = 0
        scaled = np.array(weights)[:, None] * rows
        elected = np.where((scaled if compat == "mergekit" else rows).sum(0) >= 0, 1, -1)
        agree = np.sign(rows) == elected
        shares = agree * (np.array(weights)[:, None] if compat == "mergekit" else 1.0)
        wanted = (scaled * agree).sum(0) / np.where(shares.sum(0) > 0, shares.sum(0), 1)
        near(found[name].numpy().reshape(-1), wanted)


def test_what_cancels_takes_the_sign_of_the_model():
    vectors = [{"c.bias": torch.tensor([1.0, 3.0, 3.0, 0.0, -1.0]).double()}, {"c.bias": torch.zeros(5).double()}]
    vectors[1]["c.bias"][:] = torch.tensor([-1.0, 1.0, 1.0, 0.0, 1.0])
    base = {"c.bias": torch.zeros(5, dtype=torch.float64)}

    for sign in (1.0, -1.0):
        turned = [{"c.bias": sign * vector["c.bias"]} for vector in vectors]
        found = join(create("ties", {"density": 1, "aggregate": "sum"}), turned, base=base)["c.bias"]
        assert found.tolist() == [1.0 * sign, 4.0 * sign, 4.0 * sign, 0.0, 1.0 * sign]


def test_compat_stands_for_other_parameters():
    with pytest.raises(UsageError, match="compat stands for scope, election and aggregate"):
        create("ties", {"compat": "peft", "scope": "tensor"})


# Selection.


@pytest.mark.parametrize("k", [1, 2, 50, 999, 1000])
def test_the_kth_largest_magnitude_is_exact(k):
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    numbers[::7] = numbers[3]
    high, place = select.bucket(select.high(numbers), k)
    low, _ = select.bucket(select.low(numbers, high), place)

    wanted = numbers.abs().float().sort(descending=True).values[k - 1]

    assert (high << 16) + low == int(wanted.view(torch.int32))
    assert int(select.keeps(numbers, (high << 16) + low).sum()) == int((numbers.abs().float() >= wanted).sum())


def test_more_than_there_is_keeps_everything():
    numbers = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert select.bucket(select.high(numbers), 3) == (0, 3)
    assert select.bucket(np.zeros(8, np.int64), 1) == (0, 1)


def test_where_a_task_moves_less_than_the_share_of_the_model_all_of_it_is_kept():
    """Numbers below the normal ones of float32, as large as they may differ: none of them is a threshold."""
    base = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(8, dtype=torch.float64)}
    tiny = {"a": torch.tensor([1e-42, 1e-43], dtype=torch.float64)}
    other = {"b": torch.ones(8, dtype=torch.float64)}

    found = join(create("ties", {"density": 0.5}), [tiny, other], base=base)

    assert torch.equal(found["a"], tiny["a"])
    assert torch.equal(found["b"], other["b"])
