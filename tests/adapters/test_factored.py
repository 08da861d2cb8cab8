"""Adapters are folded by their factors: what that gives, and that it depends on nothing else."""

import json
import math

import pytest
import torch
from lora import factors_of, normal, pair, rules_of, write

from weightvc.merge import table
from weightvc.repo.decode import SPAN


@pytest.fixture(scope="module")
def doubles(sandbox, models, wvc, tmp_path_factory):
    """A repository over matrices of float64, one of which takes several spans, with three adapters."""
    root = tmp_path_factory.mktemp("doubles")
    base = {
        "h.0.up.weight": normal(2 * SPAN // 8 // 120 + 7, 120, dtype=torch.float64),
        "h.0.down.weight": normal(64, 200, dtype=torch.float64),
        "h.0.q.weight": normal(96, 96, dtype=torch.float64),
    }
    assert wvc("init", root / "repo", "--base", models.write(root / "base", base)).code == 0
    repo, held = sandbox(root / "repo"), {}
    for at, (name, rank) in enumerate((("one", 2), ("two", 3), ("three", 5)), 1):
        held[name] = {}
        for module in ("up", "down", "q"):
            rows, columns = base[f"h.0.{module}.weight"].shape
            # wide is turned, so that its sibling up is too
            held[name] |= pair(f"h.0.{module}", columns, rows, rank=rank, seed=11 * at)
        repo.json(
            "add", write(root / name, held[name], r=rank, lora_alpha=3 * rank, fan_in_fan_out=True), "--task", name
        )
    repo.wvc("commit", "-m", "Add them")
    return repo, base, held


@pytest.mark.parametrize("name", ["opcm", "opcm-s"])
def test_adapters_are_folded_by_their_factors(doubles, models, tmp_path, name):
    repo, base, held = doubles
    weights, method = {"one": 1.0, "two": -0.5, "three": 2.0}, table.create(name, {})

    tasks = ",".join(f"{task}={weight}" for task, weight in weights.items())
    done = repo.json("checkout", "--tasks", tasks, "--method", name, "-o", tmp_path / "out")
    found = models.read(tmp_path / "out")

    squares, moved = [], {}
    for tensor in base:
        module = tensor.removesuffix(".weight")
        vectors = [factors_of(held[task], module, turned=True) for task in weights]
        state = None
        for (left, right), weight in zip(vectors, weights.values(), strict=True):
            vector = weight * (left @ right)
            squares.append(float(vector.square().sum()))
            state = method.step(state, vector, project=True).state
        moved[tensor] = state
    norms = [math.sqrt(sum(squares[at::3])) for at in range(3)]
    factor = method.scale(norms, math.sqrt(sum(float(total.square().sum()) for total in moved.values())))
    for tensor, total in moved.items():
        wanted = factor * total
        assert (found[tensor] - base[tensor] - wanted).norm() < 1e-12 * base[tensor].norm()
        assert wanted.norm() > 0.1 * base[tensor].norm()
    assert set(rules_of(tmp_path / "out").values()) == {"factored"}
    assert done["rules"]["factored"] == 3
    assert done["scratch_bytes"] == sum(8 * 10 * sum(tensor.shape) for tensor in base.values())
    lines = json.loads((tmp_path / "out/wvc.lock.json").read_text())["tensors"]
    assert all(len(line["ranks"]) == 2 for line in lines)
    assert repo.json("verify", tmp_path / "out", "--replay")["ok"]
    assert not list((repo.path / ".git/wvc/tmp").iterdir())


@pytest.mark.parametrize("name", ["opcm", "opcm-s"])
def test_bytes_of_factored_merges_do_not_depend_on_workers_or_on_tasks_that_are_out_of_it(
    doubles, models, copied, tmp_path, name
):
    repo = copied(doubles[0].path)
    for jobs in (1, 2):
        repo.wvc("checkout", "--tasks", "one,three", "--method", name, "--jobs", jobs, "-o", tmp_path / f"out{jobs}")
    repo.wvc("checkout", "--tasks", "one,two=0,three", "--method", name, "-o", tmp_path / "zero")
    repo.wvc("checkout", "--method", name, "-o", tmp_path / "all")

    assert repo.json("revert", "two", "-m", "Take it out")["unproved"] == []

    wanted = models.contents(tmp_path / "out1")
    assert wanted == models.contents(tmp_path / "out2") == models.contents(tmp_path / "all")
    models.assert_same(models.read(tmp_path / "zero"), models.read(tmp_path / "out1"))
    assert set(rules_of(tmp_path / "all").values()) == {"factored"}
