"""`wvc init`."""

from pathlib import Path

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context, share, size
from weightvc.util.text import counted


@click.command("init")
@click.argument("directory", default=".", metavar="[DIR]", shell_complete=options.paths)
@click.option(
    "--base",
    required=True,
    metavar="PATH",
    shell_complete=options.paths,
    help="The base checkpoint: a file or a model directory.",
)
@options.base_codec
@click.option("--allow-nonfinite", is_flag=True, help="Accept NaN and infinities.")
@options.jobs
@options.dry_run
@pass_context
def command(
    ctx: Context, directory: str, base: str, codec: str, allow_nonfinite: bool, jobs: int, dry_run: bool
) -> None:
    """Make DIR a repository over a base checkpoint, and commit it.

    Sets git up if DIR is no git repository. Every fine-tune is later stored as its difference from this base.
    """
    store = repo.snapshot.Options(codec, jobs=jobs, allow_nonfinite=allow_nonfinite)
    result = repo.init.init(Path(directory), Path(base), store, ctx.progress(), dry_run=dry_run)
    ctx.note(result.warnings, "warning")
    if result.commit is None:
        lines = [
            f"would make {result.repository} over {counted(result.base.tensors, 'tensor')}, {size(result.base.bytes)}"
        ]
        lines.append(f"peak memory {size(result.peak_bytes or 0)}")
    else:
        ratio = share(result.base.stored_bytes, result.base.bytes)
        lines = [
            f"{result.repository}: base {result.base.digest[:12]} with {counted(result.base.tensors, 'tensor')}",
            f"{size(result.base.bytes)} stored in {size(result.base.stored_bytes)} ({ratio})",
            f"commit {result.commit[:12]}; now run `wvc add PATH --task NAME`",
        ]
    ctx.emit("init", result, lines, done=not dry_run)
