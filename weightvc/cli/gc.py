"""`wvc gc`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context, size
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.gc import Collected


@click.command("gc")
@click.option(
    "--grace",
    type=float,
    metavar="DAYS",
    help="Keep what was stored within so many days; 14 by default, 0 keeps nothing.",
)
@options.dry_run
@pass_context
def command(ctx: Context, grace: float | None, dry_run: bool) -> None:
    """Delete objects that nothing refers to: no commit, branch, reflog or worktree, and nothing that is staged.

    Such objects are left by commands that were killed, by `wvc unstage`, and by commits that git has forgotten. A
    removed task is still in history, and stays. `wvc -v gc -n` names the objects.
    """
    how = repo.gc.Options(repo.gc.GRACE_DAYS if grace is None else grace, dry_run)
    result = repo.gc.gc(ctx.repository(), how, ctx.progress())
    ctx.emit("gc", result, _lines(result, dry_run=dry_run, verbose=bool(ctx.verbose)), done=not dry_run)


def _lines(result: "Collected", *, dry_run: bool, verbose: bool) -> Iterator[str]:
    if verbose:
        for one in result.objects:
            yield f"{one.id}  {size(one.bytes)}{'  young' if one.young else ''}"
    did = "would delete" if dry_run else "deleted"
    yield f"{did} {counted(result.removed, 'object')}, {size(result.removed_bytes)}"
    if result.young:
        kept = f"{counted(result.young, 'object')}, {size(result.young_bytes)}"
        yield f"kept {kept}, that nothing refers to but that are younger than {result.grace_days:g} days"
    yield f"{counted(result.used, 'object')} in use"
