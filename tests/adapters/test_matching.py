"""What of the base an adapter updates: layouts, alphas, saved modules, prefixes and ties."""

import pytest
import torch
from lora import BASE, assert_near, dense, factors, normal, pair, product, write
from safetensors.torch import load_file


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
