"""Revert: a commit that takes tasks out, and a rebuild of what contained them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from weightvc.history import commit as commits
from weightvc.objects.recipe import Recipe
from weightvc.objects.removal import Removal
from weightvc.repo import device as devices
from weightvc.repo import prefix, stage, takeout
from weightvc.repo.guard import guarded
from weightvc.repo.rebuild import Rebuild, Rebuilt
from weightvc.repo.repository import Handle, recipe_path, removal_path, task_path
from weightvc.repo.state import State, load, load_commit
from weightvc.repo.takeout import Gone, Known
from weightvc.util.errors import Conflict, Interrupted, UsageError, WeightvcError
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
        """Raise :class:`UsageError` for text that cannot be recorded, and for two answers to one question."""
        if self.cascade and self.keep_derived:
            raise UsageError("--cascade and --keep-derived exclude each other", "give one of them")
        for name, text in (("message", self.message), ("reason", self.reason), ("requester", self.requester)):
            encodable(text or "", f"the {name}")


@dataclass(frozen=True)
class Planned:
    """A model that a revert would rebuild: a named recipe or, with ``None``, all tasks, or the one in ``output``.

    ``known`` says that it is not in a directory, but that one which would be rebuilt is this very model.
    """

    recipe: str | None
    output: str | None
    known: bool = False


@dataclass(frozen=True)
class Reverted:
    """What a revert did. ``audit`` is the tracked path of the removal record of the (first) task, ``audits`` of all.

    ``emptied`` are the changed recipes that have no task left. ``dropped`` names what was, or for a dry run would be,
    dropped from the stage: a new task of the name, and with ``cascade`` those that derive from it. Without a ``commit``
    it was a dry run, the task was only staged, or it had been taken out before.

    ``same`` are living tasks of the same version as one that is taken out. ``kept_bytes`` counts what the store holds
    of all its versions for history alone; unknown (``None``) for one that had been taken out before. ``unproved`` names
    directories and recipes that could not be rebuilt and proved; ``warnings`` say why, and ``notes`` if there is no
    model at all to compare. A dry run fills ``would_rebuild``, and names in ``unproved`` the directories that hold what
    was added or changed.
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
    audits: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@guarded
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
    records = takeout.taken_out(before, target)
    staged = target not in before.tasks and stage.changes(repo).get(task_path(target)) is not None
    if staged and not options.dry_run:
        stage.forget(repo, task_path(target))
    dropped = (target,) if staged else ()
    if records:
        return replace(_again(repo, before, records, options, progress), dropped=dropped)
    if staged:
        return Reverted(None, target, (target,), (), (), (), None, dropped=dropped)
    gone, kept, along = _chosen(repo, before, target, options)
    seen = takeout.history(repo, gone)
    result = replace(_result(repo, before, gone, kept, seen), dropped=along)
    removed = [before.tasks[name] for name in gone]
    marks = takeout.gone(before, gone, removed, seen)
    work = _rebuild(repo, gone[0], marks, options)
    if options.dry_run:
        return _planned(work, before, result, options, progress)
    message = options.message or f"wvc revert: take out {listed(gone)}"
    at = datetime.now(UTC).isoformat()
    done = commits.commit(repo.git, lambda tip: _changes(load_commit(repo, str(tip)), gone, kept, options, at), message)
    audits = tuple(removal_path(str(task.uuid)) for task in removed)
    warnings = (*result.warnings, *done.warnings)
    result = replace(result, commit=done.commit, audit=audits[0], audits=audits, warnings=warnings)
    with _resumable(result):
        result = _uncached(repo, marks, _unstaged(repo, [*gone, *along], result))
        return _rebuilt(work, load_commit(repo, done.commit), result, options, progress)


def _chosen(repo: Handle, state: State, target: str, options: Options) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return the tasks to take out, those that derive from them and stay, and staged ones that go along.

    Raises:
        NotFound, RequestError: see :func:`weightvc.repo.takeout.named`.
        Conflict: some derive from them, and nobody said what to do about it.
    """
    names = takeout.named(repo, state, target)
    derived = takeout.derived(state, names)
    staged = [name for name in takeout.staged_derived(repo, state, [*names, *derived]) if name not in derived]
    if options.cascade:
        return names + derived, [], tuple(staged)
    if (derived or staged) and not options.keep_derived:
        others = listed([*derived, *(f"{name} (staged)" for name in staged)])
        raise Conflict(
            f"other tasks derive from {listed(names)}: {others}",
            "pass --cascade to take them out too, or --keep-derived to leave them, on record",
        )
    return names, derived, ()


def _result(repo: Handle, state: State, gone: list[str], kept: list[str], seen: Sequence[Known]) -> Reverted:
    """Return what is known of a removal before it is made."""
    removed = [state.tasks[name] for name in gone]
    same = takeout.same_weights(state, gone, removed)
    recipes = {name: recipe for name, recipe in sorted(state.recipes.items()) if recipe.without(gone) != recipe}
    return Reverted(
        None,
        gone[0],
        tuple(gone),
        tuple(recipes),
        tuple(kept),
        (),
        None,
        same,
        takeout.kept_bytes(repo, state, removed, seen),
        emptied=tuple(name for name, recipe in recipes.items() if not recipe.without(gone).tasks),
        warnings=(*_dropped_too(repo, gone), *takeout.remaining(state, gone[0], same)),
    )


def _dropped_too(repo: Handle, names: Sequence[str]) -> list[str]:
    return [f"the staged version of task {name} is dropped too" for name in stage.tasks(repo) if name in names]


def _again(repo: Handle, state: State, records: Sequence[Removal], options: Options, progress: Progress) -> Reverted:
    """Rebuild what still contains tasks that were taken out before."""
    tasks = tuple(dict.fromkeys(record.task for record in records))  # one taken out twice has two records
    recipes = tuple(sorted({name for record in records for name in record.recipes}))
    names = [name for name in tasks if name not in state.tasks]
    same = takeout.same_weights(state, (), records)
    audits = tuple(removal_path(record.uuid) for record in records)
    result = Reverted(
        None,
        tasks[0],
        tasks,
        recipes,
        tuple(name for name in records[0].dependants if name in state.tasks),
        (),
        audits[0],
        same,
        audits=audits,
        emptied=tuple(name for name in recipes if name in state.recipes and not state.recipes[name].tasks),
        warnings=(*_dropped_too(repo, names[1:]), *takeout.remaining(state, tasks[0], same)),
    )
    marks = takeout.gone(state, names, records, takeout.history(repo, names))
    work = _rebuild(repo, tasks[0], marks, options)
    if options.dry_run:
        return _planned(work, state, result, options, progress)
    with _resumable(result):
        return _rebuilt(work, state, _uncached(repo, marks, _unstaged(repo, names, result)), options, progress)


def _rebuild(repo: Handle, name: str, gone: Gone, options: Options) -> Rebuild:
    device = devices.find(options.device) if options.rebuild and not options.dry_run else ""
    return Rebuild(repo, name, gone, device, options.jobs)


def _planned(work: Rebuild, state: State, result: Reverted, options: Options, progress: Progress) -> Reverted:
    targets = work.plan(state, result.recipes, progress) if options.rebuild else []
    planned = tuple(Planned(t.name, None if t.directory is None else str(t.directory), t.known) for t in targets)
    warnings = (*result.warnings, *work.warnings)
    return replace(
        result, would_rebuild=planned, unproved=tuple(work.unproved), warnings=warnings, notes=tuple(work.notes)
    )


def _rebuilt(work: Rebuild, state: State, result: Reverted, options: Options, progress: Progress) -> Reverted:
    if not options.rebuild:
        return result
    rebuilt = tuple(work.run(state, result.recipes, progress))
    warnings = (*result.warnings, *work.warnings)
    return replace(result, rebuilt=rebuilt, unproved=tuple(work.unproved), warnings=warnings, notes=tuple(work.notes))


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


def _unstaged(repo: Handle, gone: Sequence[str], result: Reverted) -> Reverted:
    """Drop staged versions of the removed tasks and take them out of staged recipes; warn of those that lie damaged."""
    warnings = []
    for path, data in stage.changes(repo).items():
        if path in map(task_path, gone):
            stage.forget(repo, path)
        elif data is not None and path.startswith(recipe_path("").removesuffix(".toml")):
            try:
                recipe = Recipe.from_bytes(data, path)
            except WeightvcError as error:
                name = path.rpartition("/")[2].removesuffix(".toml")
                warnings.append(f"a staged recipe was left as it is: {error.what}; drop it with `wvc unstage {name}`")
            else:
                if recipe.without(gone) != recipe:
                    stage.put(repo, path, recipe.without(gone).to_bytes())
    return replace(result, warnings=(*result.warnings, *warnings))


def _uncached(repo: Handle, gone: Gone, result: Reverted) -> Reverted:
    """Drop the cached states that contain the removed tasks, and warn of those that stay."""
    left = prefix.forget(repo, {*gone.versions, *gone.uuids} - {*gone.living})
    return replace(result, warnings=(*result.warnings, *(f"{path} may hold the task; delete it" for path in left)))
