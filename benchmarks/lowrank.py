"""A LoRA merged into MiniLM, trained here, and half-precision copies of fine-tunes.

LoRA is Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022: a weight matrix W stays as it is
and W + scale·B·A is used, of which only the narrow B and A learn. Merging writes that sum down as the new W.
"""

import hashlib
import json
import math
from pathlib import Path

import assets
import torch
from finetunes import REVISION, WEIGHTS, Encoder, Run, train, write_model
from safetensors.torch import load_file, save_file
from texts import read_task
from torch.nn.utils.parametrize import register_parametrization

RANK = 8
ALPHA = 16
SCALE = ALPHA / RANK
ADAPTED = ("query", "key", "value", "dense")


class Adapter(torch.nn.Module):
    """The map from W to W + scale·B·A; B starts at zero, so the model starts as it was.

    Args:
        shape: Of W.
        source: Where A's first values come from.
    """

    def __init__(self, shape: torch.Size, source: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(shape[1])
        self.A = torch.nn.Parameter(torch.empty(RANK, shape[1]).uniform_(-bound, bound, generator=source))
        self.B = torch.nn.Parameter(torch.zeros(shape[0], RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight: the product in float32, then one rounded addition, as when peft merges."""
        return weight + (self.B @ self.A) * SCALE


def merged(*, quick: bool) -> Path:
    """Return a directory with MiniLM, in float32, after a LoRA of rank 8 learned questions and was merged.

    The adapter itself, as PEFT lays it out, is in ``adapter`` beside it.
    """
    run = Run("questions", *((6, 8) if quick else (60, 16)), scored=False)
    key = hashlib.sha256(repr((RANK, ALPHA, ADAPTED, run.key(), "adapter")).encode()).hexdigest()[:16]
    final = assets.cache_dir() / f"lora-{run.task}-{key}"
    with assets.building(final) as scratch:
        if scratch is not None:
            base = assets.minilm()
            weights, factors = _train(base, run)
            write_model(base, scratch / "f32", weights)
            _write_adapter(scratch / "adapter", factors)
    return final / "f32"


def _write_adapter(directory: Path, factors: dict[str, torch.Tensor]) -> None:
    directory.mkdir()
    save_file(factors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(ADAPTED)}
    (directory / "adapter_config.json").write_text(json.dumps(settings, indent=2))


def _train(base: Path, run: Run) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Train the adapters of all encoder layers; return the merged weights by the base's names, and the factors."""
    before, data, threads = load_file(base / WEIGHTS), read_task(run.task), torch.get_num_threads()
    encoder = Encoder(base)
    encoder.load(before)
    with torch.no_grad():
        prototypes = encoder.embed(data.prompts, 32)
    encoder.model.requires_grad_(False)  # noqa: FBT003 -- torch's own signature
    source = torch.Generator().manual_seed(run.seed)
    linears = [(n, m) for n, m in encoder.model.named_modules() if n.startswith("encoder.")]
    chosen = {f"{n}.weight": m for n, m in linears if n.rpartition(".")[2] in ADAPTED}
    for module in chosen.values():
        register_parametrization(module, "weight", Adapter(module.weight.shape, source))
    torch.set_num_threads(run.threads)
    try:
        train(encoder, prototypes, data, run)
    finally:
        torch.set_num_threads(threads)
    factors = {}
    for name, module in chosen.items():
        (adapter,) = module.parametrizations.weight
        for factor in ("A", "B"):
            factors[f"base_model.model.{name.removesuffix('.weight')}.lora_{factor}.weight"] = getattr(adapter, factor)
    merged_weights = {name: module.weight.detach().clone() for name, module in chosen.items()}
    return {**before, **merged_weights}, {name: factor.detach().clone() for name, factor in factors.items()}


def in_f16(name: str, directory: Path) -> Path:
    """Return a copy of a model directory with its float tensors rounded to float16, kept under ``name``."""
    final = assets.cache_dir() / f"f16-{name}-{REVISION}"
    with assets.building(final) as scratch:
        if scratch is not None:
            state = load_file(directory / WEIGHTS)
            half = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in state.items()}
            write_model(directory, scratch / "model", half)
    return final / "model"
