"""Diff: two models as task vectors from the shared base."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from weightvc.checkpoint.reader import open_checkpoint
from weightvc.delta import values
from weightvc.delta.measure import Moments
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.tensors import MERGED, tensor_digest
from weightvc.repo import adapters, loss, resolve, stage
from weightvc.repo.build import Builder
from weightvc.repo.decode import SPAN, Reader
from weightvc.repo.factors import Factors, LowRank
from weightvc.repo.plan import TensorPlan
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Request
from weightvc.repo.state import State, load
from weightvc.util.errors import BadInput, Conflict, NotFound
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import meant, printable

_LAYER = re.compile(r"^(.*?\.\d+)(?:\.|$)")

Spans = Iterator[NDArray[np.float64]]


@dataclass(frozen=True)
class Side:
    """One model to compare.

    ``spans`` gives a base tensor's counterpart as numbers, in spans of as many elements as the base tensor's own;
    ``None`` where it is unchanged, missing, or of another shape. ``apart`` holds what has no such numbers: the digests
    of tensors that the base lacks in that shape or that are no floating-point numbers and changed, and an empty text
    for each tensor of the base that is missing. ``lossy`` has a sentence for each task that is stored lossily.
    """

    label: str
    spans: Callable[[Entry], Spans | None]
    apart: Mapping[str, str]
    lossy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """Figures of one layer, or of all tensors.

    ``norm_a`` and ``norm_b`` are the task vectors' norms relative to the base's; ``sign_conflict`` is the share of
    all elements that the two move in opposite directions; ``changed_a``, ``changed_b`` and ``differing`` count tensors.
    Without a second model, all that speaks of it is ``None``.
    """

    name: str
    tensors: int
    changed_a: int
    norm_a: float | None
    changed_b: int | None = None
    norm_b: float | None = None
    cosine: float | None = None
    sign_conflict: float | None = None
    differing: int = 0


@dataclass(frozen=True)
class Difference:
    """The comparison of ``a`` with ``b``, or with the base alone; ``layers`` if asked for.

    ``apart`` counts the tensors in which they differ beyond these figures: new, missing and reshaped ones, and those
    of integers, booleans and packed values. ``notes`` tell of tasks that are stored lossily.
    """

    a: str
    b: str | None
    total: Row
    layers: tuple[Row, ...]
    apart: int
    notes: tuple[str, ...] = ()


@dataclass
class _Sums:
    """Sums over one tensor: of both task vectors, of the base's squares, and which models change it."""

    both: Moments
    base: float
    changed: list[bool]


def diff(
    repo: Handle, a: str, b: str | None = None, *, layers: bool = False, progress: Progress = SILENT
) -> Difference:
    """Compare two models, each a task, recipe, revision, directory or file, or one with the base.

    Only floating-point tensors that the base has count; tensors are streamed.

    Raises:
        NotFound: no such model.
        BadInput: a directory without tensors of the base.
        Conflict: the tasks of a recipe or revision cannot be merged as they are.
    """
    state = load(repo)
    with ExitStack() as stack:
        sides = [_side(repo, state, label, stack) for label in (a, b) if label is not None]
        groups: dict[str, list[_Sums]] = defaultdict(list)
        entries = [entry for entry in state.base.tensors if entry.spec.dtype in MERGED]
        reader = Reader(repo.store, state.base)
        with progress.stage("Comparing", sum(entry.spec.nbytes for entry in entries)):
            for entry in entries:
                groups[_layer(entry.spec.name)].append(_compare(reader, entry, sides))
                progress.advance(entry.spec.nbytes)
    two = b is not None
    rows = tuple(_row(name, parts, two) for name, parts in groups.items()) if layers else ()
    one, other = sides[0].apart, sides[1].apart if two else {}
    apart = sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())
    lossy = tuple(dict.fromkeys(note for side in sides for note in side.lossy))
    return Difference(a, b, _row("all", [part for parts in groups.values() for part in parts], two), rows, apart, lossy)


def _layer(name: str) -> str:
    found = _LAYER.match(name)
    return found[1] if found else name.rpartition(".")[0] or name


def _compare(reader: Reader, entry: Entry, sides: list[Side]) -> _Sums:
    streams = [side.spans(entry) for side in sides]
    sums = _Sums(Moments(), 0.0, [stream is not None for stream in streams])
    for _, span in reader.open(entry).spans():
        base = values.to_float(entry.spec.dtype, span)
        with np.errstate(all="ignore"):
            sums.base += float(base @ base)
            vectors = [np.zeros_like(base) if stream is None else next(stream) - base for stream in streams]
        sums.both += Moments.of(vectors[0], vectors[-1])
    return sums


def _row(name: str, parts: list[_Sums], two: bool) -> Row:
    both = sum((part.both for part in parts), Moments())
    base = sum(part.base for part in parts) ** 0.5  # may overflow to infinity, where fsum raises
    row = Row(
        name=name,
        tensors=len(parts),
        changed_a=sum(part.changed[0] for part in parts),
        norm_a=_ratio(both.norm_a, base),
    )
    if not two:
        return row
    return replace(
        row,
        changed_b=sum(part.changed[1] for part in parts),
        norm_b=_ratio(both.norm_b, base),
        cosine=both.cosine,
        sign_conflict=both.sign_conflict,
        differing=sum(part.both.changed > 0 for part in parts),
    )


def _ratio(norm: float | None, base: float) -> float | None:
    return norm / base if norm is not None and 0 < base < math.inf else None


def _side(repo: Handle, state: State, label: str, stack: ExitStack) -> Side:
    reader = Reader(repo.store, state.base)
    if label in state.tasks:
        return _task(reader, state.base, state.tasks[label], label)
    if label not in state.recipes and Path(label).exists():
        return _directory(reader, state, Path(label), stack)
    if state.recipe(label) is None:
        _find_revision(repo, state, label)
    return _merged(repo, state, label, stack)


def _task(reader: Reader, base: Manifest, task: Manifest, label: str) -> Side:
    def spans(entry: Entry) -> Spans | None:
        if (low := LowRank.of(task, entry.spec.name)) is not None:
            return _updated(reader, entry, Factors.open(reader, low, torch.device("cpu")))
        found = task.by_base_name.get(entry.spec.name)
        if found is None or found.state != "delta":
            return None
        return (values.to_float(entry.spec.dtype, span) for _, span in reader.open(found).spans())

    return Side(label, spans, _apart(task, base), tuple(loss.notes([task])))


def _updated(reader: Reader, entry: Entry, factors: Factors) -> Spans:
    """Return a base tensor with a low-rank update."""
    for offset, span in reader.open(entry).spans():
        numbers = torch.from_numpy(values.to_float(entry.spec.dtype, span))
        moved = factors.vector(offset // entry.spec.itemsize, torch.empty_like(numbers))
        yield moved.add_(numbers).numpy()


def _find_revision(repo: Handle, state: State, label: str) -> None:
    """Raise :class:`NotFound` if a name that is no task, recipe or path is no revision either."""
    try:
        repo.git.resolve(label)
    except NotFound:
        stage.refuse(repo, label)
        known = [*state.tasks, *state.recipes]
        raise NotFound(
            f"no task, recipe, revision, directory or file {printable(label)!r}",
            meant(label, known, "run `wvc status` to see the tasks and recipes"),
        ) from None


def _directory(reader: Reader, state: State, path: Path, stack: ExitStack) -> Side:
    checkpoint = stack.enter_context(open_checkpoint(path))
    matched = adapters.match(checkpoint, {entry.spec.name: entry.spec for entry in state.base.tensors})
    updates = {update.of: update for update in matched.updates}
    if not matched.names and not updates:
        raise BadInput(f"{path}: not one tensor has a name that the base has", "name a model of this base")
    own = {base: name for name, base in matched.names.items()}

    def spans(entry: Entry) -> Spans | None:
        if (update := updates.get(entry.spec.name)) is not None:
            a, b = map(torch.from_numpy, adapters.factors_of(checkpoint, update))
            return _updated(reader, entry, Factors.of(update, a, b))
        name = own.get(entry.spec.name)
        spec = checkpoint.tensors[name] if name is not None else None
        if name is None or spec is None or spec.shape != entry.spec.shape or spec.dtype not in MERGED:
            return None
        data = checkpoint.read(name)
        if tensor_digest(spec.dtype, spec.shape, data) == entry.digest:
            return None
        step = SPAN // entry.spec.itemsize * spec.itemsize
        return (values.to_float(spec.dtype, data[at : at + step]) for at in range(0, len(data), step))

    kept = {o: n for o, n in own.items() if checkpoint.tensors[n].same_kind(state.base.by_name[o].spec)}
    apart = {other: "" for other in state.base.by_name if other not in kept and checkpoint.adapter is None}
    factors = {name for update in matched.updates for name in (update.a, update.b)}
    names = {name: other for other, name in kept.items()}
    for name, spec in checkpoint.tensors.items():
        if name in factors:
            continue
        if name not in names or spec.dtype not in MERGED:
            digest = tensor_digest(spec.dtype, spec.shape, checkpoint.read(name))
            if name not in names or digest != state.base.by_name[names[name]].digest:
                apart[names.get(name, name)] = digest
    return Side(str(path), spans, apart)


def _apart(task: Manifest, base: Manifest) -> dict[str, str]:
    """Return what of a task has no numbers to compare: see :class:`Side`."""
    missing = {name: "" for name in base.by_name if name not in task.by_base_name and not task.updates}
    odd = (*task.heads, *(e for e in task.tensors if e.state == "delta" and e.spec.dtype not in MERGED))
    return missing | {entry.of or entry.spec.name: entry.digest for entry in odd}


def _merged(repo: Handle, state: State, label: str, stack: ExitStack) -> Side:
    request = Request(recipe=label) if label in state.recipes else Request(rev=label)
    resolved = _same_base(resolve.resolve(repo, request), state)
    builder = Builder(repo, resolved, device="cpu", jobs=1)
    try:
        plan = builder.plan
    except Conflict as error:
        save = f"compare single tasks, or a recipe that decides it: to `wvc recipe save NAME` {error.hint}"
        raise Conflict(f"{printable(label)}: {error}", save) from None
    work = stack.enter_context(builder.materializer(plan))
    work.prepare(SILENT)
    plans = {name: plan for plan in work.plan.tensors for name in _base_names(plan)}

    def spans(entry: Entry) -> Spans | None:
        plan = plans.get(entry.spec.name)
        if plan is None or plan.rule == "base" or _carried(plan, entry):
            return None
        return (values.to_float(plan.spec.dtype, span) for _, span in work.spans(plan))

    odd: dict[str, str] = {n: p.own.digest for n, p in plans.items() if p.rule == "task" and p.spec.dtype not in MERGED}
    exact = resolved.exact
    apart = odd if exact is None or exact.task is None else _apart(exact, state.base)
    return Side(label, spans, apart, tuple(loss.notes(resolved.tasks)))


def _carried(plan: TensorPlan, entry: Entry) -> bool:
    """Tell whether an exact plan takes a task's tensor that equals the base's, or cannot be compared with it."""
    return plan.rule == "task" and (plan.own.state == "same" or not plan.spec.same_kind(entry.spec))


def _base_names(plan: TensorPlan) -> tuple[str, ...]:
    """Return the base's names for a plan's tensor; an exact plan carries the task's own names."""
    of = plan.own.of if plan.rule == "task" and len(plan.names) == 1 else None
    return plan.names if of is None else (of,)


def _same_base(resolved: resolve.Resolved, state: State) -> resolve.Resolved:
    """Refuse to compare models of different bases."""
    if resolved.state.base.version != state.base.version:
        raise BadInput("the two models have different bases", "compare models of one base")
    return resolved
