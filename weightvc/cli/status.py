"""`wvc status`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli.context import Context, columns, pass_context, share, size

if TYPE_CHECKING:
    from weightvc.repo.status import Status


@click.command("status")
@pass_context
def command(ctx: Context) -> None:
    """Show the tasks in merge order, the recipes, and what the next commit will record."""
    result = repo.status.status(ctx.repository())
    ctx.emit("status", result, _lines(result))


def _lines(result: "Status") -> Iterator[str]:
    yield f"{result.repository} at {result.commit[:12]}, base {result.base[:12]}, method {result.method}"
    if result.tasks:
        yield ""
        rows = [("TASK", "VERSION", "ADDED", "SIZE", "STORED", "")]
        rows += [
            (t.task, t.version[:12], t.added[:19], size(t.bytes), size(t.stored_bytes), share(t.stored_bytes, t.bytes))
            for t in result.tasks
        ]
        yield from columns(rows, right=(3, 4, 5))
    else:
        yield "no tasks yet; add one with `wvc add PATH --task NAME`"
    if result.recipes:
        yield f"recipes: {', '.join(result.recipes)}"
    if result.staged:
        yield ""
        yield "staged for the next `wvc commit`:"
        yield from (f"  {what}: {path}" for path, what in result.staged.items())
        if any(what == "new" and "/tasks/" in path for path, what in result.staged.items()):
            yield "take one back with `wvc revert TASK`"
    for path in result.outputs:
        yield f"checked out: {path}"
