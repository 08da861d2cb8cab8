"""`wvc repack`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context, share, size
from weightvc.util.text import listed

if TYPE_CHECKING:
    from weightvc.delta.codec import Level
    from weightvc.repo.repack import Repacked, RepackedTask


@click.command("repack")
@click.argument("tasks", nargs=-1, metavar="[TASK]...", type=options.TaskName())
@click.option("--codec", shell_complete=options.codecs, help="Store every tensor by this codec, larger or not.")
@click.option("--level", type=click.Choice(options.LEVELS), help="Store every tensor at this level, larger or not.")
@options.jobs
@options.dry_run
@pass_context
def command(
    ctx: Context, tasks: tuple[str, ...], codec: str | None, level: "Level | None", jobs: int, dry_run: bool
) -> None:
    """Store the tasks TASK, or all, in another encoding, for the next `wvc commit`.

    Tensors, files and versions stay what they are, bit for bit. Earlier commits keep their own encodings, so that the
    store itself grows: it pays before a first commit, and where only the newest is kept or sent on. Without
    --codec and --level, each tensor is encoded by intdelta at level best, and stored anew if that makes it smaller; a
    task that would become less than half a percent smaller stays as it is. A dry run encodes as well, to say how large
    the tasks would be.
    """
    how = repo.repack.Options(codec, level, jobs, dry_run)
    result = repo.repack.repack(ctx.repository(), tasks, how, ctx.progress())
    ctx.emit("repack", result, _lines(result, dry_run=dry_run, forced=how.forced), done=not dry_run)


def _lines(result: "Repacked", *, dry_run: bool, forced: bool) -> Iterator[str]:
    if not result.tasks:
        yield "no tasks yet; add one with `wvc add PATH --task NAME`"
    elif dry_run:
        yield from (_would(task) for task in result.tasks)
    elif not result.staged:
        why = "all is stored so already" if forced else "no task would get half a percent smaller"
        yield f"nothing is staged: {why}"
    else:
        yield from (
            f"staged task {task.task}, stored anew {_sizes(task)}"
            for task in result.tasks
            if task.task in result.staged
        )
        if same := [task.task for task in result.tasks if task.task not in result.staged]:
            yield f"nothing changes for {listed(same)}"
        yield "earlier commits keep the old encodings, so the store holds both; now run `wvc commit -m MESSAGE`"


def _would(task: "RepackedTask") -> str:
    if task.after_bytes == task.before_bytes:
        return f"task {task.task} would stay as large as it is, {size(task.before_bytes)}"
    return f"would store task {task.task} anew {_sizes(task)}"


def _sizes(task: "RepackedTask") -> str:
    """Return `in 3.0 MiB, 75.0 % of the 4.0 MiB before`."""
    ratio = share(task.after_bytes, task.before_bytes)
    return f"in {size(task.after_bytes)}, {ratio} of the {size(task.before_bytes)} before"
