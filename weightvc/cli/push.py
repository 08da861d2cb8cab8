"""`wvc push`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context, size
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.push import Pushed


@click.command("push")
@click.argument("remote", required=False)
@click.option("--objects-only", is_flag=True, help="Send objects, and leave the branch to git.")
@click.option("--full", is_flag=True, help="Read every object that is there, and send again what is damaged.")
@options.jobs
@options.dry_run
@pass_context
def command(ctx: Context, remote: str | None, objects_only: bool, full: bool, jobs: int, dry_run: bool) -> None:
    """Send what the current branch refers to, then push the branch with git.

    Only objects that REMOTE lacks are sent; a push that was interrupted goes on where it ended. REMOTE is the one that
    the branch follows in git, `origin`, or the only one, if none is named.
    """
    how = repo.push.Options(not objects_only, full, ctx.quiet or ctx.json, jobs, dry_run)
    result = repo.push.push(ctx.repository(), remote, how, ctx.progress())
    ctx.emit("push", result, _lines(result, dry_run=dry_run), done=not dry_run)


def _lines(result: "Pushed", *, dry_run: bool) -> Iterator[str]:
    did = "would send" if dry_run else "sent"
    sent = f"{did} {counted(result.objects, 'object')}, {size(result.bytes)}"
    yield f"{sent}, to {result.url}, which had {result.present}"
    if result.branch is not None:
        yield f"{'would push' if dry_run else 'pushed'} branch {result.branch} to {result.remote}"
