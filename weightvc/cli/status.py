"""`wvc status`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import words
from weightvc.cli.context import Context, columns, pass_context, share, size
from weightvc.util.text import listed

if TYPE_CHECKING:
    from weightvc.repo.stale import Output
    from weightvc.repo.status import Status, TaskLine


@click.command("status")
@pass_context
def command(ctx: Context) -> None:
    """Show the tasks in merge order, the recipes, what the next commit will record, and what is checked out.

    A directory that checkout wrote is behind when what was asked for in it, all tasks, a recipe, or some tasks, would
    give another model by now.
    """
    result = repo.status.status(ctx.repository())
    ctx.emit("status", result, _lines(result))


def _lines(result: "Status") -> Iterator[str]:
    on = f"on {result.branch}" if result.branch else "on no branch (HEAD is detached),"
    yield f"{result.repository} {on} at {result.commit[:12]}, base {result.base[:12]}, method {result.method}"
    if result.tasks:
        yield ""
        rows = [("TASK", "VERSION", "FIRST ADDED", "SIZE", "STORED", "", ""), *map(_task, result.tasks)]
        yield from columns(rows, right=(3, 4, 5))
    elif any(what == "new task" for what, _ in map(_named, result.staged.items())):
        yield "no tasks committed yet"
    else:
        yield "no tasks yet; add one with `wvc add PATH --task NAME`"
    if result.recipes:
        yield f"recipes: {', '.join(result.recipes)}"
    yield from (f"recipe {name}: no task is left; it makes the base" for name in result.empty)
    yield from (f"recipe {name} makes no model: {wrong}" for name, wrong in result.unusable.items())
    yield from _staged(result)
    yield from _by_hand(result)
    if result.directories:
        yield ""
        yield "checked out:"
        for directory in result.directories:
            if not directory.work_tree:
                yield from _directory(directory)
        for tree in dict.fromkeys(directory.work_tree for directory in result.directories if directory.work_tree):
            paths = [directory.path for directory in result.directories if directory.work_tree == tree]
            yield f"  in the work tree {tree}, whose own `wvc status` tells: {listed(paths)}"


def _task(task: "TaskLine") -> tuple[str, ...]:
    sizes = size(task.bytes), size(task.stored_bytes), share(task.stored_bytes, task.bytes)
    return task.task, task.version[:12], f"{task.added[:19]}Z", *sizes, "lossy" if task.lossy else ""


def _by_hand(result: "Status") -> Iterator[str]:
    """Say what git is to be told of: conflicts, and files edited by hand, or by a merge that is not finished."""
    if result.conflicts:
        yield ""
        yield f"in conflict: {', '.join(result.conflicts)}"
        done = f" and `git {result.under_way} --continue`" if result.under_way else ""
        yield (
            "choose with `git checkout --ours FILE` or `--theirs` (`git rm FILE` for a side that deleted it), "
            f"then `git add FILE`{done}"
        )
    if result.edited:
        yield ""
        yield f"{'merged or ' if result.under_way else ''}edited in the work tree, and not used until committed:"
        yield from (f"  {path}" for path in result.edited)
        if result.under_way and not result.conflicts:
            doing = result.under_way
            yield f"record it with `git {doing} --continue`, or undo it with `git {doing} --abort`"
        elif not result.conflicts:
            yield "record it with `git commit`, or undo it with `git restore`"


def _staged(result: "Status") -> Iterator[str]:
    if not result.staged:
        return
    rows = [_named(item) for item in result.staged.items()]
    yield ""
    yield "staged for the next `wvc commit`:"
    yield from (f"  {line}" for line in columns([(f"{what}:", name) for what, name in rows]))
    yield "take back with `wvc unstage NAME`"


def _named(item: tuple[str, str]) -> tuple[str, str]:
    """Return what is staged as people call it: `new version` and the task's name."""
    path, what = item
    kind = "task" if "/tasks/" in path else "recipe"
    name = path.rpartition("/")[2].removesuffix(".json").removesuffix(".toml")
    return {("task", "changed"): "new version", ("task", "stored"): "stored anew"}.get(
        (kind, what), f"{what} {kind}"
    ), name


def _directory(directory: "Output") -> Iterator[str]:
    if directory.state == "unknown":
        yield f"  {directory.why}"
        return
    made = words.model(
        directory.recipe,
        directory.method,
        directory.params,
        directory.dtype,
        rules=directory.rules,
        exact=directory.exact,
        lossy=directory.lossy,
    )
    yield f"  {directory.path}: {made}, {_state(directory)}"
    if directory.remedy:
        yield f"    run `{directory.remedy}`"


def _state(directory: "Output") -> str:
    """Return how a directory stands to the revision that was asked for, which is named if it is not HEAD."""
    rev = (directory.asked or {}).get("rev", "")
    shown = rev[:12] if len(rev) >= 40 else rev
    if directory.state == "current" and directory.why:
        return directory.why
    if directory.state == "current":
        return f"up to date with {shown}" if rev else "up to date"
    return f"behind: {directory.why}"
