"""The settings of LoRA adapters, and what their tensors are for."""

import json
import math
import time
import tracemalloc

import pytest

from weightvc.checkpoint.adapter import CONFIG, Factors, read, sort
from weightvc.util.errors import BadInput

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


@pytest.fixture
def settings(tmp_path):
    """Read settings: those of a plain LoRA, changed."""

    def read_settings(**changes):
        (tmp_path / CONFIG).write_text(json.dumps(PLAIN | changes))
        return read(tmp_path)

    return read_settings


def refusal(settings, **changes):
    with pytest.raises(BadInput) as caught:
        settings(**changes)
    assert CONFIG in caught.value.what
    return caught.value


def test_the_scale_is_alpha_over_the_rank_or_over_its_root(settings):
    assert settings().scale("h.0.attn", 8) == 2.0
    assert settings(use_rslora=True).scale("h.0.attn", 8) == 16 / math.sqrt(8)
    assert settings(lora_alpha=1.5).scale("x", 4) == 0.375


def test_alphas_of_modules_count_by_whole_names_and_by_ends_after_a_dot(settings):
    found = settings(alpha_pattern={"^h.0.attn": 1, "attn": 4, r"h\.1\.mlp": 32, "mlp": 64})

    alphas = {name: found.scale(name, 1) for name in ("h.0.attn", "x.h.0.attn", "h.1.mlp", "mlp", "xmlp", "hattn")}
    assert alphas == {"h.0.attn": 1, "x.h.0.attn": 4, "h.1.mlp": 32, "mlp": 64, "xmlp": 16, "hattn": 16}


def test_dots_that_stand_for_other_characters_are_refused(settings):
    found = settings(alpha_pattern={"q.proj": 2, r"v\.proj": 3, "k.proj": 4})

    found.refuse_expressions(["h.0.k.proj", "h.0.v_proj"], "DIR")
    with pytest.raises(BadInput, match=r"DIR: alpha_pattern names modules by regular expressions: q\.proj"):
        found.refuse_expressions(["h.0.q_proj"], "DIR")


def test_keys_that_can_mean_no_module_are_not_searched_for(settings):
    modules = [f"model.layers.{at}.{'x.' * 20}q" for at in range(5000)]
    found = settings(alpha_pattern={f"q.{'x.' * 20}{at:05}": 1.0 for at in range(9998)} | {r"a\.b": 1.0, "none": 2.0})

    start = time.process_time()
    found.refuse_expressions(modules, "DIR")
    assert time.process_time() - start < 2  # a search each took forty seconds


def test_more_keys_than_can_be_searched_for_are_refused(settings):
    modules = [f"model.layers.{at}.{'x.' * 20}q" for at in range(5000)]
    found = settings(alpha_pattern={f"q.{'x.' * 18}{at:03}": 1.0 for at in range(999)})

    with pytest.raises(BadInput, match="alpha_pattern has 999 names that may stand for others, too many for 5000") as e:
        found.refuse_expressions(modules, "DIR")
    assert e.value.hint == r"remove those that name no module, or write \\. for their dots"


def test_ends_of_long_names_are_not_kept(settings):
    modules = ["." * 1000 + str(at) for at in range(500)]
    tracemalloc.start()
    try:
        settings().refuse_expressions(modules, "DIR")
        settings(alpha_pattern={"q": 1.0}).refuse_expressions(modules, "DIR")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20  # all of them have a quarter of a gigabyte
    finally:
        tracemalloc.stop()


def test_the_rank_of_all_factors_is_known_where_no_pattern_says_otherwise(settings):
    assert settings().rank == 8
    assert settings(rank_pattern={"q": 4}).rank is None
    assert settings(r=None).rank is None


def test_what_peft_writes_beside_it_is_no_hindrance(settings):
    found = settings(
        auto_mapping={"base_model_class": "BertModel"}, base_model_name_or_path="x", bias="all", eva_config={"rho": 2},
        init_lora_weights="gaussian", inference_mode=True, layers_to_transform=[1], lora_dropout=0.1,
        megatron_core="megatron.core", modules_to_save=["head"], peft_version="0.21.0", qalora_group_size=16,
        rank_pattern={"a|b": 4}, target_modules="all-linear", task_type="SEQ_CLS", use_dora=False, fan_in_fan_out=True,
        something_new=None,
    )  # fmt: skip

    assert found.fan_in_fan_out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "an adapter of the kind IA3; only LoRA is read"),
        ({"peft_type": None}, "an adapter of the kind None"),
        ({"use_dora": True}, "DoRA (use_dora); only plain LoRA is read"),
        ({"use_qalora": True}, "QALoRA (use_qalora)"),
        ({"lora_bias": True}, "LoRA with biases of its own (lora_bias)"),
        ({"alora_invocation_tokens": [1]}, "aLoRA (alora_invocation_tokens)"),
        ({"trainable_token_indices": [5]}, "LoRA with trained tokens (trainable_token_indices)"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "LoRA with repeated layers (layer_replication)"),
        ({"target_parameters": ["experts.w"]}, "LoRA of bare parameters (target_parameters)"),
        ({"ensure_weight_tying": True}, "LoRA with tied factors (ensure_weight_tying)"),
        ({"use_bdlora": {"nblocks": 2}}, "block-diagonal LoRA (use_bdlora)"),
        ({"arrow_config": {"top_k": 3}}, "Arrow (arrow_config)"),
        ({"megatron_config": {"a": 1}}, "LoRA for Megatron (megatron_config)"),
        ({"init_lora_weights": "pissa_niter_4"}, "its factors began as pissa_niter_4, which may change the base's"),
        ({"init_lora_weights": {"x": 1}}, "its factors began as {'x': 1}"),
        ({"something_new": True}, "settings that this version does not know, and that may change what the adapter mea"),
        ({"lora_alpha": "16"}, "lora_alpha is no finite number: 16"),
        ({"lora_alpha": True}, "lora_alpha is no finite number"),
        ({"alpha_pattern": [1]}, "alpha_pattern maps no module names to numbers"),
        ({"alpha_pattern": {"a": None}}, "alpha_pattern of a is no finite number: None"),
        ({"alpha_pattern": {"h.(0|1)": 2, "a.*b": 3}}, "names modules by regular expressions: h.(0|1), a.*b"),
        ({"alpha_pattern": {f"m{at}": 1 for at in range(10_001)}}, "has 10001 entries, more than the limit of 10000"),
        ({"use_rslora": 1}, "use_rslora is neither true nor false"),
    ],
)  # fmt: skip
def test_what_is_no_plain_lora_is_refused_by_name(settings, changes, words):
    error = refusal(settings, **changes)

    assert words in error.what
    assert error.hint


def test_hints_lead_to_what_can_be_added(settings):
    assert refusal(settings, use_dora=True).hint == (
        "merge it into its base with peft's merge_and_unload, save that, and add it"
    )
    assert "path_initial_model_for_weight_conversion" in refusal(settings, init_lora_weights="olora").hint
    assert refusal(settings, something_new=1).hint.startswith("upgrade weightvc, or merge it")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", "no JSON object"),
        (b"{", "adapter_config.json: "),
        (b'{"r":1,"r":2}', "duplicate name 'r'"),
        (b'{"lora_alpha":1e999}', "a number beyond double precision"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
    ],
)
def test_settings_that_cannot_be_read(tmp_path, data, words):
    (tmp_path / CONFIG).write_bytes(data)

    with pytest.raises(BadInput, match=words):
        read(tmp_path)


def test_settings_of_any_size_are_not_parsed(tmp_path):
    with (tmp_path / CONFIG).open("wb") as file:
        file.truncate(200 * 2**20)

    with pytest.raises(BadInput, match="more than the limit of"):
        read(tmp_path)


def test_factors_are_told_from_other_tensors():
    factors, others = sort(
        [
            "base_model.model.h.q.lora_A.weight", "base_model.model.h.q.lora_B.weight",
            "base_model.model.wte.lora_embedding_A", "base_model.model.wte.lora_embedding_B",
            "base_model.model.wte.base_layer.weight", "base_model.model.head.weight", "h.q.bias",
        ],
        "DIR",
    )  # fmt: skip

    prefix = "base_model.model."
    assert factors == {
        "h.q": Factors(f"{prefix}h.q.lora_A.weight", f"{prefix}h.q.lora_B.weight", embedding=False),
        "wte": Factors(f"{prefix}wte.lora_embedding_A", f"{prefix}wte.lora_embedding_B", embedding=True),
    }
    assert others == {
        f"{prefix}wte.base_layer.weight": "wte.weight", f"{prefix}head.weight": "head.weight", "h.q.bias": "h.q.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["h.lora_A.weight"], "DIR: factors without their other half: h.lora_A.weight"),
        (["h.lora_A.weight", "h.lora_embedding_B"], "DIR: several factors of h"),
        (["h.lora_A.weight", "base_model.model.h.lora_A.weight"], "DIR: several factors of h"),
        (["h.lora_magnitude_vector"], "DIR: h.lora_magnitude_vector is no factor of a plain LoRA"),
        (["h.lora_B.bias"], "h.lora_B.bias is no factor"),
    ],
)
def test_tensors_of_other_kinds_are_refused(names, words):
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        sort(names, "DIR")
