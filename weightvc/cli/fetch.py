"""`wvc fetch`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import exits, options
from weightvc.cli.context import Context, pass_context, size
from weightvc.util.text import counted, listed

if TYPE_CHECKING:
    from weightvc.repo.fetch import Fetched


@click.command("fetch")
@click.argument("remote", required=False)
@click.option("--tasks", metavar="A,B", help="Bring the objects of these tasks, and of the base, only.")
@click.option("--all", "history", is_flag=True, help="Bring the objects of every version in history.")
@click.option("--objects-only", is_flag=True, help="Bring objects, and leave the branches to git.")
@options.jobs
@options.dry_run
@pass_context
def command(
    ctx: Context, remote: str | None, tasks: str | None, history: bool, objects_only: bool, jobs: int, dry_run: bool
) -> None:
    """Fetch branches with git, then the objects that they and HEAD refer to.

    Only objects that are not here are fetched, and each is compared with its id; a fetch that was interrupted goes on
    where it ended. REMOTE is the one that the branch follows in git, `origin`, or the only one, if none is named.
    """
    names = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    how = repo.fetch.Options(names, history, not objects_only, ctx.quiet or ctx.json, jobs, dry_run)
    result = repo.fetch.fetch(ctx.repository(), remote, how, ctx.progress())
    ctx.emit("fetch", result, _lines(result, dry_run=dry_run), done=not dry_run)
    if result.absent:
        ctx.note([f"neither here nor at {result.remote}: {counted(result.absent, 'object')}"], "warning")
        ctx.note(["whoever committed them runs `wvc push`; `wvc remote list` shows the address"], "hint")
    if result.lacking:
        ctx.code = exits.INTEGRITY
        ctx.note([f"of HEAD, what is not all here: {listed(result.lacking)}"], "warning")


def _lines(result: "Fetched", *, dry_run: bool) -> Iterator[str]:
    did = "would fetch" if dry_run else "fetched"
    moved = f"{did} {counted(result.objects, 'object')}, {size(result.bytes)}"
    yield f"{moved}, from {result.url}, and had {result.present}"
