"""`wvc diff`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import exits, options
from weightvc.cli.context import Context, columns, number, pass_context
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.diff import Difference, Row

_ONE = ("", "tensors", "changed", "relative norm")
_TWO = ("", "tensors", "changed A", "changed B", "differing", "norm A", "norm B", "cosine", "sign conflict")


@click.command("diff")
@click.argument("a", type=options.TaskName())
@click.argument("b", required=False, type=options.TaskName())
@click.option("--layers", is_flag=True, help="A row for each layer.")
@click.option("--md", is_flag=True, help="A Markdown table, for a pull request.")
@click.option("--exit-code", is_flag=True, help="Exit 1 when the models differ.")
@pass_context
def command(ctx: Context, a: str, b: str | None, layers: bool, md: bool, exit_code: bool) -> None:
    """Compare model A with model B, or with the base.

    A and B are tasks, recipes, revisions, model directories or files. Counted are the floating-point tensors of the
    base. Norms are those of the task vectors, relative to the base's.

    Sign conflict: the share of all these tensors' weights that the two move in opposite directions.
    """
    result = repo.diff.diff(ctx.repository(), a, b, layers=layers, progress=ctx.progress())
    if exit_code and (result.apart or (result.total.differing if b else result.total.changed_a)):
        ctx.code = exits.FOUND
    if result.apart:
        differ = f"{counted(result.apart, 'tensor')} {'differs' if result.apart == 1 else 'differ'}"
        ctx.note([f"{differ} beyond these figures: new, missing, reshaped, or no numbers"])
    ctx.note(result.notes)
    ctx.emit("diff", result, _markdown(result) if md else columns(_table(result), right=range(1, 9)))


def _table(result: "Difference") -> list[tuple[str, ...]]:
    two = result.b is not None
    return [_TWO if two else _ONE, *(_cells(row, two) for row in (*result.layers, result.total))]


def _cells(row: "Row", two: bool) -> tuple[str, ...]:
    if not two:
        return row.name, str(row.tensors), str(row.changed_a), number(row.norm_a)
    counts = (row.tensors, row.changed_a, row.changed_b, row.differing)
    figures = (row.norm_a, row.norm_b, row.cosine, row.sign_conflict)
    return (row.name, *map(str, counts), *map(number, figures))


def _markdown(result: "Difference") -> Iterator[str]:
    header, *rows = _table(result)
    yield f"**{result.a}** (A)" + (f" against **{result.b}** (B)" if result.b else " against the base")
    yield ""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
