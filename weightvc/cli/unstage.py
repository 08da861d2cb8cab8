"""`wvc unstage`."""

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context


@click.command("unstage")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=options.staged)
@options.dry_run
@pass_context
def command(ctx: Context, names: tuple[str, ...], dry_run: bool) -> None:
    """Drop what is staged for the tasks and recipes NAME, or everything that is staged.

    What is committed stays as it is. A task and a recipe of the same name are both dropped.
    """
    result = repo.unstage.unstage(ctx.repository(), names, dry_run=dry_run)
    verb = "would drop" if dry_run else "dropped"
    lines = [f"{verb} what was staged for {_what(path)}" for path in result.dropped]
    ctx.emit("unstage", result, lines or ["nothing is staged"], done=not dry_run)


def _what(path: str) -> str:
    kind, _, file = path.removeprefix(".wvc/").partition("/")
    return f"{kind.removesuffix('s')} {file.rpartition('.')[0]}"
