"""`wvc commit`."""

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context


@click.command("commit")
@click.option("-m", "--message", required=True, help="What this change is.")
@options.dry_run
@pass_context
def command(ctx: Context, message: str, dry_run: bool) -> None:
    """Record what is staged as one git commit of wvc's own files.

    Your own staged files stay staged, and your hooks do not run.
    """
    result = repo.commit.commit(ctx.repository(), message, dry_run=dry_run)
    ctx.note(result.warnings, "warning")
    said = {name: f"new version of {name}" for name in result.versions}
    said |= {name: f"{name} stored anew" for name in result.stored}
    what = ", ".join([*(said.get(name, name) for name in result.tasks), *(f"recipe {name}" for name in result.recipes)])
    done = "would commit" if result.commit is None else f"commit {result.commit[:12]}:"
    ctx.emit("commit", result, [f"{done} {what}"], done=not dry_run)
