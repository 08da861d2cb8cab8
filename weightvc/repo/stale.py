"""What the recorded output directories hold, and whether the repository has moved on since. Reads locks, no tensors.

A lock pins what was built and not what was asked for. What it holds is taken for the default recipe, or for a named
one, if that recipe had the same tasks at the commit that the lock names.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from weightvc.merge import table
from weightvc.objects.lock import Lock
from weightvc.objects.recipe import Recipe
from weightvc.repo import output
from weightvc.repo.repository import DEFAULT_OUTPUT, Handle
from weightvc.repo.state import State, load_commit
from weightvc.util.errors import UsageError, WeightvcError
from weightvc.util.text import listed

Freshness: TypeAlias = Literal["current", "behind", "unknown"]


@dataclass(frozen=True)
class Output:
    """A directory that checkout wrote: the tasks and method of its lock, and how it stands to HEAD.

    ``why`` says what has changed since, or, if ``unknown``, why the lock cannot be read; ``remedy`` is the command
    that brings the directory up to date.
    """

    path: str
    recipe: tuple[str, ...]
    method: str
    state: Freshness
    why: str = ""
    remedy: str = ""


def outputs(repo: Handle, state: State) -> Iterator[Output]:
    """Return every recorded directory that is still there, compared with ``state``."""
    for path in output.recorded(repo):
        if not path.is_dir():
            continue
        try:
            lock = output.read_lock(path)
        except WeightvcError as error:
            yield Output(str(path), (), "", "unknown", error.what)
            continue
        made = tuple(str(weighted) for weighted in lock.recipe.tasks)
        why, remedy = _since(repo, lock, state, path)
        yield Output(str(path), made, lock.recipe.method, "behind" if why else "current", why, remedy)


def _since(repo: Handle, lock: Lock, state: State, path: Path) -> tuple[str, str]:
    """Return what changed since a lock was written, and the command that builds its directory anew."""
    living = {task.uuid: task.version for task in state.tasks.values()}
    removed = {removal.uuid for removal in state.removals.values()}
    gone = [task for task in lock.tasks if task.uuid not in living]
    if reverted := [task.task for task in gone if task.uuid in removed and task.task not in state.tasks]:
        return f"{listed(reverted)} taken out since", f"wvc revert {reverted[0]}"
    moved = [task.task for task in lock.tasks if living.get(task.uuid, task.version) != task.version]
    name, like, changed = _followed(repo, lock, state, path)
    found = (
        f"{listed([task.task for task in gone])} not at HEAD, or added anew" if gone else "",
        f"new version of {listed(moved)}" if moved else "",
        "another base since" if lock.base != state.base.version else "",
        changed if not gone else "",
    )
    why = "; ".join(filter(None, found))
    return why, _command(repo, lock.recipe, like, path, _which(lock, state, name)) if why else ""


def _followed(repo: Handle, lock: Lock, state: State, path: Path) -> tuple[str | None, Recipe, str]:
    """Return the recipe that a lock was built from, as it was then, and how it has changed since.

    Its name is "" for the default one, and ``None`` if the lock names tasks of its own choice. A single task in a
    directory of its own was asked for by name, even if there was no other at the time.
    """
    now = _recipes(state)
    try:
        then = _recipes(load_commit(repo, repo.git.resolve(lock.commit)))
    except WeightvcError:
        then = {}
    if len(lock.tasks) < 2 and not _is_default(repo, path):
        then.pop("", None)
    names = [name for name, recipe in then.items() if recipe.tasks == lock.recipe.tasks and name in now]
    for name in names:
        if now[name].tasks == lock.recipe.tasks and (then[name] != lock.recipe or now[name] == lock.recipe):
            return name, then[name], ""
    if not names:
        return None, now[""], ""
    if names[0]:
        return names[0], then[names[0]], f"recipe {names[0]} changed since"
    added = [task for task in state.tasks if task not in {pinned.task for pinned in lock.tasks}]
    return "", then[""], f"{listed(added)} added since" if added else "the default recipe changed since"


def _which(lock: Lock, state: State, name: str | None) -> list[str]:
    """Return the options that name a recipe, or those of a lock's tasks that are left."""
    if name is None:
        return ["--tasks", ",".join(str(weighted) for weighted in lock.recipe.tasks if weighted.task in state.tasks)]
    return ["--recipe", name] if name else []


def _recipes(state: State) -> dict[str, Recipe]:
    """Return the default recipe and the named ones, with all parameters of their methods."""
    return {name: _complete(recipe) for name, recipe in {"": state.default_recipe(), **state.recipes}.items()}


def _complete(recipe: Recipe) -> Recipe:
    try:
        return replace(recipe, params=table.check(recipe.method, recipe.params))
    except UsageError:  # of a method that is not installed here
        return recipe


def _command(repo: Handle, made: Recipe, like: Recipe, path: Path, which: list[str]) -> str:
    """Return the checkout that builds ``path`` anew, with the options by which ``made`` differs from ``like``."""
    words = ["wvc", "checkout", *which]
    if made.method != like.method:
        words += ["--method", made.method]
        like = _complete(replace(like, method=made.method, params={}))
    for key, value in made.params.items():
        words += ["-p", f"{key}={value}"] if like.params.get(key, value) != value else []
    words += ["--dtype", made.dtype] if made.dtype and made.dtype != like.dtype else []
    words += ["--on-int-mismatch", made.on_int_mismatch] if made.on_int_mismatch != like.on_int_mismatch else []
    words += ["-o", str(path)] if not _is_default(repo, path) else []
    return shlex.join(words)


def _is_default(repo: Handle, path: Path) -> bool:
    return path == repo.git.work_tree.resolve() / DEFAULT_OUTPUT
