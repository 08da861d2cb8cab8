"""A LoRA merged into MiniLM, trained here, and half-precision copies of fine-tunes.

LoRA is Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022: a weight matrix W stays as it is
and W + scale·B·A is used, of which only the narrow B and A learn. Merging writes that sum down as the new W.
"""

import hashlib
import math
from pathlib import Path

import assets
import torch
from finetunes import REVISION, WEIGHTS, Encoder, Run, train, write_model
from safetensors.torch import load_file
from texts import read_task
from torch.nn.utils.parametrize import register_parametrization

RANK = 8
SCALE = 2.0
"""Alpha 16 over the rank."""
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
    """Return a directory with MiniLM, in float32, after a LoRA of rank 8 learned questions and was merged."""
    run = Run("questions", *((6, 8) if quick else (60, 16)), scored=False)
    key = hashlib.sha256(repr((RANK, SCALE, ADAPTED, run.key())).encode()).hexdigest()[:16]
    final = assets.cache_dir() / f"lora-{run.task}-{key}"
    with assets.building(final) as scratch:
        if scratch is not None:
            base = assets.minilm()
            write_model(base, scratch / "f32", _train(base, run))
    return final / "f32"


def _train(base: Path, run: Run) -> dict[str, torch.Tensor]:
    """Train the adapters of all encoder layers and return the merged weights under the base's names."""
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
    return {**before, **{name: module.weight.detach().clone() for name, module in chosen.items()}}


def in_f16(name: str, directory: Path) -> Path:
    """Return a copy of a model directory with its float tensors rounded to float16, kept under ``name``."""
    final = assets.cache_dir() / f"f16-{name}-{REVISION}"
    with assets.building(final) as scratch:
        if scratch is not None:
            state = load_file(directory / WEIGHTS)
            half = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in state.items()}
            write_model(directory, scratch / "model", half)
    return final / "model"
