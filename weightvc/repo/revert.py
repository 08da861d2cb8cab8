"""Revert: a commit that takes tasks out, and a rebuild of what contained them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from weightvc.history import commit as commits
from weightvc.objects.ids import is_task_name
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import Recipe
from weightvc.objects.removal import Removal
from weightvc.repo import device as devices
from weightvc.repo import stage
from weightvc.repo.rebuild import Rebuild, Rebuilt
from weightvc.repo.repository import Handle, recipe_path, removal_path, task_path
from weightvc.repo.state import State, has_wvc, load, load_commit
from weightvc.util.errors import Conflict, Interrupted, NotFound, RequestError, WeightvcError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import encodable, listed


@dataclass(frozen=True)
class Options:
    """How a task is taken out, and what is rebuilt afterwards.

    ``cascade`` takes tasks that derive from it along; ``keep_derived`` leaves them, on record. ``reason`` and
    ``requester`` go into the removal record as they are.
    """

    message: str | None = None
    cascade: bool = False
    keep_derived: bool = False
    reason: str = ""
    requester: str = ""
    rebuild: bool = True
    device: str = "auto"
    jobs: int = 1
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for text that cannot be recorded."""
        for name, text in (("message", self.message), ("reason", self.reason), ("requester", self.requester)):
            encodable(text or "", f"the {name}")


@dataclass(frozen=True)
class Planned:
    """A model that a revert would rebuild: a recipe, or the one in the directory ``output``."""

    recipe: str
    output: str | None


@dataclass(frozen=True)
class Reverted:
    """What a revert did. ``audit`` is the tracked path of the removal record of the (first) task.

    Without a ``commit`` it was a dry run, the task was only staged, or it had been taken out before.

    ``same`` are living tasks of the same version as one that is taken out. ``kept_bytes`` counts what the store holds
    of all its versions for history alone; unknown (``None``) for one that had been taken out before. ``unproved`` names
    directories and recipes that could not be rebuilt and proved; ``warnings`` say why. A dry run fills
    ``would_rebuild``.
    """

    commit: str | None
    task: str
    tasks: tuple[str, ...]
    recipes: tuple[str, ...]
    dependants: tuple[str, ...]
    rebuilt: tuple[Rebuilt, ...]
    audit: str | None
    same: tuple[str, ...] = ()
    kept_bytes: int | None = None
    would_rebuild: tuple[Planned, ...] = ()
    unproved: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def revert(repo: Handle, target: str, options: Options, progress: Progress = SILENT) -> Reverted:
    """Take a task, or the tasks that a revision added, out of tasks and recipes, and rebuild what contained them.

    A task that is only staged is dropped from the stage, and nothing is committed. For one that had been taken out
    before, what still contains it is rebuilt, which finishes a revert that was interrupted.

    Raises:
        NotFound: neither a task nor a revision.
        Conflict: other tasks derive from it, and neither ``cascade`` nor ``keep_derived`` is set.
        RequestError: the revision added no task that is still here; or there is no such device.
        Interrupted: by the user, after the commit.
    """
    before = load(repo)
    records = _taken_out(before, target)
    if target not in before.tasks and stage.changes(repo).get(task_path(target)) is not None:
        if not options.dry_run:
            stage.forget(repo, task_path(target))
        if not records:
            return Reverted(None, target, (target,), (), (), (), None)
    if records:
        return _again(repo, before, records, options, progress)
    names = _named(repo, before, target)
    derived = _derived(before, names)
    if derived and not (options.cascade or options.keep_derived):
        raise Conflict(
            f"other tasks derive from {listed(names)}: {listed(derived)}",
            "pass --cascade to take them out too, or --keep-derived to leave them, on record",
        )
    gone, kept = (names + derived, []) if options.cascade else (names, derived)
    recipes = tuple(sorted(n for n, r in before.recipes.items() if any(w.task in gone for w in r.tasks)))
    removed = [before.tasks[name] for name in gone]
    same = _same_weights(before, gone, removed)
    staged = tuple(f"the staged version of task {name} is dropped too" for name in stage.tasks(repo) if name in gone)
    result = Reverted(
        None,
        names[0],
        tuple(gone),
        recipes,
        tuple(kept),
        (),
        None,
        same,
        _kept_bytes(repo, before, removed),
        warnings=(*staged, *_remaining(before, names[0], same)),
    )
    work = _rebuild(repo, names[0], removed, options)
    if options.dry_run:
        return _planned(work, before, result, options)
    message = options.message or f"wvc revert: take out {listed(gone)}"
    at = datetime.now(UTC).isoformat()
    done = commits.commit(repo.git, lambda tip: _changes(load_commit(repo, str(tip)), gone, kept, options, at), message)
    result = replace(
        result,
        commit=done.commit,
        audit=removal_path(str(removed[0].uuid)),
        warnings=(*result.warnings, *done.warnings),
    )
    with _resumable(result):
        _unstage(repo, gone)
        return _rebuilt(work, load_commit(repo, done.commit), result, options, progress)


def _again(repo: Handle, state: State, records: Sequence[Removal], options: Options, progress: Progress) -> Reverted:
    """Rebuild what still contains tasks that were taken out before."""
    tasks = tuple(dict.fromkeys(record.task for record in records))  # one taken out twice has two records
    recipes = tuple(sorted({name for record in records for name in record.recipes}))
    dependants = tuple(name for name in records[0].dependants if name in state.tasks)
    audit, same = removal_path(records[0].uuid), _same_weights(state, (), records)
    result = Reverted(
        None, tasks[0], tasks, recipes, dependants, (), audit, same, warnings=_remaining(state, tasks[0], same)
    )
    work = _rebuild(repo, tasks[0], records, options)
    if options.dry_run:
        return _planned(work, state, result, options)
    with _resumable(result):
        _unstage(repo, [name for name in tasks if name not in state.tasks])
        return _rebuilt(work, state, result, options, progress)


def _taken_out(state: State, target: str) -> list[Removal]:
    """Return the records of a removed task, first, and of those that went along with it; none if it lives."""
    if target in state.tasks:
        return []
    living = {task.uuid for task in state.tasks.values()}
    gone = [record for record in state.removals.values() if record.uuid not in living]
    named = sorted((record for record in gone if record.task == target), key=lambda r: r.removed, reverse=True)
    commits_of = {(record.parent, record.removed) for record in named}
    along = [record for record in gone if record.task != target and (record.parent, record.removed) in commits_of]
    return named + sorted(along, key=lambda record: record.task)


def _rebuild(repo: Handle, name: str, removed: Sequence[Manifest | Removal], options: Options) -> Rebuild:
    device = devices.find(options.device) if options.rebuild and not options.dry_run else ""
    return Rebuild(repo, name, {str(task.uuid) for task in removed}, device, options.jobs)


def _planned(work: Rebuild, state: State, result: Reverted, options: Options) -> Reverted:
    targets = work.targets(state, result.recipes) if options.rebuild else []
    planned = tuple(Planned(t.label, None if t.directory is None else str(t.directory)) for t in targets)
    return replace(result, would_rebuild=planned, warnings=(*result.warnings, *work.warnings))


def _rebuilt(work: Rebuild, state: State, result: Reverted, options: Options, progress: Progress) -> Reverted:
    if not options.rebuild:
        return result
    rebuilt = tuple(work.run(state, result.recipes, progress))
    warnings = (*result.warnings, *work.warnings)
    return replace(result, rebuilt=rebuilt, unproved=tuple(work.unproved), warnings=warnings)


@contextmanager
def _resumable(result: Reverted) -> Iterator[None]:
    """Say how to go on when the user interrupts what follows a removal."""
    try:
        yield
    except KeyboardInterrupt:
        where = f" in commit {result.commit[:12]}" if result.commit else ""
        raise Interrupted(
            f"{result.task} is taken out{where}; not everything is rebuilt", f"run `wvc revert {result.task}` again"
        ) from None


def _same_weights(state: State, gone: Collection[str], removed: Sequence[Manifest | Removal]) -> tuple[str, ...]:
    versions = {task.version for task in removed}
    return tuple(name for name, task in state.tasks.items() if name not in gone and task.version in versions)


def _remaining(state: State, name: str, same: Sequence[str]) -> tuple[str, ...]:
    """Return warnings about what keeps a removed task's weights in models, or may."""
    held = [f"task {listed(same)} has the same weights as {name}: models with it still hold them"] if same else []
    return (*held, *(f"recipe {label} was left as it is: {error}" for label, error in state.broken.items()))


def _kept_bytes(repo: Handle, state: State, removed: Sequence[Manifest]) -> int:
    """Return the bytes of the store's objects that some version of ``removed`` uses, and nothing that lives does."""
    uuids = {task.uuid for task in removed}
    living = {oid for task in state.tasks.values() if task.uuid not in uuids for oid in task.objects()}
    paths = tuple(task_path(str(task.task)) for task in removed)
    versions = list(removed)
    for path, blobs in repo.git.all_blobs(paths).items():
        for data in repo.git.read_blobs(sorted(blobs)).values():
            with suppress(WeightvcError):  # a damaged one is fsck's business, and no reason to keep the task in
                versions.append(Manifest.from_bytes(data, path))
    used = {oid for version in versions if version.uuid in uuids for oid in version.objects()}
    return sum(repo.store.size(oid) or 0 for oid in used - living - {*state.base.objects()})


def _named(repo: Handle, state: State, target: str) -> list[str]:
    if target in state.tasks:
        return [target]
    try:
        commit = repo.git.resolve(target)
    except NotFound:
        if is_task_name(target):
            state.task(target)
        raise
    after = load(repo, commit).tasks
    parents = repo.git.parents(commit)
    earlier = load_commit(repo, parents[0]).tasks if parents and has_wvc(repo, parents[0]) else {}
    added = [name for name, task in after.items() if name not in earlier and _same(state, name, task)]
    if not added:
        raise RequestError(
            f"{target} added no task that is still here", "name a task, or undo other commits with `git revert`"
        )
    return added


def _same(state: State, name: str, manifest: Manifest) -> bool:
    return name in state.tasks and state.tasks[name].uuid == manifest.uuid


def _derived(state: State, names: list[str]) -> list[str]:
    """Return every task that was trained from one of ``names``, directly or not, in the default order."""
    tainted = {state.tasks[name].uuid for name in names}
    found: list[str] = []
    grown = True
    while grown:
        grown = False
        for name, task in state.tasks.items():
            if task.uuid not in tainted and any(parent.uuid in tainted for parent in task.lineage):
                tainted.add(task.uuid)
                found.append(name)
                grown = True
    return [name for name in state.tasks if name in found]


def _changes(state: State, gone: list[str], kept: list[str], options: Options, at: str) -> Mapping[str, bytes | None]:
    """Return the commit's changes, from the tip as it is when the commit is made."""
    changes: dict[str, bytes | None] = {}
    for name in gone:
        task = state.task(name)
        recipes = tuple(sorted(r for r, recipe in state.recipes.items() if any(w.task == name for w in recipe.tasks)))
        removal = Removal(
            task=name,
            uuid=str(task.uuid),
            version=task.version,
            removed=at,
            parent=state.commit,
            recipes=recipes,
            dependants=tuple(kept),
            reason=options.reason,
            requester=options.requester,
        )
        changes[task_path(name)] = None
        changes[removal_path(removal.uuid)] = removal.to_bytes()
    for label, recipe in state.recipes.items():
        if recipe.without(gone) != recipe:
            changes[recipe_path(label)] = recipe.without(gone).to_bytes()
    return changes


def _unstage(repo: Handle, gone: list[str]) -> None:
    """Drop staged versions of the removed tasks, and take them out of staged recipes."""
    for path, data in stage.changes(repo).items():
        if path in map(task_path, gone):
            stage.forget(repo, path)
        elif data is not None and "/recipes/" in path:
            stage.put(repo, path, Recipe.from_bytes(data, path).without(gone).to_bytes())
