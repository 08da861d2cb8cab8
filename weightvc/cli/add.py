"""`wvc add`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, columns, pass_context, share, size

if TYPE_CHECKING:
    from weightvc.delta.codec import Level
    from weightvc.repo.add import Added
    from weightvc.repo.estimate import Estimated

_CHANGES = {
    "new": "task {}",
    "version": "a new version of task {}",
    "stored": "task {} with the same weights but other files, lineage or codec",
}


@click.command("add")
@click.argument("path", shell_complete=options.paths)
@click.option("--task", required=True, type=options.TaskName(), help="The task's name.")
@options.codec
@options.level
@click.option(
    "--derived-from",
    multiple=True,
    metavar="TASK|RECIPE",
    shell_complete=options.tasks_and_recipes,
    help="What it was trained from, if not the base.",
)
@click.option("--force-base", is_flag=True, help="Accept a checkpoint that looks like no fine-tune of this base.")
@click.option("--allow-nonfinite", is_flag=True, help="Accept NaN and infinities.")
@click.option(
    "--estimate", is_flag=True, help="Say how small codecs and levels would make it, from a sample; store nothing."
)
@options.jobs
@options.dry_run
@pass_context
def command(
    ctx: Context,
    path: str,
    task: str,
    codec: str,
    level: "Level",
    derived_from: tuple[str, ...],
    force_base: bool,
    allow_nonfinite: bool,
    estimate: bool,
    jobs: int,
    dry_run: bool,
) -> None:
    """Store a fine-tune of the base as a task, for the next `wvc commit`.

    PATH is a .safetensors file, the directory of a model or of a PEFT LoRA adapter, or a .bin or .pt file. A task that
    exists gets a new version. An adapter is kept as it is, and merges compute its task vector from its factors.
    Its bits come back, unless --codec names a lossy one.
    --estimate tries each level of intdelta, raw, and the codec that --codec names on a sample of the tensors. Like
    --dry-run, it refuses what is no fine-tune of the base and does not look at every value.
    What was trained from a directory that `wvc checkout` wrote derives from its tasks, if its lock lies beside it.
    """
    if estimate:
        how = repo.estimate.Options(codec, jobs, force_base)
        found = repo.estimate.estimate(ctx.repository(), Path(path), task, how, ctx.progress())
        ctx.emit("estimate", found, _table(found))
        return
    store = repo.snapshot.Options(codec, level, jobs, allow_nonfinite)
    result = repo.add.add(
        ctx.repository(), Path(path), task, repo.add.Options(store, derived_from, force_base, dry_run), ctx.progress()
    )
    ctx.note(result.notes)
    ctx.emit("add", result, _lines(result), done=not dry_run)


def _table(result: "Estimated") -> Iterator[str]:
    yield f"task {result.task}: {size(result.bytes)}, of which {size(result.sampled_bytes)} were encoded to estimate"
    rows = [("CODEC", "LEVEL", "STORED", "RATIO", "MB/S OF ONE THREAD", "")]
    for line in result.estimates:
        figures = size(line.stored_bytes), f"{100 * line.ratio:.1f} %", f"{line.encode_mb_s:.0f}"
        rows.append((line.codec, line.level, *figures, "lossy" if line.lossy else ""))
    yield from columns(rows, right=(2, 3, 4))


def _lines(result: "Added") -> Iterator[str]:
    counts = ", ".join(f"{count} {state}" for state, count in result.tensors.items() if count)
    moved = "" if result.relative_norm is None else f"; moved {100 * result.relative_norm:.2f} % of the base's norm"
    if result.peak_bytes is not None:
        what = "a new version of task" if result.change == "version" else "task"
        yield f"would add {what} {result.task}: {counts}, {size(result.bytes)}{moved}"
        yield f"peak memory {size(result.peak_bytes)}"
        return
    if result.change == "none":
        where = "is staged with" if result.staged else "has"
        yield f"nothing changed: task {result.task} {where} these weights already"
        return
    if result.change == "dropped":
        yield f"dropped the staged version of task {result.task}; nothing is staged for it now"
        return
    yield f"staged {_CHANGES[result.change].format(result.task)}: {counts}{moved}"
    ratio = share(result.stored_bytes, result.bytes)
    if result.lossy:
        yield f"lossy: {result.lossy}"
    yield f"{size(result.bytes)} stored in {size(result.stored_bytes)} ({ratio}); now run `wvc commit -m MESSAGE`"
