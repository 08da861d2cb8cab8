"""LoRA adapters as tasks: what they update, what a merge makes of them, and that they come back as they were."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightvc.merge import table
from weightvc.objects.manifest import Manifest
from weightvc.repo.decode import SPAN

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "/elsewhere"}
FILES = {"README.md": "---\nlibrary_name: peft\n---\n"}


def normal(*shape, seed=0, dtype=torch.float32):
    made = torch.Generator().manual_seed(seed + 31 * sum(shape))
    return torch.randn(shape, generator=made, dtype=torch.float64).to(dtype)


BASE = {
    "wte.weight": normal(30, 8),
    "h.0.q.weight": normal(8, 8),
    "h.0.q.bias": normal(8),
    "h.0.up.weight": normal(20, 8, dtype=torch.bfloat16),
    "h.0.turned.weight": normal(8, 24),
    "h.0.conv.weight": normal(6, 4, 3, 3),
    "steps": torch.arange(3),
    "tail.weight": normal(700, 900),
}


def product(a, b):
    return b.double().flatten(1) @ a.double().flatten(1)


def pair(module, out, *columns, rank=2, embedding=False, seed=1):
    """Factors by their names, small beside the base."""
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    ones = (1,) * (len(columns) - 1)
    a, b = 0.05 * normal(rank, *columns, seed=seed), normal(out, rank, *ones, seed=seed + 1)
    return {f"base_model.model.{module}.{name}": factor for name, factor in zip(names, (a, b), strict=True)}


def write(path, tensors, *, kind="safetensors", **changes):
    path.mkdir()
    if kind == "safetensors":
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(tensors, path / "adapter_model.bin")
    (path / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    for name, text in FILES.items():
        (path / name).write_text(text)
    return path


@pytest.fixture(scope="module")
def made_once(sandbox, models, wvc, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    assert wvc("init", root / "repo", "--base", models.write(root / "base", BASE)).code == 0
    return sandbox(root / "repo")


@pytest.fixture
def repo(made_once, copied):
    """A repository over `BASE` without a task."""
    return copied(made_once.path)


def factors(tensors, module):
    """A and B of a module, by the end of their names."""
    return [tensors[f"base_model.model.{module}.{name}.weight"] for name in ("lora_A", "lora_B")]


def dense(repo, models, out, *options):
    repo.wvc("checkout", "-o", out, *options)
    return models.read(out)


def assert_near(found, wanted):
    """Compare with what is worked out in float64, to the rounding of the result's dtype."""
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=2 * torch.finfo(found.dtype).eps, atol=1e-9)


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


def rules_of(directory):
    lines = json.loads((directory / "wvc.lock.json").read_text())["tensors"]
    return {line["name"]: line["rule"] for line in lines}


def factors_of(tensors, module, *, scale=3.0, turned=False):
    """The task vector of a module as a product of two float64 matrices."""
    a, b = (factor.double() for factor in factors(tensors, module))
    return (scale * a.T, b.T) if turned else (scale * b, a)


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


def test_matrices_with_their_inputs_in_rows_embeddings_and_convolutions(repo, models, tmp_path):
    tensors = (
        pair("h.0.turned", 24, 8)
        | pair("h.0.q", 8, 8)
        | pair("h.0.conv", 6, 4, 3, 3)
        | pair("wte", 8, 30, embedding=True)
    )
    repo.put("lora", write(tmp_path / "lora", tensors, fan_in_fan_out=True))

    merged = dense(repo, models, tmp_path / "out", "--tasks", "lora", "--dtype", "base")

    for module in ("h.0.turned", "h.0.q"):
        wanted = BASE[f"{module}.weight"].double() + 3.0 * product(*factors(tensors, module)).T
        assert_near(merged[f"{module}.weight"], wanted)
    a, b = (tensors[f"base_model.model.wte.lora_embedding_{factor}"] for factor in "AB")
    assert_near(merged["wte.weight"], BASE["wte.weight"].double() + 3.0 * product(a, b).T)
    moved = 3.0 * product(*factors(tensors, "h.0.conv")).reshape(6, 4, 3, 3)
    assert_near(merged["h.0.conv.weight"], BASE["h.0.conv.weight"].double() + moved)


def test_a_square_matrix_is_not_turned_unless_the_settings_say_so(repo, models, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    repo.put("lora", write(tmp_path / "lora", tensors))

    merged = dense(repo, models, tmp_path / "out", "--tasks", "lora", "--dtype", "base")

    assert_near(merged["h.0.q.weight"], BASE["h.0.q.weight"].double() + 3.0 * product(*tensors.values()))


@pytest.mark.parametrize("flag", [False, True])
def test_a_square_matrix_goes_the_way_of_its_nearest_sibling_whatever_the_settings_say(repo, models, tmp_path, flag):
    tensors = pair("h.0.q", 8, 8) | pair("h.0.turned", 24, 8) | pair("tail", 700, 900)
    repo.put("lora", write(tmp_path / "lora", tensors, fan_in_fan_out=flag))

    merged = dense(repo, models, tmp_path / "out", "--tasks", "lora", "--dtype", "base")

    assert_near(merged["h.0.q.weight"], BASE["h.0.q.weight"].double() + 3.0 * product(*factors(tensors, "h.0.q")).T)
    assert_near(merged["tail.weight"], BASE["tail.weight"].double() + 3.0 * product(*factors(tensors, "tail")))


def test_alphas_of_modules(repo, models, tmp_path):
    tensors = pair("h.0.q", 8, 8) | pair("tail", 700, 900)
    repo.put("lora", write(tmp_path / "lora", tensors, alpha_pattern={"h.0.q": 1}))

    merged = dense(repo, models, tmp_path / "out", "--tasks", "lora", "--dtype", "base")

    assert_near(merged["h.0.q.weight"], BASE["h.0.q.weight"].double() + 0.5 * product(*factors(tensors, "h.0.q")))
    assert_near(merged["tail.weight"], BASE["tail.weight"].double() + 3.0 * product(*factors(tensors, "tail")))


def test_saved_modules_biases_and_new_heads(repo, models, tmp_path):
    prefix = "base_model.model."
    tensors = pair("h.0.q", 8, 8) | {
        f"{prefix}h.0.q.bias": normal(8, seed=4),
        f"{prefix}wte.weight": normal(30, 8, seed=4),
        f"{prefix}score.weight": normal(2, 8),
    }
    source = write(tmp_path / "lora", tensors, modules_to_save=["wte", "score"])

    added = repo.put("lora", source)
    merged = dense(repo, models, tmp_path / "out", "--tasks", "lora", "--dtype", "base")

    assert (added["tensors"]["delta"], added["tensors"]["added"]) == (2, 1)
    assert torch.equal(merged["h.0.q.bias"], tensors[f"{prefix}h.0.q.bias"])
    assert torch.equal(merged["wte.weight"], tensors[f"{prefix}wte.weight"])
    assert load_file(tmp_path / "out/heads/lora.safetensors").keys() == {f"{prefix}score.weight"}
    assert repo.json("show", "lora")["new"] == [f"{prefix}score.weight"]
    repo.wvc("checkout", "--tasks", "lora", "-o", tmp_path / "exact")
    assert models.contents(tmp_path / "exact") == models.contents(source)


def test_names_match_after_a_prefix_of_the_base(repository, models, tmp_path):
    repo = repository(models.write(tmp_path / "base", {f"bert.{name}": tensor for name, tensor in BASE.items()}))
    tensors = pair("h.0.q", 8, 8) | pair("h.0.up", 20, 8)
    added = repo.put("lora", write(tmp_path / "lora", tensors))

    merged = dense(repo, models, tmp_path / "out", "--tasks", "lora", "--dtype", "base")

    assert "names matched after the prefix 'bert.' that only the base carries" in added["notes"]
    wanted = BASE["h.0.q.weight"].double() + 3.0 * product(*factors(tensors, "h.0.q"))
    assert_near(merged["bert.h.0.q.weight"], wanted)


def test_an_embedding_saved_beside_its_update_is_the_bases_own(repo, tmp_path):
    tensors = pair("wte", 8, 30, embedding=True)
    tensors["base_model.model.wte.base_layer.weight"] = BASE["wte.weight"]
    added = repo.put("lora", write(tmp_path / "lora", tensors))

    assert added["tensors"] == {"same": 1, "delta": 0, "added": 0, "removed": 0, "reshaped": 0, "updated": 1}
    assert repo.json("diff", "lora")["total"]["changed_a"] == 1


def test_an_embedding_saved_in_a_wider_dtype_is_the_bases_own_all_the_same(repository, models, tmp_path):
    half = BASE | {"wte.weight": BASE["wte.weight"].bfloat16()}
    repo = repository(models.write(tmp_path / "base", half))
    tensors = pair("wte", 8, 30, embedding=True)
    tensors["base_model.model.wte.base_layer.weight"] = half["wte.weight"].float()

    added = repo.put("lora", write(tmp_path / "lora", tensors))

    assert (added["tensors"]["updated"], added["tensors"]["reshaped"]) == (1, 1)
    assert any("it moves wte.weight: where the model ties other tensors to that" in note for note in added["notes"])


def test_a_tie_of_the_base_is_cut_where_an_adapter_updates_one_end(repository, models, tmp_path):
    tied = BASE | {"head.weight": BASE["wte.weight"].clone()}
    repo = repository(models.write(tmp_path / "base", tied))
    one = pair("wte", 8, 30, embedding=True)
    both = one | {
        f"base_model.model.head.lora_{at}.weight": one[f"base_model.model.wte.lora_embedding_{other}"].T.contiguous()
        for at, other in ("AB", "BA")
    }
    repo.put("one", write(tmp_path / "one", one))
    repo.put("full", models.write(tmp_path / "full", models.tuned(tied, 1, only="tail")))

    merged = dense(repo, models, tmp_path / "out", "--tasks", "one,full", "--method", "task_arithmetic")
    repo.put("both", write(tmp_path / "both", both))
    again = dense(repo, models, tmp_path / "again", "--tasks", "both,full", "--method", "task_arithmetic")

    assert torch.equal(merged["head.weight"], tied["head.weight"])
    assert not torch.equal(merged["wte.weight"], tied["wte.weight"])
    assert_near(again["head.weight"], again["wte.weight"])
    assert_near(again["wte.weight"], merged["wte.weight"])


def test_diff_show_and_the_norm_agree_with_the_factors(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8) | pair("tail", 700, 900)
    source = write(tmp_path / "lora", tensors)
    added = repo.put("lora", source)
    floats = [tensor.double() for tensor in BASE.values() if tensor.is_floating_point()]
    held = math.sqrt(sum(float((tensor**2).sum()) for tensor in floats))
    moved = math.sqrt(sum(float(product(*factors(tensors, m)).norm() ** 2) for m in ("h.0.q", "tail")))

    for other in ("lora", source, "HEAD"):
        row = repo.json("diff", other)
        assert row["total"]["norm_a"] == pytest.approx(3.0 * moved / held, rel=1e-6)
        assert (row["total"]["changed_a"], row["apart"]) == (2, 0)
    assert repo.json("diff", "lora", source)["total"]["differing"] == 0
    assert added["relative_norm"] == pytest.approx(3.0 * moved / held, rel=0.2)
    assert repo.json("show", "lora")["updates"] == {"2": 2}
    assert "adapter  updates 2 tensors by rank 2" in repo.wvc("show", "lora")


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


def test_the_same_factors_at_another_scale_are_another_version(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    first = repo.put("lora", write(tmp_path / "lora", tensors))

    again = repo.json("add", write(tmp_path / "again", tensors, lora_alpha=12), "--task", "lora")

    assert again["change"] == "version"
    assert again["manifest"] != first["manifest"]


def test_factors_stay_exact_under_a_lossy_codec(repo, models, tmp_path):
    source = write(tmp_path / "lora", pair("tail", 700, 900) | {"base_model.model.h.0.q.weight": normal(8, 8, seed=9)})

    repo.put("lora", source, "--codec", "int8")
    lossy = {line["name"] for line in repo.manifest("lora")["tensors"] if "lossy" in line}
    repo.wvc("checkout", "--tasks", "lora", "-o", tmp_path / "out")

    assert lossy <= {"base_model.model.h.0.q.weight"}
    got, wanted = (models.read(path) for path in (tmp_path / "out", source))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted if "lora_" in name)


def test_estimates_dry_runs_and_another_encoding(repo, models, tmp_path):
    source = write(tmp_path / "lora", pair("tail", 700, 900))

    planned = repo.json("add", source, "--task", "lora", "--dry-run")
    estimated = repo.json("add", source, "--task", "lora", "--estimate")
    repo.put("lora", source)
    repo.wvc("repack", "lora", "--codec", "raw")
    repo.wvc("commit", "-m", "Raw")
    peak = repo.json("checkout", "--tasks", "lora", "--dtype", "F32", "-o", tmp_path / "no", "--dry-run")["peak_bytes"]
    repo.wvc("checkout", "--tasks", "lora", "-o", tmp_path / "out")

    assert planned["tensors"]["updated"] == 1
    assert estimated["bytes"] == 4 * 2 * (700 + 900)
    assert peak > repo.json("checkout", "--tasks", "", "-o", tmp_path / "no", "--dry-run")["peak_bytes"]
    assert models.contents(tmp_path / "out") == models.contents(source)
    repo.wvc("fsck", "--full")


SCORER = """
import sys
from safetensors.torch import load_file

print(float(load_file(sys.argv[1] + "/model.safetensors")["h.0.q.weight"].double().sum()))
"""


def test_an_evaluator_gets_the_adapter_merged_into_the_base(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    (tmp_path / "score.py").write_text(SCORER)

    evaluator = f"{sys.executable} {tmp_path / 'score.py'}"
    done = repo.json("add", write(tmp_path / "lora", tensors), "--task", "lora", "--eval", evaluator)

    before, moved = BASE["h.0.q.weight"].double(), 3.0 * product(*tensors.values())
    score = done["scores"]["score"]
    assert score["base"] == pytest.approx(float(before.sum()))
    assert score["tuned"] == pytest.approx(float((before + moved).sum()), rel=1e-5)
    assert score["stored"] == score["tuned"]


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


def test_ranks_beyond_the_matrix_are_measured_without_their_gram_matrix(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8, rank=4000)
    small = {name: 0.05 * factor for name, factor in tensors.items()}

    added = repo.put("lora", write(tmp_path / "lora", small, r=4000))
    row = repo.json("diff", "lora")["total"]

    assert added["relative_norm"] == pytest.approx(row["norm_a"], rel=0.2)


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


def test_a_dry_run_counts_the_factors_that_it_reads(repo, tmp_path):
    repo.put("lora", write(tmp_path / "lora", pair("h.0.q", 8, 8)))

    lines = {line["name"]: line for line in repo.json("checkout", "-n", "--tasks", "lora=0.5")["plan"]}

    places = {line["name"]: line["size"] for line in repo.manifest("lora")["tensors"]}
    base = {line["name"]: line["size"] for line in json.loads((repo.path / ".wvc/base.json").read_text())["tensors"]}
    name = "h.0.q.weight"
    assert lines[name]["read_bytes"] == base[name] + sum(places.values())
    assert (lines[name]["why"], lines[name]["tasks"]) == ("changed by one task", ["lora"])


def test_a_saved_table_with_more_rows_than_the_base_s_is_refused(repo, refused, tmp_path):
    tensors = pair("h.0.q", 8, 8) | {"base_model.model.wte.weight": normal(33, 8, seed=4)}
    repo.put("lora", write(tmp_path / "lora", tensors, modules_to_save=["wte"]))
    says = "task lora: base_model.model.wte.weight has 33 rows and the base's 30, and nothing says which row is which"

    refused(
        repo, 3, "checkout", "--tasks", "lora=0.5", says=says, hint=r"pass --rule 'wte\.weight=base' to keep the base's"
    )
    repo.wvc("checkout", "--tasks", "lora=0.5", "--rule", r"wte\.weight=base", "-o", tmp_path / "out")
