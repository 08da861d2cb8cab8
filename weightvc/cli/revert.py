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

    REV stands for the tasks that this revision added and that are still here.

    Each rebuilt model is built twice, the second time from a store that holds nothing of the task; both must be
    equal byte for byte; exit 1 when that failed for one. A directory with files that were added or changed is left
    as it is, and named, and so is one in another work tree, whose branch may still have the task. Run again for a
    task that was taken out, it rebuilds what still contains it. The task's bytes stay in the store, and older
    revisions still check out. The commit can be undone with git, and the task may be added again. A task that is
    only staged is dropped from the stage, and nothing is committed.
    """
    asked = repo.revert.Options(**given)  # first: a usage error needs no repository
    result = repo.revert.revert(ctx.repository(), target, asked, ctx.progress())
    ctx.note(result.warnings, "warning")
    ctx.note(result.notes)
    if result.unproved:
        ctx.code = exits.FOUND
        if not asked.dry_run:
            ctx.note([f"run `wvc revert {result.task}` again once that is repaired"], "hint")
    ctx.emit("revert", result, _lines(result, dry_run=asked.dry_run), done=not asked.dry_run)


def _lines(result: "Reverted", *, dry_run: bool) -> Iterator[str]:
    alone = result.dropped == (result.task,) and not result.audit
    only = f"; nothing {'would be' if dry_run else 'was'} committed" if alone else ""
    yield from (f"{'would drop' if dry_run else 'dropped'} the staged task {name}{only}" for name in result.dropped)
    if alone:
        return
    yield _first(result)
    if result.commit is not None and result.recipes:
        yield f"changed recipes: {listed(result.recipes)}"
    yield from (f"recipe {name}: no task {'would be' if dry_run else 'is'} left" for name in result.emptied)
    if result.dependants:
        yield f"kept tasks that derive from it: {listed(result.dependants)}"
    for planned in result.would_rebuild:
        if planned.known:
            continue
        yield f"would {'rebuild' if planned.output else 'compute'} {_where(planned)}"
    on_disk = {(rebuilt.tasks, rebuilt.after) for rebuilt in result.rebuilt if rebuilt.output}
    for rebuilt in result.rebuilt:
        if not rebuilt.output and (rebuilt.tasks, rebuilt.after) in on_disk:  # a directory above is that very model
            continue
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
    names, several = listed(result.tasks), len(result.tasks) > 1
    if result.commit is not None:
        record = "records" if len(result.audits) > 1 else "record"
        return f"took out {names} in commit {result.commit[:12]}; {record} {', '.join(result.audits)}"
    if result.audit is not None:
        it = "them" if several else "it"
        done = f"; rebuilt what still contained {it}" if any(line.output for line in result.rebuilt) else ""
        none = f"; no directory that is known contains {it}" if result.rebuilt and not (done or result.unproved) else ""
        return f"{names} {'were' if several else 'was'} taken out already{done}{none}"
    return f"would take out {names}, and change the recipes: {listed(result.recipes) or 'none'}"
