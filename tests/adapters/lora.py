"""Small LoRA adapters, a base that they update, and what a merge of both is."""

import json

import torch
from safetensors.torch import save_file

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


def factors(tensors, module):
    """A and B of a module, by the end of their names."""
    return [tensors[f"base_model.model.{module}.{name}.weight"] for name in ("lora_A", "lora_B")]


def dense(repo, models, out, *options):
    repo.wvc("checkout", "-o", out, *options)
    return models.read(out)


def assert_near(found, wanted):
    """Compare with what is worked out in float64, to the rounding of the result's dtype."""
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=2 * torch.finfo(found.dtype).eps, atol=1e-9)


def rules_of(directory):
    lines = json.loads((directory / "wvc.lock.json").read_text())["tensors"]
    return {line["name"]: line["rule"] for line in lines}


def factors_of(tensors, module, *, scale=3.0, turned=False):
    """The task vector of a module as a product of two float64 matrices."""
    a, b = (factor.double() for factor in factors(tensors, module))
    return (scale * a.T, b.T) if turned else (scale * b, a)
