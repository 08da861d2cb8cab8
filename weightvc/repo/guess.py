"""What a directory follows whose line in the list of checkouts does not say what was asked for.

A lock pins what was built and not what was asked for. What it holds is taken for the default recipe, or for a named
one, if that recipe had the same tasks at the commit that the lock names.
"""

from dataclasses import replace
from pathlib import Path

from weightvc.objects.lock import Lock
from weightvc.objects.recipe import Recipe
from weightvc.repo import asked, rules
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Request
from weightvc.repo.state import State, load_commit
from weightvc.util.errors import UsageError, WeightvcError
from weightvc.util.text import listed


def guess(repo: Handle, lock: Lock, state: State, path: Path) -> tuple[Request, str]:
    """Return what would have given a lock, and how the recipe that it follows has changed since."""
    name, like, changed = _followed(repo, lock, state, path)
    made, params = lock.recipe, like.params
    if made.method != like.method:
        params = complete(replace(like, method=made.method, params={})).params
    request = Request(
        tasks=None if name is not None else tuple(map(str, made.tasks)),
        recipe=name or None,
        method=made.method if made.method != like.method else None,
        params={key: value for key, value in made.params.items() if params.get(key, value) != value} or None,
        dtype=made.dtype if made.dtype != like.dtype else None,
        on_int_mismatch=made.on_int_mismatch if made.on_int_mismatch != like.on_int_mismatch else None,
        rules=made.rules if made.rules != like.rules else None,
    )
    return request, changed


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
    if len(lock.tasks) < 2 and not asked.is_default(repo, path):
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


def _recipes(state: State) -> dict[str, Recipe]:
    """Return the default recipe and the named ones, with all parameters of their methods."""
    return {
        name: complete(state.model(recipe)) for name, recipe in {"": state.default_recipe(), **state.recipes}.items()
    }


def complete(recipe: Recipe) -> Recipe:
    """Return a recipe with all parameters of its methods, as locks have it."""
    try:
        return rules.complete(recipe)
    except UsageError:  # of a method that is not installed here
        return recipe
