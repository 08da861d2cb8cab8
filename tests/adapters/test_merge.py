"""LoRA adapters as tasks: they come back as they were, and merge as the models that they stand for."""

import json
import math

import pytest
import torch
from lora import BASE, assert_near, dense, factors, pair, product, write
from safetensors.torch import load_file


def test_an_adapter_alone_comes_back_file_by_file(repo, models, tmp_path):
    source = write(tmp_path / "lora", pair("h.0.q", 8, 8) | pair("h.0.up", 20, 8))

    added = repo.put("lora", source)
    done = repo.json("checkout", "--tasks", "lora", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(source)
    assert added["tensors"] == {"same": 0, "delta": 0, "added": 0, "removed": 0, "reshaped": 0, "updated": 2}
    assert added["notes"] == ["a LoRA adapter of rank 2, kept as it is: it updates 2 tensors of the base"]
    assert done["notes"] == ["task lora is an adapter and comes back as it was added; pass --dtype base to merge it in"]
    assert repo.json("verify", tmp_path / "out", "--replay")["ok"]


def test_a_pickled_adapter_comes_back_as_safetensors(repo, models, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    repo.put("lora", write(tmp_path / "lora", tensors, kind="bin"))

    repo.wvc("checkout", "--tasks", "lora", "--max-shard-size", "1KB", "-o", tmp_path / "out")

    models.assert_same(load_file(tmp_path / "out/adapter_model.safetensors"), tensors)
    assert (tmp_path / "out/adapter_config.json").exists()


def test_one_adapter_is_merged_into_the_base_at_another_coefficient_or_by_a_dtype(repo, models, tmp_path):
    tensors = pair("h.0.q", 8, 8) | pair("h.0.up", 20, 8) | pair("tail", 700, 900)
    repo.put("lora", write(tmp_path / "lora", tensors))

    whole = dense(repo, models, tmp_path / "whole", "--tasks", "lora", "--dtype", "base")
    half = dense(repo, models, tmp_path / "half", "--tasks", "lora=0.5", "--method", "task_arithmetic")

    assert sorted(whole) == sorted(half) == sorted(BASE)
    for module in ("h.0.q", "h.0.up", "tail"):
        before, moved = BASE[f"{module}.weight"].double(), 3.0 * product(*factors(tensors, module))
        assert_near(whole[f"{module}.weight"], before + moved)
        assert_near(half[f"{module}.weight"], before + 0.5 * moved)
    assert torch.equal(half["wte.weight"], BASE["wte.weight"])
    assert half["h.0.up.weight"].dtype == torch.bfloat16


def test_two_adapters_and_a_model_add_up(repo, models, tmp_path):
    one, two = pair("h.0.q", 8, 8), pair("h.0.q", 8, 8, rank=3, seed=9)
    tuned = models.tuned(BASE, 3)
    repo.put("one", write(tmp_path / "one", one))
    repo.put("two", write(tmp_path / "two", two, use_rslora=True, r=3))
    repo.put("full", models.write(tmp_path / "full", tuned))

    merged = dense(repo, models, tmp_path / "out", "--method", "task_arithmetic")

    before = BASE["h.0.q.weight"].double()
    moved = 3.0 * product(*one.values()) + 6 / math.sqrt(3) * product(*two.values())
    assert_near(merged["h.0.q.weight"], before + moved + (tuned["h.0.q.weight"].double() - before))


@pytest.mark.parametrize("method", ["opcm", "opcm-s", "task_arithmetic"])
@pytest.mark.parametrize("kind", ["A", "B", "scale"])
def test_an_update_that_learned_nothing_changes_no_bit_of_a_merge(repo, models, tmp_path, method, kind):
    for name, seed in (("one", 1), ("two", 5)):
        repo.put(name, write(tmp_path / name, pair("tail", 700, 900, seed=seed) | pair("h.0.up", 20, 8, seed=seed)))
    before = dense(repo, models, tmp_path / "before", "--tasks", "one,two", "--method", method)
    fresh = pair("tail", 700, 900, seed=9) | pair("h.0.q", 8, 8, seed=9)
    fresh = {n: torch.zeros_like(f) if f"lora_{kind}" in n else f for n, f in fresh.items()}
    settings = {"lora_alpha": 0} if kind == "scale" else {}
    repo.put("fresh", write(tmp_path / "fresh", fresh, **settings))

    after = dense(repo, models, tmp_path / "after", "--tasks", "one,fresh,two", "--method", method)

    models.assert_same(after, before)
    lines = {line["name"]: line for line in json.loads((tmp_path / "after/wvc.lock.json").read_text())["tensors"]}
    assert lines["h.0.q.weight"]["rule"] == "base"


@pytest.mark.parametrize("method", ["opcm", "opcm-s", "linear"])
def test_adapters_merge_as_the_models_that_they_stand_for(repo, models, tmp_path, method):
    tensors = [pair("tail", 700, 900, seed=seed) | pair("h.0.q", 8, 8, seed=seed) for seed in (1, 5)]
    for at, held in enumerate(tensors):
        model = dict(BASE)
        for module in ("tail", "h.0.q"):
            name = f"{module}.weight"
            model[name] = (BASE[name].double() + 3.0 * product(*factors(held, module))).float()
        repo.put(f"lora{at}", write(tmp_path / f"lora{at}", held))
        repo.put(f"full{at}", models.write(tmp_path / f"full{at}", model))

    loras = dense(repo, models, tmp_path / "a", "--tasks", "lora0,lora1", "--method", method)
    fulls = dense(repo, models, tmp_path / "b", "--tasks", "full0,full1", "--method", method)

    for name in ("tail.weight", "h.0.q.weight"):
        found, wanted = (model[name].double() - BASE[name].double() for model in (loras, fulls))
        assert (found - wanted).norm() < 1e-5 * wanted.norm()


def test_a_full_fine_tune_beside_adapters_is_merged_as_a_matrix(repo, models, tmp_path):
    for seed in (1, 5):
        repo.put(f"lora{seed}", write(tmp_path / f"lora{seed}", pair("tail", 700, 900, seed=seed)))
    plan = repo.json("checkout", "--dry-run", "-o", tmp_path / "out")
    repo.put("full", models.write(tmp_path / "full", models.tuned(BASE, 3, only="tail")))

    more = repo.json("checkout", "-o", tmp_path / "out")

    assert (plan["rules"]["factored"], plan["rules"]["projected"]) == (1, 0)
    assert (more["rules"]["factored"], more["rules"]["projected"]) == (0, 1)
    assert plan["scratch_bytes"] == 8 * 4 * (700 + 900)
    assert plan["peak_bytes"] < more["peak_bytes"] - 7 * 8 * 700 * 900


def test_reverting_an_adapter_leaves_no_trace_of_it(repo, models, tmp_path):
    tuned = models.write(tmp_path / "full", models.tuned(BASE, 3))
    repo.put("full", tuned)
    repo.wvc("checkout", "--method", "opcm", "-o", tmp_path / "before")
    repo.put("lora", write(tmp_path / "lora", pair("tail", 700, 900)))
    repo.put("other", write(tmp_path / "other", pair("tail", 700, 900, seed=7)))
    repo.wvc("checkout", "--method", "opcm", "-o", tmp_path / "model")
    repo.wvc("revert", "other", "-m", "Take it out")

    done = repo.json("revert", "lora", "-m", "Take it out")

    assert done["unproved"] == []
    models.assert_same(models.read(tmp_path / "model"), models.read(tmp_path / "before"))


def test_a_directory_stays_a_model_when_an_adapter_is_all_that_is_left_of_it(repo, models, tmp_path):
    repo.put("lora", write(tmp_path / "lora", pair("tail", 700, 900)))
    repo.put("full", models.write(tmp_path / "full", models.tuned(BASE, 3)))
    repo.wvc("recipe", "save", "prod", "--tasks", "lora,full=0.5")
    repo.wvc("commit", "-m", "Save it")
    for options in (("-o", "all"), ("--tasks", "full,lora", "-o", "some"), ("--recipe", "prod", "-o", "named")):
        repo.wvc("checkout", *options[:-1], tmp_path / options[-1])
    wanted = dense(repo, models, tmp_path / "wanted", "--tasks", "lora", "--dtype", "base")

    assert repo.json("revert", "full", "-m", "Take it out")["unproved"] == []

    for name in ("all", "some", "named"):
        models.assert_same(models.read(tmp_path / name), wanted)
        assert repo.json("verify", tmp_path / name, "--replay")["ok"]
    assert "out of date" not in repo.wvc("status")
    models.assert_same(dense(repo, models, tmp_path / "anew"), wanted)
    models.assert_same(dense(repo, models, tmp_path / "recipe", "--recipe", "prod"), wanted)


def test_a_directory_is_the_base_when_the_last_adapter_is_gone(repo, models, tmp_path):
    repo.put("lora", write(tmp_path / "lora", pair("tail", 700, 900)))
    repo.wvc("checkout", "-o", tmp_path / "all")

    repo.wvc("revert", "lora", "-m", "Take it out")

    models.assert_same(models.read(tmp_path / "all"), BASE)
    assert "the base bit for bit, up to date" in repo.wvc("status")


def test_a_merge_in_the_bases_own_dtypes_casts_nothing(repo, models, tmp_path):
    repo.put("lora", write(tmp_path / "lora", pair("h.0.q", 8, 8)))
    repo.wvc("recipe", "save", "merged", "--tasks", "lora", "--dtype", "base")
    repo.wvc("commit", "-m", "Save it")

    ran = repo.wvc("checkout", "--recipe", "merged", "-o", tmp_path / "out")
    merged = models.read(tmp_path / "out")

    assert {name: tensor.dtype for name, tensor in merged.items()} == {n: tensor.dtype for n, tensor in BASE.items()}
    assert "lora by opcm-s (dtype base)" in ran
    assert repo.json("verify", tmp_path / "out", "--replay")["ok"]
    assert repo.json("checkout", "--tasks", "", "--dtype", "base", "-o", tmp_path / "base")["exact"]
