"""The models that ``codec.py`` measures on, each with the base it is stored against, opened tensor by tensor.

MiniLM's fine-tunes come from ``finetunes.py``, once in each of three dtypes; the merged LoRA from ``lowrank.py``; the
chemical BERT and its two fine-tunes from ``assets.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from weightvc.checkpoint.reader import open_checkpoint
from weightvc.delta.codec import CHUNK
from weightvc.objects.tensors import TensorSpec
from weightvc.repo.align import align

Source = Literal["minilm", "rxnfp", "lora"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One model to store.

    Args:
        name: What the tables call it.
        target: Its weight file.
        base: The base's weight file, or ``None`` to store the model alone.
        dtype: The dtype of its weights.
        source: Where it comes from, which decides the bars that it is held to.
        decay: Whether weight decay moved every weight.
    """

    name: str
    target: Path
    base: Path | None
    dtype: str = "F32"
    source: Source = "minilm"
    decay: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor: its spec, its bytes, the bytes it is stored against, and whether those are the same."""

    spec: TensorSpec
    target: memoryview
    base: memoryview | None
    same: bool


def read_pair(target: Path, base: Path | None, *, compare: bool = True) -> list[Item]:
    """Return the tensors of ``target`` with their partners in ``base``, the longest first.

    Args:
        target: A weight file.
        base: The base's weight file; its names are matched as ``wvc add`` does.
        compare: Look whether tensors are the same; else each is said not to be.
    """
    with open_checkpoint(target) as model:
        if base is None:
            items = [Item(spec, model.read(name), None, same=False) for name, spec in model.tensors.items()]
        else:
            with open_checkpoint(base) as other:
                names = align(model.tensors, other.tensors).names
                items = []
                for name, spec in model.tensors.items():
                    partner = other.tensors.get(names.get(name, ""))
                    held = other.read(partner.name) if partner is not None and partner.same_kind(spec) else None
                    data = model.read(name)
                    items.append(Item(spec, data, held, compare and held is not None and equal(data, held)))
    return sorted(items, key=lambda item: -item.spec.nbytes)


def equal(one: memoryview, other: memoryview) -> bool:
    """Tell whether two buffers of one length hold the same bytes, span by span, so that it costs no memory."""
    spans = ((one[at : at + CHUNK], other[at : at + CHUNK]) for at in range(0, len(one), CHUNK))
    return len(one) == len(other) and all(
        np.array_equal(np.frombuffer(a, "u1"), np.frombuffer(b, "u1")) for a, b in spans
    )


def pairs(tasks: Sequence[str], *, quick: bool) -> list[Pair]:
    """Return all models, making or downloading what is not there yet.

    Args:
        tasks: MiniLM tasks.
        quick: Take the fine-tunes of a few steps.
    """
    # These import torch and transformers, which the processes whose memory is measured must not.
    import assets  # noqa: PLC0415
    import finetunes  # noqa: PLC0415
    import lowrank  # noqa: PLC0415
    from texts import TASKS  # noqa: PLC0415

    base = assets.minilm()
    bases = {"F32": base, "BF16": finetunes.base_bf16(), "F16": lowrank.in_f16("base", base)}
    full = {} if quick else {task: finetunes.fine_tune(finetunes.Run(task, TASKS[task].steps)) for task in tasks}
    found = []
    for task, folder in (finetunes.quick(tasks) if quick else full).items():
        tunes = {"F32": folder / "f32", "BF16": folder / "bf16", "F16": lowrank.in_f16(folder.name, folder / "f32")}
        for dtype, directory in tunes.items():
            files = (directory / finetunes.WEIGHTS, bases[dtype] / finetunes.WEIGHTS)
            found.append(Pair(f"{task} {dtype.lower()}", *files, dtype, "minilm", TASKS[task].decay > 0))
    merged = lowrank.merged(quick=quick) / finetunes.WEIGHTS
    found.append(Pair("merged LoRA f32", merged, base / finetunes.WEIGHTS, "F32", "lora"))
    models, file = assets.rxnfp(), "pytorch_model.bin"
    tuned = {"rxnfp bert-ft": models.bert_ft, "rxnfp bert-ft-10k": models.bert_ft_10k_25s}
    found.append(Pair("rxnfp base", models.base / file, None, "F32", "rxnfp"))
    found += [Pair(name, path / file, models.base / file, "F32", "rxnfp") for name, path in tuned.items()]
    return found
