"""What the recorded output directories hold, and whether they are still what was asked for. Reads locks, no tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from weightvc.objects.lock import Lock
from weightvc.objects.recipe import Recipe, Scalar
from weightvc.repo import asked, checkouts, output, resolve, rules
from weightvc.repo import emptied as empty
from weightvc.repo.guess import complete, guess
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Request
from weightvc.repo.state import State, load
from weightvc.util.errors import WeightvcError
from weightvc.util.text import listed

Freshness: TypeAlias = Literal["current", "behind", "unknown"]


@dataclass(frozen=True)
class Output:
    """A directory that checkout wrote: the recipe of its lock, and how it stands to what was asked for.

    ``exact`` says that it is its only task, or the base, as that is stored: bit for bit, but for the tasks that are
    ``lossy``. ``asked`` is what was asked for, with the options
    of checkout as names; ``None`` if that is not recorded, and a guess is compared. ``why`` says what has changed
    since, or, if ``unknown``, why the lock cannot be read; ``remedy`` is the command that brings it up to date, empty
    if there is none. ``emptied`` are the tasks that were asked for in it and that a removal took out, so that it holds
    the base; it is ``current`` for as long as they are gone, and ``why`` says so. ``work_tree`` is the other work tree
    that it is in, if so: then it is ``unknown`` here.
    """

    path: str
    recipe: tuple[str, ...]
    method: str
    state: Freshness
    why: str = ""
    remedy: str = ""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    dtype: str | None = None
    rules: tuple[str, ...] = ()
    exact: bool = False
    lossy: tuple[str, ...] = ()
    asked: Mapping[str, Any] | None = None
    emptied: tuple[str, ...] = ()
    work_tree: str = ""


def outputs(repo: Handle, state: State) -> Iterator[Output]:
    """Return every recorded directory that is still there, compared with ``state``, or the revision asked for."""
    for path, request in checkouts.recorded(repo).items():
        if not path.is_dir():
            continue
        try:
            lock = output.read_lock(path)
        except WeightvcError as error:
            yield Output(str(path), (), "", "unknown", error.what)
            continue
        made = tuple(str(weighted) for weighted in lock.recipe.tasks)
        freshness: Freshness = "unknown"
        emptied = empty.tasks(lock, request)
        if there := checkouts.elsewhere(repo, path):
            why, remedy = f"{path} is another work tree's: its own `wvc status` tells", ""
        else:
            why, remedy = _since(repo, lock, state, path, request)
            freshness = "behind" if why else "current"
            why = why or (empty.said(repo, state, emptied) if emptied else "")
        yield Output(
            str(path), made, lock.recipe.method, freshness, why, remedy,
            params=dict(lock.recipe.params), dtype=lock.recipe.dtype, exact=_exact(lock), lossy=lock.lossy,
            rules=tuple(map(str, lock.recipe.rules)),
            asked=None if request is None else asked.to_json(request), emptied=emptied,
            work_tree=str(there or ""),
        )  # fmt: skip


def _exact(lock: Lock) -> bool:
    """Tell whether a lock is of a task, or of the base, as it is: then every tensor is the task's own."""
    if not lock.tasks:
        return lock.recipe.dtype is None
    return lock.recipe.exact_task is not None and all(line.rule == "task" for line in lock.tensors)


def _since(repo: Handle, lock: Lock, head: State, path: Path, request: Request | None) -> tuple[str, str]:
    """Return what changed since a lock was written, and the command that builds its directory anew."""
    removed = {removal.uuid for removal in head.removals.values()}
    here = {task.uuid for task in head.tasks.values()}
    lost = [task.task for task in lock.tasks if task.uuid in removed - here and task.task not in head.tasks]
    if lost:
        return f"{listed(lost)} taken out since", f"wvc revert {lost[0]}"
    try:
        state = head if request is None or request.rev == "HEAD" else load(repo, request.rev)
    except WeightvcError as error:
        return error.what, ""
    if request and (names := empty.tasks(lock, request)):
        back = empty.back(head, state, names)
        since = f"{listed(back)} back since" if back else ""
        why = since or ("another base since" if lock.base != state.base.version else "")
        return why, asked.command(repo, request, path, back) if why else ""
    like, changed = (request, _changed(repo, lock, state, request)) if request else guess(repo, lock, state, path)
    living = {task.uuid: task.version for task in state.tasks.values()}
    gone = [task.task for task in lock.tasks if task.uuid not in living]
    moved = [task.task for task in lock.tasks if living.get(task.uuid, task.version) != task.version]
    found = (
        f"{listed(gone)} not at {_name(like.rev)}, or added anew" if gone else "",
        f"new version of {listed(moved)}" if moved else "",
        "another base since" if lock.base != state.base.version else "",
        changed if request or not gone else "",
    )
    why = "; ".join(filter(None, found))
    if not why or (like.recipe and _missing(repo, state, like.recipe)):
        return why, ""
    return why, asked.command(repo, like, path, state.tasks)


def _changed(repo: Handle, lock: Lock, state: State, request: Request) -> str:
    """Return how what was asked for differs by now from what was built; empty if it gives the same."""
    named = request.recipe or ""
    if named and _missing(repo, state, named):
        return f"recipe {named} is gone"
    try:
        now = complete(resolve.wanted(repo, state, request))
    except WeightvcError as error:
        return error.what
    added = [weighted.task for weighted in now.tasks if weighted.task not in {task.task for task in lock.tasks}]
    if request.tasks is None and not named and added:
        return f"{listed(added)} added since"
    if _gives_same(now, lock):
        return ""
    if named:
        return f"recipe {named} changed since"
    if (now.method, now.params) != (lock.recipe.method, lock.recipe.params):
        return "the default method changed since"
    return "the order of the tasks changed since" if set(now.tasks) == set(lock.recipe.tasks) else ""


def _gives_same(now: Recipe, lock: Lock) -> bool:
    """Tell whether a recipe gives what a lock was built from; a single task is the same by any neutral method."""
    made = lock.recipe
    if now == complete(made):
        return True
    if not _exact(lock) or now.tasks != made.tasks or now.dtype is not None:
        return False
    try:
        return not now.tasks or rules.create(now).neutral
    except WeightvcError:
        return False


def _missing(repo: Handle, state: State, recipe: str) -> bool:
    """Tell whether there is no recipe, and no file, of the name that was asked for."""
    return not asked.is_named(repo, state, recipe) and not Path(recipe).is_file()


def _name(rev: str) -> str:
    return rev[:12] if asked.is_commit(rev) else rev
