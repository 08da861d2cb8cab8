"""What lossy codecs cost: measured on what comes back, and said in words."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from weightvc.delta import values
from weightvc.delta.codec import codec_named
from weightvc.delta.encoding import Encoded
from weightvc.objects.loss import Loss
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.scores import noted
from weightvc.objects.tensors import TensorHasher
from weightvc.repo.decode import SPAN, Decoder
from weightvc.repo.state import State
from weightvc.util.errors import Unsupported
from weightvc.util.text import Note, listed

WARNING = "stored lossily: a checkout gives back tensors near those that were added, and not their bits"


@dataclass(frozen=True, slots=True)
class Measured:
    """One lossy tensor: the squared norms of its error and of its task vector."""

    lost: float
    moved: float


@dataclass(frozen=True)
class Lossy:
    """The lossy tensors of a task: how many, by which codecs, and how far what comes back is from what was added.

    ``codecs`` has the lossy ones only: what was lost may have been stored anew since, by another.
    ``worst`` and ``overall`` are norms of errors over those of task vectors, of one tensor and of all lossy ones;
    ``maximum`` is the largest absolute error. ``overall`` is known when the task is added, and ``None`` later.
    """

    tensors: int
    codecs: tuple[str, ...]
    worst: float
    maximum: float
    overall: float | None = None

    def __str__(self) -> str:
        """Return the figures as people read them."""
        overall = "" if self.overall is None else f"{100 * self.overall:.2f} % overall, "
        by = f" by {listed(self.codecs)}" if self.codecs else ""
        return f"{self.tensors} tensors{by}, relative error of task vectors {overall}{100 * self.worst:.2f} % at worst"


def measure(entry: Entry, stored: memoryview, data: memoryview, base: Decoder) -> tuple[Entry, Measured | None]:
    """Decode what was just stored, and return the entry of what comes back; ``None`` if that is what was added.

    Args:
        entry: Of the tensor that was added, with its digest.
        stored: Its encoding.
        data: Its raw bytes.
        base: The base's tensor.
    """
    spec, encoded = entry.spec, Encoded.parse(stored, "new object")
    hasher = TensorHasher(spec.dtype, spec.shape)
    out, before = (memoryview(bytearray(min(SPAN, spec.nbytes))) for _ in range(2))
    lost = moved = maximum = 0.0
    for at in range(0, spec.nbytes, SPAN):
        size = min(SPAN, spec.nbytes - at)
        base.read_into(before[:size], at)
        encoded.decode_into(out[:size], before[:size], at)
        hasher.update(out[:size])
        wanted = values.to_float(spec.dtype, data[at : at + size])
        error = np.abs(values.to_float(spec.dtype, out[:size]) - wanted)
        step = values.to_float(spec.dtype, before[:size]) - wanted
        lost, moved = lost + float((error * error).sum()), moved + float((step * step).sum())
        maximum = max(maximum, float(error.max()))
    digest = hasher.digest()
    if digest == entry.digest:
        return entry, None
    loss = Loss(entry.digest, _figure(_ratio(lost, moved)), _figure(maximum))
    return replace(entry, digest=digest, lossy=loss), Measured(lost, moved)


def total(manifest: Manifest, measured: Iterable[Measured] = ()) -> Lossy | None:
    """Return the figures of a task's manifest, and with what was measured when it was added; ``None`` if lossless."""
    if not manifest.lossy:
        return None
    losses = [entry.lossy for entry in manifest.lossy if entry.lossy is not None]
    found = tuple(measured)
    codecs = {entry.place.codec for entry in manifest.lossy if entry.place is not None}
    return Lossy(
        tensors=len(losses),
        codecs=tuple(name for name in sorted(codecs) if _is_lossy(name)),
        worst=max(loss.relative for loss in losses),
        maximum=max(loss.maximum for loss in losses),
        overall=_figure(_ratio(sum(m.lost for m in found), sum(m.moved for m in found))) if found else None,
    )


def _is_lossy(codec: str) -> bool:
    try:
        return codec_named(codec).lossy
    except Unsupported:  # of a package that is not installed here
        return True


def notes(tasks: Iterable[Manifest]) -> list[str]:
    """Return a sentence for each task that is stored lossily."""
    return [
        f"task {task.task} is stored lossily: {lossy}{noted(task.scores)}"
        for task in tasks
        if (lossy := total(task)) is not None
    ]


def said(state: State, manifest: Manifest, lossy: Lossy | None, codec: str) -> list[str]:
    """Say that what comes back is not what was added, or that a lossy codec had nothing to take."""
    notes = _again(state, manifest)
    if lossy is None:
        nothing = f"codec {codec} takes none of the tensors that moved; all are stored losslessly"
        return [*notes, nothing] if codec_named(codec).lossy else notes
    notes += [WARNING]
    before = state.tasks.get(str(manifest.task))
    if before is not None and not before.lossy:
        notes.append(f"the committed version of task {manifest.task} is lossless; this one is not")
    return notes


def _again(state: State, manifest: Manifest) -> list[str]:
    """Say which tensors are themselves what a lossy codec left of a task, and not what was trained."""
    left = {entry.digest: str(task.task) for task in state.tasks.values() for entry in task.lossy}
    added = {e.spec.name: e.lossy.original if e.lossy else e.digest for e in manifest.tensors if e.state != "same"}
    found = {name: left[digest] for name, digest in added.items() if digest in left}
    of = listed(sorted(set(found.values())))
    return [Note(f"{len(found)} tensors are what a lossy codec left of task {of}", list(found))] if found else []


def _ratio(lost: float, moved: float) -> float:
    return math.sqrt(lost / moved) if moved > 0 else 0.0


def _figure(number: float) -> float:
    """Round to six digits: the last ones hang on the order in which a machine adds."""
    return float(f"{number:.6g}")
