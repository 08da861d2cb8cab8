"""Comparisons against figures worked out with NumPy."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from weightvc.repo.decode import SPAN
from weightvc.repo.diff import _layer
from weightvc.util.errors import BadInput


def vector(model, base, names):
    """Return the task vector of some tensors as one float64 array."""
    return np.concatenate([(model[n].double() - base[n].double()).numpy().reshape(-1) for n in names])


def figures(base, a, b, names):
    """Work out a row by hand."""
    start = np.concatenate([base[n].double().numpy().reshape(-1) for n in names])
    va, vb = vector(a, base, names), vector(b, base, names)
    norm = math.sqrt(float(start @ start))
    held = math.sqrt(float(va @ va)), math.sqrt(float(vb @ vb))
    return {
        "tensors": len(names),
        "changed_a": sum(not torch.equal(a[n], base[n]) for n in names),
        "norm_a": held[0] / norm,
        "changed_b": sum(not torch.equal(b[n], base[n]) for n in names),
        "norm_b": held[1] / norm,
        "cosine": float(va @ vb) / held[0] / held[1] if held[0] and held[1] else None,
        "sign_conflict": int(np.count_nonzero(va * vb < 0)) / len(va),
        "differing": sum(not torch.equal(a[n], b[n]) for n in names),
    }


def floats(base):
    return [name for name, tensor in base.items() if tensor.is_floating_point()]


@pytest.fixture
def tensors(models, templates):
    return models.base(), models.read(templates.alpha), models.read(templates.beta)


def check(row, wanted):
    found = asdict(row)
    for key, value in wanted.items():
        assert found[key] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), key


def test_two_tasks(two, tensors):
    base, alpha, beta = tensors

    found = two.api().diff("alpha", "beta")

    wanted = figures(base, alpha, beta, floats(base))
    assert (found.a, found.b, found.layers, found.total.name) == ("alpha", "beta", (), "all")
    check(found.total, wanted)
    assert wanted["cosine"] < 0.3
    assert 0.1 < wanted["sign_conflict"] < 0.9


def test_every_layer(two, tensors):
    base, alpha, beta = tensors

    rows = {row.name: row for row in two.api().diff("alpha", "beta", layers=True).layers}

    layers = [f"encoder.layer.{n}" for n in range(3)]
    assert set(rows) == {*layers, "empty", "logit_scale", "pooler", "embeddings.word_embeddings"}
    for name, row in rows.items():
        names = [n for n in floats(base) if n == name or n.startswith(f"{name}.")]
        if name == "empty":
            assert (row.norm_a, row.cosine, row.sign_conflict) == (None, None, 0.0)
        else:
            check(row, figures(base, alpha, beta, names))


def test_one_task_against_the_base(two, tensors):
    base, _, beta = tensors

    total = two.api().diff("beta").total

    wanted = figures(base, beta, base, floats(base))
    check(total, {key: wanted[key] for key in ("tensors", "changed_a", "norm_a")})
    assert (total.changed_b, total.norm_b, total.cosine, total.sign_conflict, total.differing) == (None,) * 4 + (0,)


def test_a_model_and_itself(two):
    total = two.api().diff("alpha", "alpha").total

    assert (total.cosine, total.sign_conflict, total.differing) == (1.0, 0.0, 0)


def test_directories_files_recipes_and_revisions(two, models, templates, tensors, tmp_path):
    base, alpha, beta = tensors
    two.wvc("recipe", "save", "sum", "--method", "task_arithmetic", "--tasks", "alpha,beta")
    two.wvc("recipe", "save", "only", "--tasks", "beta")
    two.wvc("commit", "-m", "Save them")
    two.wvc("checkout", "--recipe", "sum", "-o", tmp_path / "sum")
    summed = models.read(tmp_path / "sum")
    labels = {
        str(templates.alpha): alpha,
        str(templates.beta / "model.safetensors"): beta,
        str(tmp_path / "sum"): summed,
        "sum": summed,
        "only": beta,
        "HEAD~2": alpha,
        "HEAD~3": base,
    }

    for label, model in labels.items():
        check(two.api().diff(label, "beta").total, figures(base, model, beta, floats(base)))


def test_a_prefixed_directory(two, models, tensors, tmp_path):
    base, alpha, beta = tensors
    source = models.write(tmp_path / "long", {f"bert.{name}": tensor for name, tensor in alpha.items()})
    two.put("long", source)

    for label in (str(source), "long"):
        check(two.api().diff(label, "beta").total, figures(base, alpha, beta, floats(base)))


def test_a_cast_model_is_compared_by_its_numbers(two, models, tensors, tmp_path):
    base, _, beta = tensors
    two.wvc("recipe", "save", "half", "--tasks", "alpha", "--dtype", "BF16")
    two.wvc("commit", "-m", "Save it")
    two.wvc("checkout", "--recipe", "half", "-o", tmp_path / "half")

    wanted = figures(base, models.read(tmp_path / "half"), beta, floats(base))
    for label in ("half", str(tmp_path / "half")):
        found = asdict(two.api().diff(label, "beta").total)
        for key in ("norm_a", "cosine", "sign_conflict", "differing"):
            assert found[key] == pytest.approx(wanted[key], rel=1e-12), key


def test_reshaped_and_missing_tensors_count_as_unchanged(two, models, tensors, tmp_path):
    base, alpha, beta = tensors
    tuned = {**alpha, "embeddings.word_embeddings.weight": torch.ones(41, 12)}
    del tuned["pooler.weight"]
    two.put("odd", models.write(tmp_path / "odd", tuned))
    two.wvc("recipe", "save", "odd-recipe", "--tasks", "odd")
    two.wvc("commit", "-m", "Save it")

    same = {name: base[name] for name in ("embeddings.word_embeddings.weight", "pooler.weight")}
    for label in ("odd", str(tmp_path / "odd"), "odd-recipe"):
        check(two.api().diff(label, "beta").total, figures(base, alpha | same, beta, floats(base)))


def test_large_tensors(repository, models, tmp_path):
    made = torch.Generator().manual_seed(1)
    base = {
        "w": torch.randn(SPAN // 4 // 500 + 3, 500, generator=made),
        "h": torch.randn(SPAN // 2 + 4097, generator=made).bfloat16(),
    }
    repo = repository(models.write(tmp_path / "base", base, files={}))
    tuned = [models.tuned(base, seed) for seed in (1, 2)]
    repo.put("a", models.write(tmp_path / "a", tuned[0], files={}))

    check(repo.api().diff("a", str(models.write(tmp_path / "b", tuned[1]))).total, figures(base, *tuned, ["w", "h"]))


def test_figures_of_values_that_are_not_finite(two, models, tmp_path):
    tuned = models.base()
    tuned["logit_scale"] = torch.tensor(float("inf"))
    two.put("odd", models.write(tmp_path / "odd", tuned), "--allow-nonfinite")

    total = two.api().diff("odd", "alpha").total

    assert (total.norm_a, total.cosine, total.changed_a) == (None, None, 1)
    assert total.norm_b == pytest.approx(0.05, rel=0.1)


def test_a_base_with_values_that_are_not_finite(repository, models, tmp_path):
    base = {**models.base(), "logit_scale": torch.tensor(float("inf"))}
    repo = repository(models.write(tmp_path / "base", base), "--allow-nonfinite")
    repo.put("same", models.write(tmp_path / "same", models.tuned(base, 1)), "--allow-nonfinite")

    total = repo.api().diff("same", str(models.write(tmp_path / "b", models.tuned(base, 2)))).total

    assert (total.norm_a, total.norm_b) == (None, None)
    assert total.changed_a == 14


def test_what_cannot_be_compared(two, refused, models, repository, tmp_path):
    other = repository(models.write(tmp_path / "other", {"x": torch.ones(2)}), name="second")
    refused(two, 3, "diff", "nobody", says="no task, recipe, revision, directory or file 'nobody'")
    refused(two, 3, "diff", "alpha", "btea", says="file 'btea'", hint="did you mean beta? run `wvc status`")
    refused(two, 3, "diff", "alpha", tmp_path / "nowhere", says="no task, recipe, revision, directory or file")
    refused(two, 3, "diff", "alpha", tmp_path / "other", says="not one tensor has a name that the base has",
            hint="name a model of this base")  # fmt: skip
    two.git("fetch", "-q", str(other.path))
    refused(two, 3, "diff", "alpha", "FETCH_HEAD", says="the two models have different bases")
    with pytest.raises(BadInput):
        two.api().diff("alpha", "FETCH_HEAD")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.layer.11.attention.query.weight", "encoder.layer.11"),
        ("h.0", "h.0"),
        ("a.1.b.2.c", "a.1"),
        ("lm_head.weight", "lm_head"),
        ("bias", "bias"),
        ("layer.x1.weight", "layer.x1"),
    ],
)
def test_layers_are_numbered_blocks(name, layer):
    assert _layer(name) == layer


def test_tensors_without_numbers_to_compare_are_counted(two, models, tmp_path):
    odd = {**models.base(), "new.head": torch.ones(3), "embeddings.position_ids": torch.zeros(1, 20, dtype=torch.int64)}
    del odd["logit_scale"]
    two.put("odd", models.write(tmp_path / "odd", odd))

    for other in ((), ("alpha",)):
        assert two.api().diff("odd", *other).apart == 3
    assert two.api().diff("odd", str(tmp_path / "odd")).apart == 0
    assert two.api().diff("alpha", "beta").apart == 0
    ran = two.run("diff", "odd", "--exit-code")
    assert ran.code == 1
    assert "note: 3 tensors differ beyond these figures" in ran.err
    assert two.run("diff", "odd", tmp_path / "odd", "--exit-code").code == 0


def test_a_revision_without_tasks_is_the_base(two, templates):
    first = two.git("rev-list", "--max-parents=0", "HEAD")

    for names in ((first,), (first, templates.base)):
        found = two.json("diff", *names)
        assert (found["apart"], found["total"]["differing"] or 0, found["total"]["changed_a"]) == (0, 0, 0)
        assert two.run("diff", *names, "--exit-code").code == 0
