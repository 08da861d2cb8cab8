"""Add: a fine-tune → a staged task manifest, with its objects in the store."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from weightvc import repo as cases
from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.delta.codec import codec_named
from weightvc.history.operation import under_way
from weightvc.objects.ids import ObjectId, Version, task_name
from weightvc.objects.manifest import TIME, Manifest
from weightvc.repo import lineage, loss, related, scores, snapshot, stage
from weightvc.repo.align import Alignment
from weightvc.repo.evaluator import Evaluation
from weightvc.repo.guard import guarded
from weightvc.repo.loss import Lossy
from weightvc.repo.repository import Handle, task_path
from weightvc.repo.scores import Fallback, ScoreLine, Taken
from weightvc.repo.state import State, load
from weightvc.store.local import LocalStore
from weightvc.util.errors import Conflict, Corrupt
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import counted

Change: TypeAlias = Literal["new", "version", "stored", "dropped", "none"]

_SCORED = ("base", "tuned", "stored")

_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Added:
    """What add did, or, for a dry run, would do, with ``peak_bytes`` of memory at most.

    ``tensors`` counts by state; ``reshaped`` ones, of which ``retyped`` have another dtype only, are among both the
    added and the removed, ``updated`` ones the base's that an adapter updates. ``change`` is ``new`` for a task that is
    not committed, ``version`` for a new version of one that is, ``stored`` for its weights with other files, lineage,
    codec or scores, ``dropped`` for what is committed already while something else was staged, which is not any more,
    and ``none`` for what is committed, or staged, already. A dry run reads no tensors and takes every task that is
    committed for a new ``version``. ``lossy`` says what does not come back as it was added.

    ``scored`` names what an evaluator was, or would be, run on: ``base``, ``tuned`` and, if that is another thing,
    ``stored``, what comes back; a dry run says what room the largest of them would need beside the repository's
    objects, ``scratch_bytes``. ``scores`` are those that the manifest has; ``fallback`` is the lossy codec that lost
    too much of them, so that the task is stored by ``codec`` in its place.

    ``files`` counts the other files of the directory, which are stored as well, and ``files_bytes`` their bytes.
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
    files: int = 0
    files_bytes: int = 0
    retyped: int = 0


@dataclass(frozen=True)
class Options:
    """How a task is added, besides how it is stored."""

    store: snapshot.Options = field(default_factory=snapshot.Options)
    derived_from: Sequence[str] = ()
    force_base: bool = False
    dry_run: bool = False
    evaluation: Evaluation | None = None


@guarded
def add(repo: Handle, path: Path, name: str, options: Options, progress: Progress = SILENT) -> Added:
    """Store the checkpoint at ``path`` as task ``name`` and stage its manifest for the next commit.

    Raises:
        BadInput: no usable checkpoint, non-finite values, a task name that cannot be, or a checkpoint that is no
            fine-tune of this base.
        NotFound: ``derived_from`` names no task or recipe.
    """
    task_name(name)
    state = load(repo)
    related.refuse_around(repo, path)
    beside, notes = lineage.found(path, name)
    parents = lineage.union((*lineage.named(state, options.derived_from, name), *beside))
    with open_checkpoint(path) as checkpoint:
        matched, relative = related.match(repo, path, checkpoint, state.base, force=options.force_base)
        if options.dry_run:
            planned = _planned(name, checkpoint, state.base, matched, relative, options)
            notes += planned.notes + lineage.notes(state, parents, None)
            return replace(planned, change="version" if name in state.tasks else "new", notes=notes)

        lost = _lost(repo, state.tasks.get(name))

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
    state, manifest = _now(repo, state, manifest)
    notes += lineage.notes(state, parents, manifest)
    notes += loss.said(state, manifest, lossy, verdict.codec)
    if found := lost - _lost(repo, state.tasks.get(name)):
        notes.append(f"brought back {counted(len(found), 'lost object')} of task {name}")
    change = _stage(repo, state, manifest)
    notes += _waits(repo)
    counts = {key: sum(entry.state == key for entry in manifest.tensors) for key in ("same", "delta")}
    return Added(
        task=name,
        manifest=manifest.version,
        tensors=counts | related.unmatched(checkpoint, state.base, matched),
        bytes=manifest.nbytes,
        stored_bytes=sum(manifest.objects().values()),
        codec=verdict.codec,
        relative_norm=relative,
        notes=related.notes(checkpoint, state.base, matched) + _unmoved(manifest, state.base) + notes,
        staged=manifest != state.tasks.get(name),
        change=change,
        lossy=lossy,
        scored=() if options.evaluation is None else _SCORED[: 3 if lossy or verdict.fallback else 2],
        scores=scores.lines(manifest.scores),
        fallback=verdict.fallback,
        files=len(checkpoint.extras),
        files_bytes=sum(checkpoint.extras.values()),
        retyped=related.retyped(checkpoint, state.base, matched),
    )


def _lost(repo: Handle, committed: Manifest | None) -> set[ObjectId]:
    """Return the objects of a task that the store does not have, or has something else in place of."""
    lost = set()
    for oid in committed.objects() if committed else ():
        try:
            if repo.store.size(oid) is None:
                lost.add(oid)
        except Corrupt:
            lost.add(oid)
    return lost


def _now(repo: Handle, before: State, manifest: Manifest) -> tuple[State, Manifest]:
    """Return the state as it is by now, hours later perhaps, and the manifest of what the task is there."""
    state = load(repo)
    if state.base.version != before.base.version:
        raise Conflict("the base changed meanwhile; nothing was staged", "run the command again")
    identity, added = _identity(repo, state, str(manifest.task))
    return state, replace(manifest, uuid=identity, added=added)


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


def _waits(repo: Handle) -> list[str]:
    """Say that what is staged cannot be committed yet."""
    doing = under_way(repo.git)
    ended = f"`git {doing} --continue` or `git {doing} --abort`"
    return [f"a git {doing} is under way, and `wvc commit` is refused until {ended}"] if doing else []


def _unmoved(manifest: Manifest, base: Manifest) -> list[str]:
    same = manifest.version == base.version
    return ["every tensor equals the base's: this task adds nothing to a merge"] if same else []


def _planned(  # noqa: PLR0917 -- all that is known of a task before its tensors are read
    name: str, checkpoint: Checkpoint, base: Manifest, matched: Alignment, relative: float | None, options: Options
) -> Added:
    total = sum(spec.nbytes for spec in checkpoint.tensors.values())
    counts = {"matched": len(matched.names)} | related.unmatched(checkpoint, base, matched)
    notes = related.notes(checkpoint, base, matched)
    peak = snapshot.peak_bytes(checkpoint, options.store)
    scored: tuple[str, ...] = ()
    room = 0
    if options.evaluation is not None:
        room = max(base.nbytes, total)
        peak = max(peak, cases.evaluate.peak_bytes(options.store.jobs))
        scored = _SCORED[: 3 if codec_named(options.store.codec).lossy else 2]
    codec = options.store.codec
    notes += [loss.WARNING] if codec_named(codec).lossy else []
    plan = Added(name, Version(""), counts, total, 0, codec, relative, notes, staged=False, peak_bytes=peak)
    files, nbytes = len(checkpoint.extras), sum(checkpoint.extras.values())
    return replace(
        plan,
        scored=scored,
        scratch_bytes=room,
        files=files,
        files_bytes=nbytes,
        retyped=related.retyped(checkpoint, base, matched),
    )
