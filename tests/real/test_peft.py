"""Adapters that peft itself wrote, against the models that peft itself merges."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

SMALL = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 97}
GPT2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=97, n_positions=16, bos_token_id=0, eos_token_id=0)

CASES = {
    "linear layers and biases": (
        BertForSequenceClassification,
        BertConfig(intermediate_size=64, max_position_embeddings=16, **SMALL),
        {"target_modules": ["query", "dense"], "bias": "lora_only", "task_type": "SEQ_CLS"},
    ),
    "turned layers, an embedding, alphas and ranks of modules": (
        GPT2LMHeadModel,
        GPT2,
        {
            "target_modules": ["c_attn", "c_proj", "wte"],
            "use_rslora": True,
            "fan_in_fan_out": True,
            "alpha_pattern": {"h.0.attn.c_attn": 3},
            "rank_pattern": {"h.0.attn.c_proj": 2},
            "task_type": "CAUSAL_LM",
        },
    ),
    "saved modules and an output layer": (
        LlamaForCausalLM,
        LlamaConfig(intermediate_size=64, tie_word_embeddings=False, **SMALL),
        {
            "target_modules": ["q_proj", "v_proj", "embed_tokens", "lm_head"],
            "modules_to_save": ["norm"],
            "task_type": "CAUSAL_LM",
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_merged_adapter_is_what_peft_merges(new_repo, tmp_path, case):
    kind, config, settings = CASES[case]
    torch.manual_seed(1)
    kind(config).save_pretrained(tmp_path / "base")
    tuned = get_peft_model(kind.from_pretrained(tmp_path / "base"), LoraConfig(r=4, lora_alpha=8, **settings))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape))
    tuned.save_pretrained(tmp_path / "adapter")
    peft = PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "adapter").merge_and_unload()
    peft.save_pretrained(tmp_path / "merged")

    repo = new_repo(tmp_path / "base", {"lora": tmp_path / "adapter"})
    repo.wvc("checkout", "--tasks", "lora", "--dtype", "base", "-o", tmp_path / "ours")
    repo.wvc("checkout", "--tasks", "lora", "-o", tmp_path / "exact")

    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "merged"))
    base = load_file(tmp_path / "base/model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-7)
    assert sum(not torch.equal(base[name], tensor) for name, tensor in theirs.items()) > 4
    for path in (tmp_path / "adapter").iterdir():
        assert (tmp_path / "exact" / path.name).read_bytes() == path.read_bytes()
    PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "exact")
    kind.from_pretrained(tmp_path / "ours")
