"""`wvc verify`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import exits, options
from weightvc.cli.context import Context, columns, pass_context

if TYPE_CHECKING:
    from weightvc.repo.verify import Verified


@click.command("verify")
@click.argument("path", shell_complete=options.paths)
@click.option("--replay", is_flag=True, help="Build the model again from sources and compare.")
@options.device
@options.jobs
@pass_context
def command(ctx: Context, path: str, replay: bool, device: str, jobs: int) -> None:
    """Compare a directory that checkout wrote with its lock; exit 1 when they differ.

    Works without a repository, unless --replay is given: then it is the one of the current directory, or if that is in
    none, or does not have the commit that the lock names, the one that PATH lies in.
    """
    repository = repo.verify.find_repository(Path(path), Path.cwd()) if replay else None
    result = repo.verify.verify(
        Path(path), repository, replay=replay, device=device, jobs=jobs, progress=ctx.progress()
    )
    ctx.code = 0 if result.ok else exits.FOUND
    rows = [("ok" if check.ok else "FAILED", check.name, check.detail) for check in result.checks]
    ctx.emit("verify", result, [*columns(rows), _digest(result)])


def _digest(result: "Verified") -> str:
    if result.ok:
        return f"digest {result.digest}"
    return f"what is here is not what the lock describes, whose digest is {result.digest}"
