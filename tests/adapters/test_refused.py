"""Adapters that are refused, and why."""

import math
from dataclasses import replace

import pytest
import torch
from lora import BASE, normal, pair, write
from safetensors.torch import save_file

from weightvc.objects.manifest import Manifest


def test_factors_that_are_not_finite_are_stored_if_asked_for_and_never_merged(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    next(iter(tensors.values()))[0, 0] = math.nan
    source = write(tmp_path / "lora", tensors)
    assert "holds 1 non-finite values" in repo.run("add", source, "--task", "lora").err
    repo.put("lora", source, "--allow-nonfinite", "--force-base")

    ran = repo.run("checkout", "--tasks", "lora", "--dtype", "base", "-o", tmp_path / "out")

    assert ran.code == 3
    assert "tensor h.0.q.weight: a task updates it by factors that hold NaN or infinity" in ran.err


def test_weights_of_an_adapter_without_its_settings_are_refused(repo, refused, tmp_path):
    tensors = pair("h.0.q", 8, 8) | {"h.0.q.bias": BASE["h.0.q.bias"] + 0.1}
    save_file(tensors, tmp_path / "lone.safetensors")

    refused(
        repo, 3, "add", tmp_path / "lone.safetensors", "--task", "x",
        says="holds factors of a LoRA, and no adapter_config.json that says what they mean",
        hint="give the adapter's directory, or pass --force-base to store it whole",
    )  # fmt: skip


def test_names_that_fit_the_base_in_two_ways_are_refused(repository, refused, models, tmp_path):
    base = {f"{side}.{name}": tensor.clone() for side in ("enc", "dec") for name, tensor in BASE.items()}
    repo = repository(models.write(tmp_path / "base", base))
    says = "its names fit the base's after dec., enc. alike"

    refused(repo, 3, "add", write(tmp_path / "lora", pair("h.0.q", 8, 8)), "--task", "lora", says=says)
    refused(repo, 3, "add", models.write(tmp_path / "full", models.tuned(BASE, 1)), "--task", "full", says=says)


BAD = {
    "alpha": (pair("h.0.q", 8, 8), "is inf times as large as the base itself", {"lora_alpha": 1e200}),
    "dots": (
        pair("tail", 700, 900),
        "alpha_pattern names modules by regular expressions: t.il",
        {"alpha_pattern": {"tail": 2, "t.il": 1}},
    ),
    "another rank": (pair("h.0.q", 8, 8, rank=3), "lora_A.weight has rank 3, adapter_config.json says 2"),
    "unknown": (pair("h.9.q", 8, 8), "updates modules that the base does not have by name: h.9.q"),
    "shape": (pair("h.0.up", 21, 8), "the update of h.0.up.weight has the shape [21, 8], the base's tensor is BF16"),
    "turned": (pair("wte", 30, 8, embedding=True), "the update of wte.weight has the shape [30, 8], the base's tensor"),
    "integers": (pair("steps", 3, 1), "updates modules that the base does not have by name: steps"),
    "rank": (
        {"h.0.q.lora_A.weight": normal(2, 8), "h.0.q.lora_B.weight": normal(8, 3)},
        "h.0.q.lora_A.weight F32 [2, 8] and h.0.q.lora_B.weight F32 [8, 3] are not the factors of an update",
    ),
    "rank 0": (
        {"h.0.q.lora_A.weight": normal(0, 8), "h.0.q.lora_B.weight": normal(8, 0)},
        "are not the factors of an update",
    ),
    "whole numbers": (
        {"h.0.q.lora_A.weight": torch.ones(2, 8, dtype=torch.int8), "h.0.q.lora_B.weight": normal(8, 2)},
        "h.0.q.lora_A.weight I8 [2, 8] and",
    ),
    "none": ({"base_model.model.h.0.q.bias": normal(8)}, "an adapter without factors"),
    "twice": (
        pair("h.0.q", 8, 8) | {"base_model.model.h.0.q.bias": normal(8), "h.0.q.bias": normal(8)},
        "several of its tensors stand for one of the base's",
    ),
    "both": (
        pair("h.0.q", 8, 8) | {"base_model.model.h.0.q.weight": normal(8, 8, seed=7)},
        "both replaces and updates h.0.q.weight",
    ),
    "large": ({name: 99 * t for name, t in pair("tail", 700, 900).items()}, "times as large as the base itself"),
}


@pytest.mark.parametrize("kind", BAD)
def test_adapters_that_fit_no_base_are_refused(repo, refused, tmp_path, kind):
    tensors, says, *changes = BAD[kind]
    settings = {key: value for change in changes for key, value in change.items()}
    refused(repo, 3, "add", write(tmp_path / "lora", tensors, **settings), "--task", "lora", says=says)


def test_an_adapter_is_no_base(wvc, tmp_path):
    ran = wvc("init", tmp_path / "repo", "--base", write(tmp_path / "lora", pair("h.0.q", 8, 8)))

    assert (ran.code, "an adapter is no base" in ran.err) == (3, True)
    assert not (tmp_path / "repo").exists()


def test_an_update_of_what_the_base_lacks_is_damage(repo, tmp_path):
    repo.put("lora", write(tmp_path / "lora", pair("h.0.q", 8, 8)))
    path = repo.path / ".wvc/tasks/lora.json"
    manifest = Manifest.from_bytes(path.read_bytes(), "lora.json")
    for of in ("tail.weight", "nowhere"):
        moved = replace(manifest, updates=(replace(manifest.updates[0], of=of),))
        path.write_bytes(moved.to_bytes())
        repo.git("commit", "-qam", "Damage it")

        ran = repo.run("status")

        assert ran.code == 4
        assert f"task lora updates {of}, which the base lacks in that shape" in ran.err


def test_a_saved_table_with_more_rows_than_the_base_s_is_refused(repo, refused, tmp_path):
    tensors = pair("h.0.q", 8, 8) | {"base_model.model.wte.weight": normal(33, 8, seed=4)}
    repo.put("lora", write(tmp_path / "lora", tensors, modules_to_save=["wte"]))
    says = "task lora: base_model.model.wte.weight has 33 rows and the base's 30, and nothing says which row is which"

    refused(
        repo, 3, "checkout", "--tasks", "lora=0.5", says=says, hint=r"pass --rule 'wte\.weight=base' to keep the base's"
    )
    repo.wvc("checkout", "--tasks", "lora=0.5", "--rule", r"wte\.weight=base", "-o", tmp_path / "out")
