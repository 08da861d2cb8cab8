"""Whether a checkpoint is a fine-tune of the base: which tensors are which, and how far they moved."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from weightvc.checkpoint.adapter import is_factor
from weightvc.checkpoint.directory import is_odd
from weightvc.checkpoint.reader import Checkpoint
from weightvc.delta import values
from weightvc.delta.codec import CHUNK
from weightvc.objects.manifest import Manifest
from weightvc.objects.tensors import MERGED, TensorSpec
from weightvc.repo import adapters
from weightvc.repo.align import Alignment
from weightvc.repo.decode import Reader
from weightvc.repo.repository import Handle
from weightvc.util.errors import BadInput
from weightvc.util.text import Note, counted, listed, printable

UNRELATED = 1.0
"""Norm of the task vector over the norm of the base above which a checkpoint is taken for no fine-tune of it.

Fine-tunes measure well below; unrelated checkpoints of one architecture about 1.4, the square root of two.
"""

COMPARABLE = 0.1
"""Share of the values in tensors that the base has by name that must have its dtype and shape.

A copy in another precision has next to none, a fine-tune with a new head or a resized embedding most.
"""

_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""How torch calls the dtypes that transformers loads a model in."""

_SAMPLED_CHUNKS = 4


def match(
    repo: Handle, path: Path, checkpoint: Checkpoint, base: Manifest, *, force: bool
) -> tuple[Alignment, float | None]:
    """Return which tensors are which of the base's, and the norm of the task vector over the base's.

    Raises:
        BadInput: the checkpoint is no fine-tune of this base, unless ``force`` says that it may be none.
    """
    specs = {entry.spec.name: entry.spec for entry in base.tensors}
    matched = adapters.match(checkpoint, specs)
    reader = Reader(repo.store, base)
    adapters.refuse_both(checkpoint, matched, base, reader)
    relative = _relative_norm(checkpoint, reader, base, matched)
    if not force:
        if matched.rivals:
            raise BadInput(
                f"{path}: its names fit the base's after {listed(list(matched.rivals))} alike",
                "rename its tensors as the base's, or pass --force-base to take the first",
            )
        if checkpoint.adapter is None and any(map(is_factor, checkpoint.tensors)):
            raise BadInput(
                f"{path}: holds factors of a LoRA, and no adapter_config.json that says what they mean",
                "give the adapter's directory, or pass --force-base to store it whole",
            )
        pairs = [(checkpoint.tensors[name], specs[other]) for name, other in matched.names.items()]
        _refuse_unrelated(path, pairs, relative, adapter=checkpoint.adapter is not None)
    return matched, relative if relative is None or math.isfinite(relative) else None


def _relative_norm(checkpoint: Checkpoint, reader: Reader, base: Manifest, matched: Alignment) -> float | None:
    """Estimate the norm of the task vector over that of the base, from a few chunks of every matching tensor.

    An adapter leaves the other tensors of the base as they are: they count too. The norms of its updates are exact.
    """
    own = {other: name for name, other in matched.names.items()}
    moved = sum(adapters.square(checkpoint, update) for update in matched.updates)
    held = 0.0
    for entry in base.tensors if matched.updates else [base.by_name[other] for other in own]:
        name, kind = own.get(entry.spec.name), entry.spec
        like = name is None or checkpoint.tensors[name].same_kind(kind)
        if kind.dtype not in MERGED or not kind.nbytes or not like:
            continue
        chunks = math.ceil(kind.nbytes / CHUNK)
        picked = sorted({at * chunks // _SAMPLED_CHUNKS for at in range(_SAMPLED_CHUNKS)})
        decoder, data = reader.open(entry), None if name is None else checkpoint.read(name)
        for at in picked:
            out = memoryview(bytearray(min(CHUNK, kind.nbytes - at * CHUNK)))
            decoder.read_into(out, at * CHUNK)
            start = values.to_float(kind.dtype, out)
            with np.errstate(all="ignore"):
                tuned = start if data is None else values.to_float(kind.dtype, data[at * CHUNK : (at + 1) * CHUNK])
                delta = tuned - start
                moved += float(np.dot(delta, delta)) * chunks / len(picked)
                held += float(np.dot(start, start)) * chunks / len(picked)
    if held <= 0 or math.isnan(moved) or not (math.isfinite(moved) or checkpoint.adapter):
        return None
    return math.sqrt(moved / held)


def _refuse_unrelated(
    path: Path, pairs: Sequence[tuple[TensorSpec, TensorSpec]], relative: float | None, *, adapter: bool
) -> None:
    """Refuse a checkpoint whose tensors, paired with the base's of their names, are those of no fine-tune of it."""
    hint = "check that PATH is a fine-tune of this repository's base, or pass --force-base"
    if not pairs and not adapter:
        raise BadInput(f"{path}: not one tensor has a name that the base has", hint)
    unlike = [(spec, other) for spec, other in pairs if not spec.same_kind(other)]
    named, odd = (sum(spec.elements for spec, _ in some) for some in (pairs, unlike))
    if named and not adapter and named - odd < COMPARABLE * named:
        raise _incomparable(unlike, odd, f"{path}: {100 * odd / named:.0f} % of its values")
    if relative is not None and relative > UNRELATED:
        raise BadInput(f"{path}: the task vector is {relative:.3g} times as large as the base itself", hint)


def _incomparable(unlike: Sequence[tuple[TensorSpec, TensorSpec]], odd: int, share: str) -> BadInput:
    """Say whether it is the shapes that differ, or the dtypes alone, in most of the ``odd`` values."""
    reshaped = [(spec, other) for spec, other in unlike if spec.shape != other.shape]
    if 2 * sum(spec.elements for spec, _ in reshaped) > odd:
        spec, other = max(reshaped, key=lambda pair: pair[0].elements)
        return BadInput(
            f"{share} are in tensors of another shape than the base's, "
            f"for example {spec.name}: {list(spec.shape)} here, {list(other.shape)} in the base",
            "it is no fine-tune of this base: start a repository over its own base with `wvc init DIR --base PATH`, "
            "or pass --force-base to keep it whole and out of merges",
        )
    _, other = max(unlike, key=lambda pair: pair[0].elements)
    how = f" (load it with transformers' `torch_dtype=torch.{_TORCH[other.dtype]}`, and save it)"
    return BadInput(
        f"{share} have another dtype or shape than the base's, and could not be merged",
        f"convert it to the base's dtype first{how if other.dtype in _TORCH else ''}, or pass --force-base to keep it "
        "whole and out of merges",
    )


def unmatched(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> dict[str, int]:
    """Count the tensors without counterpart, on either side, the reshaped ones, and those that an adapter updates."""
    reshaped, updated = len(_reshaped(checkpoint, base, matched)), len(matched.updates)
    removed = 0 if checkpoint.adapter else len(base.tensors) - len(matched.names) + reshaped
    return {
        "added": len(checkpoint.tensors) - len(matched.names) - 2 * updated + reshaped,
        "removed": removed,
        "reshaped": reshaped,
        "updated": updated,
    }


def retyped(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> int:
    """Count those of the reshaped tensors that have the base's shape, in another dtype."""
    pairs = (
        (checkpoint.tensors[name].shape, base.by_name[matched.names[name]].spec.shape)
        for name in _reshaped(checkpoint, base, matched)
    )
    return sum(shape == other for shape, other in pairs)


def _reshaped(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> list[str]:
    return [n for n, other in matched.names.items() if not checkpoint.tensors[n].same_kind(base.by_name[other].spec)]


def refuse_around(repo: Handle, path: Path) -> None:
    """Raise :class:`BadInput` for a directory that holds this repository: all files of a model's are stored."""
    if repo.git.work_tree.resolve().is_relative_to(path.resolve()):
        raise BadInput(f"{path}: holds this repository", "give the directory of the model alone")


def notes(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> list[str]:
    """Return a sentence for each way in which the checkpoint is not laid out as the base."""
    said: list[str] = []
    if matched.prefix:
        side = "the base" if matched.side == "base" else "this checkpoint"
        said.append(f"names matched after the prefix {printable(matched.prefix)!r} that only {side} carries")
    if matched.updates:
        said += adapters.describe(checkpoint, matched, {entry.spec.name: entry.spec for entry in base.tensors})
    factors = {name for update in matched.updates for name in (update.a, update.b)}
    new = [name for name in checkpoint.tensors if name not in matched.names and name not in factors]
    if new:
        said.append(Note(f"{counted(len(new), 'tensor')} that the base does not have, stored whole", new))
    if reshaped := _reshaped(checkpoint, base, matched):
        what = f"{counted(len(reshaped), 'tensor')} of another shape or dtype than the base's"
        said.append(Note(f"{what}, stored whole and left out of merges", reshaped))
    index = ".safetensors.index.json" if len(checkpoint.headers) > 1 else ()  # which belongs to the weights
    if odd := [name for name in checkpoint.extras if is_odd(name) and not name.endswith(index)]:
        what = f"{len(odd)} files that are hidden, weights or a state of training are stored beside the weights"
        said.append(Note(f"{what}; move away what is no part of the model", odd))
    missing = sorted({entry.spec.name for entry in base.tensors} - set(matched.names.values()))
    if missing and checkpoint.adapter is None:
        said.append(Note(f"{counted(len(missing), 'tensor')} of the base not in it", missing))
    return said
