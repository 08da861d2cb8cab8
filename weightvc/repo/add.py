"""Add: a fine-tune → a staged task manifest, with its objects in the store."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from weightvc import repo as cases
from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.delta import values
from weightvc.delta.codec import CHUNK, codec_named
from weightvc.objects.ids import Version, task_name
from weightvc.objects.manifest import TIME, Manifest
from weightvc.objects.tensors import MERGED, TensorSpec
from weightvc.repo import adapters, lineage, loss, scores, snapshot, stage
from weightvc.repo.align import Alignment
from weightvc.repo.decode import Reader
from weightvc.repo.evaluator import Evaluation
from weightvc.repo.loss import Lossy
from weightvc.repo.repository import Handle, task_path
from weightvc.repo.scores import Fallback, ScoreLine, Taken
from weightvc.repo.state import State, load
from weightvc.store.local import LocalStore
from weightvc.util.errors import BadInput
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import Note, printable

UNRELATED = 1.0
"""Norm of the task vector over the norm of the base above which a checkpoint is taken for no fine-tune of it.

Fine-tunes measure well below; unrelated checkpoints of one architecture about 1.4, the square root of two.
"""

COMPARABLE = 0.1
"""Share of the values in tensors that the base has by name that must have its dtype and shape.

A copy in another precision has next to none, a fine-tune with a new head or a resized embedding most.
"""

Change: TypeAlias = Literal["new", "version", "stored", "dropped", "none"]

_SCORED = ("base", "tuned", "stored")

_SAMPLED_CHUNKS = 4

_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Added:
    """What add did, or, for a dry run, would do, with ``peak_bytes`` of memory at most.

    ``tensors`` counts by state; ``reshaped`` ones are among both the added and the removed, ``updated`` ones the base's
    that an adapter updates. ``change`` is ``new`` for a
    task that is not committed, ``version`` for a new version of one that is, ``stored`` for its weights with other
    files, lineage, codec or scores, ``dropped`` for what is committed already while something else was staged, which is
    not any more, and ``none`` for what is committed, or staged, already. A dry run reads no tensors and takes every
    task that is committed for a new ``version``. ``lossy`` says what does not come back as it was added.

    ``scored`` names what an evaluator was, or would be, run on: ``base``, ``tuned`` and, if that is another thing,
    ``stored``, what comes back; a dry run says what room the largest of them would need beside the repository's
    objects, ``scratch_bytes``. ``scores`` are those that the manifest has; ``fallback`` is the lossy codec that lost
    too much of them, so that the task is stored by ``codec`` in its place.
    """

    task: str
    manifest: Version
    tensors: dict[str, int]
    bytes: int
    stored_bytes: int
    codec: str
    relative_norm: float | None
    notes: list[str] = field(default_factory=list)
    staged: bool = True
    peak_bytes: int | None = None
    change: Change = "new"
    lossy: Lossy | None = None
    scored: tuple[str, ...] = ()
    scratch_bytes: int = 0
    scores: dict[str, ScoreLine] = field(default_factory=dict)
    fallback: Fallback | None = None


@dataclass(frozen=True)
class Options:
    """How a task is added, besides how it is stored."""

    store: snapshot.Options = field(default_factory=snapshot.Options)
    derived_from: Sequence[str] = ()
    force_base: bool = False
    dry_run: bool = False
    evaluation: Evaluation | None = None


def add(repo: Handle, path: Path, name: str, options: Options, progress: Progress = SILENT) -> Added:
    """Store the checkpoint at ``path`` as task ``name`` and stage its manifest for the next commit.

    Raises:
        BadInput: no usable checkpoint, non-finite values, a task name that cannot be, or a checkpoint that is no
            fine-tune of this base.
        NotFound: ``derived_from`` names no task or recipe.
    """
    task_name(name)
    state = load(repo)
    beside, notes = lineage.found(path, name)
    parents = lineage.union((*lineage.named(state, options.derived_from), *beside))
    with open_checkpoint(path) as checkpoint:
        matched, relative = match(repo, path, checkpoint, state.base, force=options.force_base)
        if options.dry_run:
            planned = _planned(name, checkpoint, state.base, matched, relative, options)
            notes += planned.notes + lineage.notes(state, parents, None)
            return replace(planned, change="version" if name in state.tasks else "new", notes=notes)

        def take(how: snapshot.Options, store: LocalStore) -> Taken:
            shot = snapshot.take(
                checkpoint,
                store,
                base=state.base,
                names=matched.names,
                options=how,
                progress=progress,
                what=f"task {name}",
            )
            identity, added = _identity(repo, state, name)
            base, kind = state.base.version, checkpoint.kind
            known = (kind, name, identity, added, base, parents, shot.nonfinite, matched.updates)
            return Manifest(shot.tensors, shot.files, shot.headers, *known), shot.measured

        verdict = scores.judge(repo, state, checkpoint, take, options.evaluation, options.store, progress)
        manifest, lossy = verdict.manifest, loss.total(verdict.manifest, verdict.measured)
    notes += lineage.notes(state, parents, manifest)
    notes += loss.said(state, manifest, lossy, verdict.codec)
    change = _stage(repo, state, manifest)
    counts = {key: sum(entry.state == key for entry in manifest.tensors) for key in ("same", "delta")}
    return Added(
        task=name,
        manifest=manifest.version,
        tensors=counts | _unmatched(checkpoint, state.base, matched),
        bytes=manifest.nbytes,
        stored_bytes=sum(manifest.objects().values()),
        codec=verdict.codec,
        relative_norm=relative,
        notes=_notes(checkpoint, state.base, matched) + _unmoved(manifest, state.base) + notes,
        staged=manifest != state.tasks.get(name),
        change=change,
        lossy=lossy,
        scored=() if options.evaluation is None else _SCORED[: 3 if lossy or verdict.fallback else 2],
        scores=scores.lines(manifest.scores),
        fallback=verdict.fallback,
    )


def match(
    repo: Handle, path: Path, checkpoint: Checkpoint, base: Manifest, *, force: bool
) -> tuple[Alignment, float | None]:
    """Return which tensors are which of the base's, and the norm of the task vector over the base's.

    Raises:
        BadInput: the checkpoint is no fine-tune of this base, unless ``force`` says that it may be none.
    """
    specs = {entry.spec.name: entry.spec for entry in base.tensors}
    matched = adapters.match(checkpoint, specs)
    adapters.refuse_both(checkpoint, matched, base)
    relative = _relative_norm(checkpoint, repo, base, matched)
    if not force:
        pairs = [(checkpoint.tensors[name], specs[other]) for name, other in matched.names.items()]
        _refuse_unrelated(path, pairs, relative, adapter=checkpoint.adapter is not None)
    return matched, relative


def _stage(repo: Handle, state: State, manifest: Manifest) -> Change:
    """Stage a manifest that differs from the committed one, and return how; drop what is staged if it does not."""
    path, committed = task_path(str(manifest.task)), state.tasks.get(str(manifest.task))
    if manifest == committed:
        return "dropped" if stage.forget(repo, path) else "none"
    data = manifest.to_bytes()
    if stage.changes(repo).get(path) == data:
        return "none"
    stage.put(repo, path, data)
    if committed is None:
        return "new"
    return "stored" if manifest.version == committed.version else "version"


def _identity(repo: Handle, state: State, name: str) -> tuple[str, str]:
    """Return the task's UUID and first-add time: its own if it lives or is staged, else new ones.

    The time is never earlier than that of any other task, so that the default order is the order of adding even
    if the clock was set back; after the last time that can be written, names decide.
    """
    staged = {
        path: Manifest.from_bytes(data, path)
        for path, data in stage.changes(repo).items()
        if data and "/tasks/" in path
    }
    known = state.tasks.get(name) or staged.get(task_path(name))
    if known is not None and known.uuid is not None and known.added is not None:
        return known.uuid, known.added
    times = [m.added for m in (*state.tasks.values(), *staged.values()) if m.added is not None]
    now = datetime.now(UTC)
    if times:
        newest = datetime.strptime(max(times), TIME).replace(tzinfo=UTC)
        now = max(now, newest if newest == _LAST else newest + timedelta(microseconds=1))
    return str(uuid.uuid4()), now.strftime(TIME)


def _relative_norm(checkpoint: Checkpoint, repo: Handle, base: Manifest, matched: Alignment) -> float | None:
    """Estimate the norm of the task vector over that of the base, from a few chunks of every matching tensor.

    An adapter leaves the other tensors of the base as they are: they count too. The norms of its updates are exact.
    """
    reader = Reader(repo.store, base)
    own = {other: name for name, other in matched.names.items()}
    moved = math.fsum(adapters.square(checkpoint, update) for update in matched.updates)
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
    return math.sqrt(moved / held) if held > 0 and math.isfinite(moved) else None


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
        raise BadInput(f"{path}: the task vector is {relative:.2f} times as large as the base itself", hint)


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
    return BadInput(
        f"{share} have another dtype or shape than the base's, and could not be merged",
        "convert it to the base's dtype first, or pass --force-base to keep it whole and out of merges",
    )


def _unmatched(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> dict[str, int]:
    """Count the tensors without counterpart, on either side, the reshaped ones, and those that an adapter updates."""
    reshaped, updated = len(_reshaped(checkpoint, base, matched)), len(matched.updates)
    removed = 0 if checkpoint.adapter else len(base.tensors) - len(matched.names) + reshaped
    return {
        "added": len(checkpoint.tensors) - len(matched.names) - 2 * updated + reshaped,
        "removed": removed,
        "reshaped": reshaped,
        "updated": updated,
    }


def _reshaped(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> list[str]:
    return [n for n, other in matched.names.items() if not checkpoint.tensors[n].same_kind(base.by_name[other].spec)]


def _notes(checkpoint: Checkpoint, base: Manifest, matched: Alignment) -> list[str]:
    """Return a sentence for each way in which the checkpoint is not laid out as the base."""
    notes: list[str] = []
    if matched.prefix:
        side = "the base" if matched.side == "base" else "this checkpoint"
        notes.append(f"names matched after the prefix {printable(matched.prefix)!r} that only {side} carries")
    if matched.updates:
        notes += adapters.describe(checkpoint, matched.updates)
    factors = {name for update in matched.updates for name in (update.a, update.b)}
    new = [name for name in checkpoint.tensors if name not in matched.names and name not in factors]
    if new:
        notes.append(Note(f"{len(new)} tensors that the base does not have, stored whole", new))
    if reshaped := _reshaped(checkpoint, base, matched):
        said = f"{len(reshaped)} tensors of another shape or dtype than the base's, stored whole and left out of merges"
        notes.append(Note(said, reshaped))
    missing = sorted({entry.spec.name for entry in base.tensors} - set(matched.names.values()))
    if missing and checkpoint.adapter is None:
        notes.append(Note(f"{len(missing)} tensors of the base are missing", missing))
    return notes


def _unmoved(manifest: Manifest, base: Manifest) -> list[str]:
    same = manifest.version == base.version
    return ["every tensor equals the base's: this task adds nothing to a merge"] if same else []


def _planned(  # noqa: PLR0917 -- all that is known of a task before its tensors are read
    name: str, checkpoint: Checkpoint, base: Manifest, matched: Alignment, relative: float | None, options: Options
) -> Added:
    total = sum(spec.nbytes for spec in checkpoint.tensors.values())
    counts = {"matched": len(matched.names)} | _unmatched(checkpoint, base, matched)
    notes = _notes(checkpoint, base, matched)
    peak = snapshot.peak_bytes(checkpoint, options.store)
    scored: tuple[str, ...] = ()
    room = 0
    if options.evaluation is not None:
        room = max(base.nbytes, total)
        peak = max(peak, cases.evaluate.peak_bytes(options.store.jobs))
        scored = _SCORED[: 3 if codec_named(options.store.codec).lossy else 2]
    plan = Added(name, Version(""), counts, total, 0, "", relative, notes, staged=False, peak_bytes=peak)
    return replace(plan, scored=scored, scratch_bytes=room)
