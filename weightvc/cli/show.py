"""`wvc show`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context, share, size
from weightvc.util.text import counted, listed

if TYPE_CHECKING:
    from weightvc.repo.show import ShownRevision, ShownTask


@click.command("show")
@click.argument("name", metavar="TASK|REV", type=options.TaskName())
@pass_context
def command(ctx: Context, name: str) -> None:
    """Show what is known of a task, or of a revision."""
    result = repo.show.show(ctx.repository(), name)
    ctx.emit("show", result, _task(result) if isinstance(result, repo.show.ShownTask) else _revision(result))


def _task(task: "ShownTask") -> Iterator[str]:
    yield f"task {task.task}"
    yield f"version  {task.version}"
    yield f"uuid     {task.uuid}"
    yield f"added    {task.added}"
    total = sum(task.tensors.values())
    ratio = share(task.stored_bytes, task.bytes)
    yield f"source   {task.source}, {counted(total, 'tensor')}: {_counts(task.tensors)} ({_counts(task.dtypes)})"
    how = f", {_counts(task.codecs)}" if task.codecs else ""
    yield f"stored   {size(task.stored_bytes)} of {size(task.bytes)} ({ratio}){how}"
    if task.updates:
        ranks = ", ".join(f"{counted(count, 'tensor')} by rank {rank}" for rank, count in task.updates.items())
        yield f"adapter  updates {ranks}"
    if task.lossy:
        yield f"lossy    {task.lossy}"
    for name, score in task.scores.items():
        yield f"score    {name}: {score}"
    if task.lineage:
        yield f"from     {listed(task.lineage)}"
    if task.renamed:
        differ = "differs" if task.renamed == 1 else "differ"
        yield f"names    {counted(task.renamed, 'tensor')} {differ} from the base's names by a prefix"
    if task.new:
        yield f"whole    {listed(task.new)}"
    if task.nonfinite:
        yield f"warning  {counted(task.nonfinite, 'non-finite value')}"
    if task.files:
        yield f"files    {listed(task.files)}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _revision(shown: "ShownRevision") -> Iterator[str]:
    yield f"commit {shown.commit.commit}"
    yield f"{shown.commit.author}  {shown.commit.time}"
    yield f"    {shown.commit.subject}"
    for what in ("added", "changed", "removed"):
        if names := getattr(shown.commit, what):
            yield f"{what}: {listed(names)}"
    if shown.commit.stored:
        yield f"stored anew: {listed(shown.commit.stored)}"
    for what in ("new", "changed", "removed"):
        if names := [name for name, happened in shown.commit.recipes.items() if happened == what]:
            yield f"recipes {what}: {listed(names)}"
    yield f"tasks: {listed([task.task for task in shown.tasks]) or 'none'}"
    if shown.recipes:
        yield f"recipes: {listed(shown.recipes)}"
