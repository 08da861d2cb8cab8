"""`wvc add`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, columns, pass_context, share, size
from weightvc.util.errors import UsageError
from weightvc.util.text import counted, listed

if TYPE_CHECKING:
    from weightvc.delta.codec import Level
    from weightvc.repo.add import Added
    from weightvc.repo.estimate import Estimated

_CHANGES = {
    "new": "task {}",
    "version": "a new version of task {}",
    "stored": "task {} with the same weights but other files, lineage, codec or scores",
}
_MODELS = {"base": "the base", "tuned": "the fine-tune", "stored": "what comes back"}


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
@click.option(
    "--eval",
    "evaluator",
    metavar="CMD",
    help="Score the base, the fine-tune and what comes back of it with a command, and keep the scores.",
)
@click.option(
    "--max-drop",
    type=float,
    metavar="X",
    help="Store it losslessly if a score of --eval drops by more than this, in its own unit.",
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
    evaluator: str | None,
    max_drop: float | None,
    jobs: int,
    dry_run: bool,
) -> None:
    """Store a fine-tune of the base as a task, for the next `wvc commit`.

    PATH is a .safetensors file, the directory of a model or of a PEFT LoRA adapter, or a .bin or .pt file. A task that
    exists gets a new version. An adapter is kept as it is, and merges compute its task vector from its factors.
    Its bits come back, unless --codec names a lossy one.
    --estimate tries each level of intdelta, raw, and the codec that --codec names on a sample of the tensors. Like
    --dry-run, it refuses what is no fine-tune of the base and does not look at every value.
    --eval splits CMD as a shell would, puts the path of a model directory in the place of {model_dir}, or last, and
    runs it. The last line that it prints is a number, or a JSON object of names and numbers; higher is better.
    What was trained from a directory that `wvc checkout` wrote derives from its tasks, if its lock lies beside it.
    """
    evaluation = repo.evaluator.asked(evaluator, max_drop)
    if estimate:
        if evaluation is not None:
            raise UsageError("--estimate stores nothing that could be scored", "leave --estimate or --eval out")
        how = repo.estimate.Options(codec, jobs, force_base)
        found = repo.estimate.estimate(ctx.repository(), Path(path), task, how, ctx.progress())
        ctx.emit("estimate", found, _table(found))
        return
    store = repo.snapshot.Options(codec, level, jobs, allow_nonfinite)
    how_added = repo.add.Options(store, derived_from, force_base, dry_run, evaluation)
    result = repo.add.add(ctx.repository(), Path(path), task, how_added, ctx.progress())
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
    both = result.tensors.get("reshaped", 0)  # which are among the added and the removed, and are said once
    tensors = {key: count - both * (key in ("added", "removed")) for key, count in result.tensors.items()}
    tensors |= {"reshaped": both - result.retyped, "retyped": result.retyped}
    counts = ", ".join(f"{count} {state}" for state, count in tensors.items() if count > 0)
    moved = "" if result.relative_norm is None else f"; moved {100 * result.relative_norm:.2f} % of the base's norm"
    if result.peak_bytes is not None:
        what = "a new version of task" if result.change == "version" else "task"
        yield f"would add {what} {result.task} by {result.codec}: {counts}, {size(result.bytes)}{moved}"
        yield from _files(result)
        yield f"peak memory {size(result.peak_bytes)}"
        if result.scored:
            models = listed([_MODELS[one] for one in result.scored])
            yield f"would run the evaluator on {models}, in up to {size(result.scratch_bytes)} of scratch space"
        return
    if result.change == "none":
        where = "is staged with" if result.staged else "has"
        yield f"nothing changed: task {result.task} {where} these weights already"
        return
    if result.change == "dropped":
        yield f"dropped the staged version of task {result.task}; nothing is staged for it now"
        return
    yield f"staged {_CHANGES[result.change].format(result.task)}: {counts}{moved}"
    yield from _files(result)
    ratio = share(result.stored_bytes, result.bytes)
    if result.lossy:
        yield f"lossy: {result.lossy}"
    yield from _scored(result)
    yield f"{size(result.bytes)} stored in {size(result.stored_bytes)} ({ratio}); now run `wvc commit -m MESSAGE`"


def _files(result: "Added") -> Iterator[str]:
    if result.files:
        yield f"and {counted(result.files, 'other file')} of the directory, {size(result.files_bytes)}"


def _scored(result: "Added") -> Iterator[str]:
    """Say what an evaluator said, and that a lossy codec was not taken for it."""
    if (tried := result.fallback) is not None:
        for name in tried.dropped:
            score = tried.scores[name]
            fell = f"{name} dropped from {score.tuned:g} to {score.stored:g}, by more than {tried.max_drop:g}"
            yield f"not stored by {tried.codec}: {fell}"
        yield f"stored losslessly by {result.codec} in its place"
    for name, score in result.scores.items():
        yield f"score {name}: {score}"
    if result.scores and result.lossy is None:
        yield "its tensors come back as they were added, and were not scored again"
