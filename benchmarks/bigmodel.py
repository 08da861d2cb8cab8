"""Model directories of the shapes of a 7-billion-parameter Llama, generated block by block.

Weights and changes are bits from seeded generators, not training: they serve to measure memory and speed, never
ratios. No more than a few megabytes are held at a time, whatever the model's size.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint16]
"""bfloat16 bit patterns."""

BLOCK = 1 << 22
"""Elements generated at a time."""
SHARD = 1 << 31
"""Largest shard in bytes, unless one tensor is larger."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """A Llama-like model.

    Args:
        layers: Decoder layers.
        hidden: Width of the residual stream.
        mlp: Width of the feed-forward part.
        vocab: Rows of the embedding and of the head; 0 for neither.
    """

    layers: int
    hidden: int = 4096
    mlp: int = 11008
    vocab: int = 32000

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return each tensor's shape by its name, in the order of the files."""
        h, m = self.hidden, self.mlp
        attention = {f"self_attn.{part}_proj.weight": (h, h) for part in "qkvo"}
        mlp = {"mlp.gate_proj.weight": (m, h), "mlp.up_proj.weight": (m, h), "mlp.down_proj.weight": (h, m)}
        norms = {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,)}
        ends = {"model.embed_tokens.weight": (self.vocab, h), "lm_head.weight": (self.vocab, h)} if self.vocab else {}
        layers = {
            f"model.layers.{i}.{name}": shape
            for i in range(self.layers)
            for name, shape in {**attention, **mlp, **norms}.items()
        }
        return {**ends, **layers, "model.norm.weight": (h,)}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in bfloat16."""
        return sum(2 * math.prod(shape) for shape in self.tensors().values())

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest tensor."""
        return max(math.prod(shape) for shape in self.tensors().values())


def fitting(nbytes: int) -> Shapes:
    """Return the shapes with as many layers as fit ``nbytes``; widths halve until at least four layers fit."""
    width = 4096
    while width > 64:
        widths = (width, width * 43 // 16, width * 125 // 16)  # in the ratios of 4096, 11008 and 32000
        ends, one = (Shapes(layers, *widths).nbytes for layers in (0, 1))
        if (layers := (nbytes - ends) // (one - ends)) >= 4:
            return Shapes(layers, *widths)
        width //= 2
    raise ValueError(f"{nbytes} bytes are too few for such a model")


@dataclass(frozen=True, slots=True)
class Generator:
    """A source of weights, the same for the same seed and task.

    Args:
        shapes: The model.
        seed: Decides all values.
    """

    shapes: Shapes
    seed: int = 7
    _weights: Words = field(init=False, repr=False, compare=False)
    _changes: Words = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        values = random.standard_normal(BLOCK, dtype=np.float32) * np.float32(0.02)
        tiny = np.abs(values) < 1e-6  # a change of some units in the last place must not wrap zero round to a NaN
        values[tiny] = np.float32(1e-6)
        words = (values.view(np.uint32) >> 16).astype(np.uint16)
        steps = np.array([0, 0, 0, 0, 0, 0, 1, -1, 1, -1, 1, -1, 2, -2, 3, -3], np.int16).view(np.uint16)
        changes = steps[random.integers(0, 16, BLOCK, dtype=np.uint8)]
        object.__setattr__(self, "_weights", np.tile(words, 2))  # twice, so that going round is a plain slice
        object.__setattr__(self, "_changes", np.tile(changes, 2))

    def blocks(self, name: str, elements: int, task: int) -> Iterator[Words]:
        """Yield one tensor's bits, block by block; ``task`` 0 is the base, others change every tensor a little.

        A tensor starts at its own place of one random block and goes round it, so that no two tensors are equal.
        """
        place = [*name.encode(), self.seed]
        start = int(np.random.default_rng(place).integers(BLOCK))
        shift = int(np.random.default_rng([*place, task]).integers(BLOCK))
        for done in range(0, elements, BLOCK):
            count, turn = min(BLOCK, elements - done), done // BLOCK
            block = self._weights[(start + turn) % BLOCK :][:count]
            yield block + self._changes[(shift + turn) % BLOCK :][:count] if task else block

    def write(self, directory: Path, task: int) -> Path:
        """Write a complete sharded model directory and return it."""
        directory.mkdir(parents=True)
        shards = _shards({name: math.prod(shape) for name, shape in self.shapes.tensors().items()})
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        for file, shard in zip(names, shards, strict=True):
            self._write_shard(directory / file, shard, task)
        index = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        _write_json(
            directory / "model.safetensors.index.json",
            {"metadata": {"total_size": self.shapes.nbytes}, "weight_map": index},
        )
        _write_json(directory / "config.json", self._config())
        return directory

    def _write_shard(self, path: Path, shard: list[str], task: int) -> None:
        shapes = self.shapes.tensors()
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in shard:
            begin, end = end, end + 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with path.open("xb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for name in shard:
                for block in self.blocks(name, math.prod(shapes[name]), task):
                    stream.write(block.data)

    def _config(self) -> dict[str, object]:
        shapes = self.shapes
        return {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": shapes.hidden,
            "intermediate_size": shapes.mlp,
            "model_type": "llama",
            "num_attention_heads": max(1, shapes.hidden // 128),
            "num_hidden_layers": shapes.layers,
            "torch_dtype": "bfloat16",
            "vocab_size": shapes.vocab,
        }


def _shards(elements: Mapping[str, int]) -> list[list[str]]:
    """Spread tensors over shards in order."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, count in elements.items():
        if shards[-1] and filled + 2 * count > SHARD:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += 2 * count
    return shards


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
