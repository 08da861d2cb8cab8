"""Revert: a commit that takes tasks out, and a rebuild of what contained them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from weightvc.util.errors import Conflict, NotFound, RequestError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import listed


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


@dataclass(frozen=True)
class Reverted:
    """What a revert did. ``audit`` is the tracked path of the removal record of the (first) task.

    Without a ``commit`` it was a dry run, or the task was only staged.
    """

    commit: str | None
    task: str
    tasks: tuple[str, ...]
    recipes: tuple[str, ...]
    dependants: tuple[str, ...]
    rebuilt: tuple[Rebuilt, ...]
    audit: str | None
    warnings: tuple[str, ...] = field(default=())


def revert(repo: Handle, target: str, options: Options, progress: Progress = SILENT) -> Reverted:
    """Take a task, or the tasks that a revision added, out of tasks and recipes, and rebuild what contained them.

    A task that is only staged is dropped from the stage, and nothing is committed.

    Raises:
        NotFound: neither a task nor a revision.
        Conflict: other tasks derive from it, and neither ``cascade`` nor ``keep_derived`` is set.
        RequestError: the revision added no task that is still here; or there is no such device.
    """
    before = load(repo)
    if target not in before.tasks and stage.changes(repo).get(task_path(target)) is not None:
        if not options.dry_run:
            stage.forget(repo, task_path(target))
        return Reverted(None, target, (target,), (), (), (), None)
    names = _named(repo, before, target)
    derived = _derived(before, names)
    if derived and not (options.cascade or options.keep_derived):
        raise Conflict(
            f"other tasks derive from {listed(names)}: {listed(derived)}",
            "pass --cascade to take them out too, or --keep-derived to leave them, on record",
        )
    gone, kept = (names + derived, []) if options.cascade else (names, derived)
    recipes = tuple(sorted(n for n, r in before.recipes.items() if any(w.task in gone for w in r.tasks)))
    result = Reverted(None, names[0], tuple(gone), recipes, tuple(kept), (), None)
    if options.dry_run:
        return result
    device = devices.find(options.device) if options.rebuild else ""
    message = options.message or f"wvc revert: take out {listed(gone)}"
    at = datetime.now(UTC).isoformat()
    done = commits.commit(repo.git, lambda tip: _changes(load_commit(repo, str(tip)), gone, kept, options, at), message)
    _unstage(repo, gone)
    result = replace(result, commit=done.commit, audit=removal_path(str(before.tasks[names[0]].uuid)))
    warnings = list(done.warnings)
    if options.rebuild:
        removed = [before.tasks[name] for name in gone]
        work = Rebuild(repo, load_commit(repo, done.commit), removed, device, options.jobs)
        rebuilt = tuple(work.run({name: before.recipes[name] for name in recipes}, before.default_recipe(), progress))
        result = replace(result, rebuilt=rebuilt)
        warnings += work.warnings
    return replace(result, warnings=tuple(warnings))


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
