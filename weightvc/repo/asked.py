"""What was asked for in a directory: kept beside its path, so that it can be compared, taken apart and asked again."""

import re
import shlex
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from weightvc.objects.ids import is_task_name
from weightvc.objects.recipe import Mismatch, NameRule, Recipe, parse_tasks, scalars
from weightvc.repo import stage
from weightvc.repo.repository import DEFAULT_OUTPUT, Handle, recipe_path
from weightvc.repo.resolve import Request
from weightvc.repo.state import State
from weightvc.util.errors import NotFound, WeightvcError
from weightvc.util.fields import typed

_BRANCH = re.compile(r"[\w./-]+")
_PLAIN = Request()


def lasting(repo: Handle, request: Request, state: State) -> Request:
    """Return a request as it is kept: it means the same later, and from another directory.

    `HEAD` and branches are followed; of other revisions the commit is kept. A recipe file is kept by its full path.

    Args:
        repo: The repository.
        request: What was asked for.
        state: The revision that it was resolved against.
    """
    rev, recipe = request.rev, request.recipe
    if rev != "HEAD" and not (_BRANCH.fullmatch(rev) and _resolves(repo, f"refs/heads/{rev}")):
        rev = state.commit
    if recipe is not None and not is_named(repo, state, recipe):
        recipe = str(Path(recipe).absolute())
    tasks = None if request.tasks is None else tuple(map(str, parse_tasks(request.tasks)))
    return replace(request, rev=rev, recipe=recipe, tasks=tasks, params=request.params or None)


def is_named(repo: Handle, state: State, recipe: str) -> bool:
    """Tell whether a request's recipe is a named one, committed or staged, and not a file."""
    known = recipe in state.recipes or recipe in state.broken
    return known or (is_task_name(recipe) and bool(stage.changes(repo).get(recipe_path(recipe))))


def remains(request: Request, recipe: Recipe, was: Recipe, gone: Collection[str]) -> Request:
    """Return what a removal leaves of a request.

    All tasks stay all tasks, and a named recipe loses the tasks by itself. An older revision and a recipe file still
    have them: what remains is the rest of what was built, by name. Where no task is left, those that are gone stay
    asked for, which tells an emptied directory from one of the base: see :mod:`weightvc.repo.emptied`.

    Args:
        request: What was asked for, as :func:`lasting` gives it.
        recipe: What was built, without the tasks that are gone.
        was: What was built before.
        gone: The names of the tasks.
    """
    if request.tasks is not None:
        left = tuple(str(w) for w in parse_tasks(request.tasks) if w.task not in gone)
        return replace(request, tasks=left or request.tasks, dtype=recipe.dtype)
    if request.rev == "HEAD" and (request.recipe is None or is_task_name(request.recipe)):
        return request
    tasks = tuple(map(str, recipe.tasks or was.tasks))
    return Request(
        request.rev,
        tasks,
        None,
        recipe.method,
        recipe.params,
        recipe.dtype,
        recipe.on_int_mismatch,
        recipe.rules or None,
    )


def command(repo: Handle, request: Request, path: Path, living: Collection[str]) -> str:
    """Return the command that asks for the same in the directory ``path``, of tasks only for those ``living``."""
    words = ["wvc", "checkout"]
    if request.rev != "HEAD":
        words.append(request.rev[:12] if is_commit(request.rev) else request.rev)
    if request.tasks is not None:
        words += ["--tasks", ",".join(str(w) for w in parse_tasks(request.tasks) if w.task in living)]
    words += ["--recipe", request.recipe] if request.recipe else []
    words += ["--method", request.method] if request.method else []
    for key, value in (request.params or {}).items():
        words += ["-p", f"{key}={value}"]
    for rule in request.rules or ():
        words += ["--rule", str(rule)]
    words += ["--dtype", request.dtype] if request.dtype else []
    words += ["--on-int-mismatch", request.on_int_mismatch] if request.on_int_mismatch else []
    words += ["-o", str(path)] if not is_default(repo, path) else []
    return shlex.join(words)


def is_commit(rev: str) -> bool:
    """Tell whether a kept revision is a commit, which nothing changes any more, and not a branch."""
    return len(rev) in (40, 64) and set(rev) <= set("0123456789abcdef")


def is_default(repo: Handle, path: Path) -> bool:
    """Tell whether a directory is the one that a checkout writes if none is named."""
    return path == repo.git.work_tree.resolve() / DEFAULT_OUTPUT


def to_json(request: Request) -> dict[str, Any]:
    """Return a request as JSON: what it leaves open is left out."""
    given = {field.name: getattr(request, field.name) for field in fields(request)}
    kept = {name: value for name, value in given.items() if value != getattr(_PLAIN, name)}
    lists = {"tasks": list, "rules": lambda rules: [rule.to_json() for rule in rules]}
    return {name: lists[name](value) if name in lists else value for name, value in kept.items()}


def from_json(value: Any) -> Request | None:
    """Return what :func:`to_json` was given, ``None`` if it is no request."""
    if not isinstance(value, dict) or not value.keys() <= {field.name for field in fields(Request)}:
        return None
    texts = [value.get(name, "") for name in ("rev", "recipe", "method", "dtype")]
    tasks = value.get("tasks", [])
    if not isinstance(tasks, list) or not all(isinstance(text, str) for text in (*texts, *tasks)):
        return None
    try:
        given: dict[str, Any] = {"tasks": tuple(map(str, parse_tasks(tasks)))} if "tasks" in value else {}
        scalars(value.get("params", {}), "params")
        if "rules" in value:
            given["rules"] = tuple(NameRule.from_json(rule, "rules") for rule in typed(value["rules"], list, "rules"))
        made = Request(**{**value, **given})
    except WeightvcError:
        return None
    return made if made.on_int_mismatch in (None, *get_args(Mismatch)) else None


def _resolves(repo: Handle, rev: str) -> bool:
    try:
        repo.git.resolve(rev)
    except NotFound:
        return False
    return True
