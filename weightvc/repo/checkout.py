"""Checkout: a recipe → a model directory with its lock."""

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from weightvc.history.operation import under_way
from weightvc.merge.joint import Joint
from weightvc.objects import lock as locks
from weightvc.objects.ids import Version
from weightvc.objects.recipe import OWN
from weightvc.repo import asked, checkouts, explain, forecast, loss, output, prefix, resolve, stage
from weightvc.repo import device as devices
from weightvc.repo import plan as plans
from weightvc.repo.build import DEFAULT_SHARD, Builder
from weightvc.repo.explain import Line
from weightvc.repo.guard import guarded
from weightvc.repo.joining import decides
from weightvc.repo.repository import DEFAULT_OUTPUT, Handle
from weightvc.repo.resolve import Request, Resolved
from weightvc.repo.state import load
from weightvc.repo.status import edited
from weightvc.repo.vectors import kept
from weightvc.util import fsio, scratch
from weightvc.util.errors import Conflict
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import counted, listed, printable

# What a dry run's estimate of peak memory counts: the libraries, the spans of one worker, those of each task beside,
# and the copies that a projection holds of a matrix or of its factors, and those of a method that joins matrices.
RUNTIME = 300 * 2**20
SPANS = 96 * 2**20
_PROJECTION_COPIES = {"projected": 8, "factored": 5}
_JOINED_COPIES = 3
_SPAN = 8 * 2**20


@dataclass(frozen=True)
class CheckedOut:
    """What a checkout wrote, or, for a dry run, would write.

    ``left_out`` has the path of every other file that a merge does not carry along; ``notes`` say why. ``lossy`` names
    the tasks whose tensors are near those that were added and not the same. Only a dry run has a ``plan``, and an
    estimate of the time: see :mod:`weightvc.repo.forecast`.
    """

    output: str
    recipe: tuple[str, ...]
    method: str
    params: dict[str, object]
    dtype: str | None
    exact: bool
    tensors: int
    bytes: int
    rules: dict[str, int]
    read_bytes: int
    scratch_bytes: int
    peak_bytes: int
    seconds: float = 0.0
    digest: Version | None = None
    lock: str | None = None
    notes: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    name_rules: tuple[str, ...] = ()
    plan: tuple[Line, ...] = ()
    estimated_seconds: float | None = None
    lossy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """Where and how a checkout is written. ``output=None`` means `model/` in the work tree."""

    output: Path | None = None
    device: str = "auto"
    jobs: int = 1
    max_shard_size: int = DEFAULT_SHARD
    force: bool = False
    dry_run: bool = False


@guarded
def checkout(repo: Handle, request: Request, options: Options, progress: Progress = SILENT) -> CheckedOut:
    """Build the model that ``request`` names in a directory of its own.

    One task at coefficient 1 gives back that task's files, or what a lossy codec left of them; no task gives the
    base's; anything else is merged. The directory appears by rename when it is complete and durable.

    Raises:
        Conflict: the output directory holds what wvc did not write, or integer tensors disagree.
        NotFound, UsageError: see :func:`weightvc.repo.resolve.resolve`.
        Missing, Corrupt: stored objects are absent or damaged.
    """
    begun = time.monotonic()
    removals = load(repo).removals.keys()
    resolved = resolve.resolve(repo, request)
    device = devices.find(options.device)
    directory = Path(os.path.abspath(options.output or repo.git.work_tree / DEFAULT_OUTPUT))
    output.check_apart(repo, directory)
    if not options.dry_run:
        scratch.sweep(directory)
    replaces = output.check_free(directory, force=options.force, jobs=options.jobs, progress=progress)
    shard = options.max_shard_size
    builder = Builder(repo, resolved, device=device, jobs=options.jobs, max_shard_size=shard, resumed=True)
    result = _preview(resolved, builder, directory, options.jobs)
    result.notes.extend(_unused(repo, request, resolved))
    result.notes.extend(_idle(repo, request, resolved, shard))
    if request.recipe is not None and not resolved.recipe.tasks:
        empty = f"recipe {printable(request.recipe)}: no task is left; it makes the base"
        result = replace(result, warnings=(empty,))
    if options.dry_run:
        held = prefix.held(repo, builder.plan, device)
        about = forecast.seconds(builder.plan, builder.tasks, forecast.calibrate(device), options.jobs, held)
        if held:
            several = counted(len(held), "tensor")
            result.notes.append(f"{several} can begin from cached states, which the time accounts for")
        return replace(result, plan=explain.lines(builder.plan, resolved), estimated_seconds=about)
    output.hide(repo, directory)
    kept = asked.lasting(repo, request, resolved.state)
    with checkouts.recorded_while(repo, directory, kept) as warnings, output.building(directory, replaces) as made:
        lock = builder.write(made, progress)
        _refuse_removed(repo, resolved, removals)
        fsio.write_file(made / locks.NAME, lock.to_bytes())
    result.notes.extend(builder.notes)
    seconds = time.monotonic() - begun
    where = str(directory / locks.NAME)
    return replace(result, seconds=seconds, digest=lock.digest, lock=where, warnings=(*result.warnings, *warnings))


def _unused(repo: Handle, request: Request, resolved: Resolved) -> Iterator[str]:
    """Say what is staged or edited, and may be missed in what is built."""
    if request.tasks is None and request.recipe is None and (names := stage.tasks(repo)):
        yield f"staged and not in it: {listed(names)}; `wvc commit` records them"
    if request.rev != "HEAD":
        return
    conflicts = repo.git.unmerged()
    if conflicts:
        yield f"in conflict, and as HEAD has it until that is resolved: {listed(conflicts)}; `wvc status` tells how"
    if paths := [path for path in edited(repo, resolved.state.commit) if path not in conflicts]:
        merged = "merged or " if under_way(repo.git) else ""
        yield f"{merged}edited in the work tree, and not used until committed: {listed(paths)}"


def _idle(repo: Handle, request: Request, resolved: Resolved, shard: int) -> Iterator[str]:
    """Say what was asked for and changes nothing."""
    if request.tasks is not None and not resolved.recipe.tasks:
        yield "no task was named: this is the base"
    if resolved.exact is not None and shard != DEFAULT_SHARD:
        yield "what is not merged comes in its own files: --max-shard-size changes nothing"
    if (recipe := resolve.dropped(repo, resolved.state, request)) is not None:
        given = listed([f"{key}={value}" for key, value in recipe.params.items()])
        of, method = f"recipe {printable(str(request.recipe))} is for {recipe.method}", resolved.recipe.method
        yield f"{of}: its {given} has no part in {method}"


def _refuse_removed(repo: Handle, resolved: Resolved, before: Collection[str]) -> None:
    """Raise :class:`Conflict` if a task was taken out while it was being merged: the revert saw no such directory."""
    after = load(repo).removals.keys() - before
    if gone := [str(task.task) for task in resolved.tasks if task.uuid in after]:
        prefix.forget(repo, after)
        raise Conflict(f"{listed(gone)} was taken out by `wvc revert` meanwhile; nothing was built", "run it again")


def _adapter(resolved: Resolved) -> list[str]:
    """Say that an adapter alone comes back as the adapter, and how it is merged into the base."""
    exact = resolved.exact
    if exact is None or not exact.updates:
        return []
    return [f"task {exact.task} is an adapter and comes back as it was added; pass --dtype {OWN} to merge it in"]


def _factors(resolved: Resolved) -> int:
    """Return the most bytes that adapters' factors of one tensor take in memory, those of all tasks together."""
    held: Counter[str] = Counter()
    for task in resolved.tasks:
        for update in task.updates:
            held[update.of] += sum(8 * task.by_name[name].spec.elements for name in (update.a, update.b))
    return max(held.values(), default=0)


def _again(plan: plans.Plan) -> int:
    """Return the most bytes of one tensor that are kept in memory to be read again."""
    methods = ((part.method, part.tensors) for part in plan.parts)
    several = [held for method, held in methods if isinstance(method, Joint) and decides(method)]
    return max((kept(tensor) for held in several for tensor in held if tensor.sources), default=0)


def _preview(resolved: Resolved, builder: Builder, directory: Path, jobs: int) -> CheckedOut:
    """Return what the checkout will do, known from manifests only."""
    recipe, plan = resolved.recipe, builder.plan
    projected = [tensor.kept * _PROJECTION_COPIES[tensor.rule] for tensor in plan.tensors if tensor.kept]
    joined = [tensor.spec.elements * 8 * len(tensor.sources) for tensor in plan.tensors if tensor.rule == "joined"]
    held = max(max(projected, default=0), max(joined, default=0) * _JOINED_COPIES)
    held += SPANS + _factors(resolved) + _again(plan) + len(resolved.tasks) * _SPAN
    return CheckedOut(
        output=str(directory),
        recipe=tuple(str(weighted) for weighted in recipe.tasks),
        method=recipe.method,
        params=dict(recipe.params),
        dtype=recipe.dtype,
        name_rules=tuple(map(str, recipe.rules)),
        exact=resolved.exact is not None,
        tensors=len(plan.specs),
        bytes=sum(spec.nbytes for spec in plan.specs),
        rules=plans.summary(plan),
        read_bytes=explain.read(plan, resolved, builder.others.kept),
        scratch_bytes=sum(tensor.kept for tensor in plan.tensors),
        peak_bytes=RUNTIME + jobs * held,
        notes=_adapter(resolved)
        + plans.describe(plan, [weighted.task for weighted in recipe.tasks])
        + builder.others.describe()
        + loss.notes(resolved.tasks),
        left_out=builder.others.left_out,
        lossy=tuple(str(task.task) for task in resolved.tasks if task.lossy),
    )
