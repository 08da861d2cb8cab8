"""`wvc revert`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from weightvc import repo
from weightvc.cli import exits, options
from weightvc.cli.context import Context, pass_context, size
from weightvc.util.text import listed

if TYPE_CHECKING:
    from weightvc.repo.rebuild import Rebuilt
    from weightvc.repo.revert import Planned, Reverted


@click.command("revert")
@click.argument("target", metavar="TASK|REV", type=options.TaskName())
@click.option("-m", "--message", help="The commit's message.")
@click.option("--cascade", is_flag=True, help="Take out the tasks that derive from it, too.")
@click.option("--keep-derived", is_flag=True, help="Leave the tasks that derive from it, on record.")
@click.option("--reason", default="", metavar="R", help="Why, for the removal record.")
@click.option("--requester", default="", metavar="ID", help="Who asked for it, for the removal record.")
@click.option("--rebuild/--no-rebuild", default=True, show_default=True, help="Build again what contained the task.")
@options.device
@options.jobs
@options.dry_run
@pass_context
def command(ctx: Context, /, target: str, **given: Any) -> None:
    """Take a task out of the tasks and recipes, and rebuild every model that contained it.

    Each rebuilt model is built twice, the second time from a store that holds nothing of the task; both must be equal
    byte for byte; exit 1 when that failed for one. Run again for a task that was taken out, it rebuilds what still
    contains it. The task's bytes stay in the store, and older revisions still check out. The commit can be undone
    with git, and the task may be added again.
    A task that is only staged is dropped from the stage, and nothing is committed.
    """
    result = repo.revert.revert(ctx.repository(), target, repo.revert.Options(**given), ctx.progress())
    ctx.note(result.warnings, "warning")
    if result.unproved:
        ctx.code = exits.FOUND
        ctx.note([f"run `wvc revert {result.task}` again once that is repaired"], "hint")
    ctx.emit("revert", result, _lines(result, dry_run=given["dry_run"]), done=not given["dry_run"])


def _lines(result: "Reverted", *, dry_run: bool) -> Iterator[str]:
    if result.commit is None and result.audit is None and not dry_run:
        yield f"dropped the staged task {result.task}; nothing was committed"
        return
    yield _first(result)
    if result.commit is not None and result.recipes:
        yield f"changed recipes: {listed(result.recipes)}"
    if result.dependants:
        yield f"kept tasks that derive from it: {listed(result.dependants)}"
    for planned in result.would_rebuild:
        yield f"would {'rebuild' if planned.output else 'compute'} {_where(planned)}"
    for rebuilt in result.rebuilt:
        left = "" if rebuilt.tasks else " (no task is left: the base)"
        done = "rebuilt" if rebuilt.output else "computed"
        yield f"{done} {_where(rebuilt)}: {rebuilt.after[:16]}{left}, equal to a build that never had the task"
    if result.kept_bytes:
        yield f"history still holds it: its {size(result.kept_bytes)} stay in the store, and older revisions check out"


def _where(model: "Planned | Rebuilt") -> str:
    recipe = f"recipe {model.recipe}" if model.recipe else ""
    if model.output:
        return model.output + (f" ({recipe})" if recipe else "")
    return f"{recipe or 'all tasks'} to compare, nothing on disk"


def _first(result: "Reverted") -> str:
    names = listed(result.tasks)
    if result.commit is not None:
        return f"took out {names} in commit {result.commit[:12]}; record {result.audit}"
    if result.audit is not None:
        return f"{names} was taken out already" + ("; rebuilt what still contained it" if result.rebuilt else "")
    return f"would take out {names}, and change the recipes: {listed(result.recipes) or 'none'}"
