"""What a dry run says of each tensor."""

import json

import pytest
import torch

ROWS = "embeddings.word_embeddings.weight"
QUERY = "encoder.layer.0.attention.query.weight"


def plan(repo, *options):
    return {line["name"]: line for line in repo.json("checkout", "--dry-run", *options)["plan"]}


def said(line):
    return line["rule"], line["method"], line["tasks"], line["why"]


def test_each_tensor_has_its_line(two):
    done = two.json("checkout", "--dry-run", "--rule", "pooler.weight=base", "--rule", r".*\.dense\.weight=magmax")
    found = {line["name"]: line for line in done["plan"]}

    assert list(found) == sorted(found)
    assert said(found["embeddings.position_ids"]) == ("base", None, [], "unchanged")
    assert said(found["logit_scale"]) == ("elementwise", "opcm-s", ["alpha"], "changed by one task")
    assert said(found["encoder.layer.0.attention.query.bias"]) == (
        "elementwise",
        "opcm-s",
        ["alpha", "beta"],
        "no matrix",
    )
    assert said(found[QUERY]) == ("projected", "opcm-s", ["alpha", "beta"], "matrix")
    assert said(found["pooler.weight"]) == ("base", "base", [], "kept")
    assert found["pooler.weight"]["pattern"] == "pooler.weight"
    dense = found["encoder.layer.1.output.dense.weight"]
    assert said(dense) == ("elementwise", "magmax", ["alpha", "beta"], "by element")
    assert (dense["dtype"], dense["shape"], dense["bytes"], dense["pattern"]) == (
        "BF16",
        [12, 24],
        576,
        r".*\.dense\.weight",
    )
    assert sum(line["bytes"] for line in done["plan"]) == done["bytes"]
    assert 0 < sum(line["read_bytes"] for line in done["plan"]) < done["read_bytes"]
    assert done["estimated_seconds"] > 0


def test_a_checkout_that_is_done_has_no_plan(two, tmp_path):
    done = two.json("checkout", "-o", tmp_path / "out")

    assert (done["plan"], done["estimated_seconds"]) == ([], None)


def test_the_plan_is_what_the_lock_says_was_done(two, tmp_path):
    options = ("--rule", r".*\.dense\.weight=tsv-m", "--rule", "pooler.weight=base", "--dtype", "F32")
    planned = {name: line["rule"] for name, line in plan(two, *options).items()}
    two.wvc("checkout", *options, "-o", tmp_path / "out")

    lock = json.loads((tmp_path / "out/wvc.lock.json").read_text())
    assert {line["name"]: line["rule"] for line in lock["tensors"]} == planned


def test_tables_are_named_by_other(two, templates):
    two.put("again", templates.alpha)
    found = plan(two)

    assert said(found[ROWS]) == ("elementwise", "opcm-s", ["alpha", "again"], "named by other=")
    assert said(plan(two, "-p", "other=")[ROWS])[0] == "projected"
    assert said(plan(two, "--method", "tsv-m")[ROWS]) == ("joined", "tsv-m", ["alpha", "again"], "matrix")


def test_integers_that_agree_and_that_do_not(two, models, tmp_path):
    ids = models.base()["embeddings.position_ids"]
    for at, name in ((1, "x"), (1, "y"), (2, "z")):
        two.put(name, models.write(tmp_path / name, models.base() | {"embeddings.position_ids": ids + at}))
    name = "embeddings.position_ids"

    assert said(plan(two, "--tasks", "x,alpha")[name]) == ("task", None, ["x"], "I64, changed by one task")
    assert said(plan(two, "--tasks", "x,y")[name]) == ("task", None, ["x"], "I64, tasks agree")
    found = plan(two, "--tasks", "x,z", "--on-int-mismatch", "base")[name]
    assert said(found) == ("base", None, [], "I64, tasks disagree")


def test_a_cast_is_said(two):
    assert said(plan(two, "--dtype", "BF16")["empty"]) == ("elementwise", "opcm-s", [], "unchanged, cast")


def test_tied_names_are_read_once(repository, models, tmp_path):
    base = models.base() | {"decoder.weight": models.base()[ROWS].clone()}
    repo = repository(models.write(tmp_path / "base", base))
    moved = models.tuned(base, 1)
    repo.put("a", models.write(tmp_path / "a", moved | {"decoder.weight": moved[ROWS].clone()}))

    found = plan(repo, "--tasks", "a=0.5")

    assert found["decoder.weight"]["why"] == f"changed by one task, tied to {ROWS}"
    assert found[ROWS]["why"] == "changed by one task, tied to decoder.weight"
    assert found["decoder.weight"]["read_bytes"] > found[ROWS]["read_bytes"] == 0
    shown = repo.wvc("checkout", "-n", "--tasks", "a=0.5")
    assert "changed by one task" in shown
    assert ", tied" not in shown


def test_heads_are_at_the_end(two, models, tmp_path):
    two.put("more", models.write(tmp_path / "more", models.base() | {"aaa": torch.ones(2, 2)}))

    last = two.json("checkout", "-n", "--tasks", "alpha,more")["plan"][-1]

    assert (last["name"], last["rule"], last["tasks"]) == ("aaa", "task", ["more"])
    assert last["why"] == "not in the base, to heads/more.safetensors"


@pytest.mark.parametrize(("tasks", "rule"), [("alpha", "task"), ("", "base")])
def test_what_is_given_back_as_it_is(two, tasks, rule):
    found = plan(two, "--tasks", tasks)

    assert {line["rule"] for line in found.values()} == {rule}
    assert {line["why"] for line in found.values()} == {"as it was added"}
    assert found[QUERY]["tasks"] == ([tasks] if tasks else [])
    assert found[QUERY]["read_bytes"] > 0
    assert found["embeddings.position_ids"]["read_bytes"] > 0


def test_tables_for_people(two):
    short = two.wvc("checkout", "-n", "--rule", "pooler.weight=base", "--method", "mdm-oc").splitlines()

    head = next(at for at, line in enumerate(short) if line.startswith("tensors "))
    rows = [line.split() for line in short[head:]]
    assert rows[0] == ["tensors", "what", "method", "why", "rule", "reads", "writes"]
    assert " ".join(rows[1]).startswith("2 base - unchanged - ")
    assert " ".join(rows[2]).startswith("1 base base kept pooler.weight ")
    assert " ".join(rows[3]).startswith("14 elementwise mdm-oc (experimental) by element - ")

    each = two.wvc("-v", "checkout", "-n", "--rule", "pooler.weight=base").splitlines()
    head = next(at for at, line in enumerate(each) if line.startswith("tensor "))
    assert each[head].split() == [
        "tensor",
        "dtype",
        "shape",
        "what",
        "method",
        "tasks",
        "why",
        "rule",
        "reads",
        "writes",
    ]
    (query,) = [line for line in each if line.startswith(QUERY)]
    assert " ".join(query.split()).startswith(f"{QUERY} F32 12x12 projected opcm-s alpha, beta matrix - ")
    assert len(each) == head + 1 + 17


@pytest.mark.parametrize("options", [(), ("--rule", ".*=base"), ("--tasks", "alpha"), ("--method", "ties")])
def test_what_is_read_is_what_the_plan_reads_and_other_files(two, options):
    plan = two.json("checkout", "-n", *options)
    tensors = sum(line["read_bytes"] for line in plan["plan"])
    assert tensors < plan["read_bytes"] < tensors + 2000
