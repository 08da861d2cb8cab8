"""`wvc log`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, pass_context
from weightvc.util.text import listed

if TYPE_CHECKING:
    from weightvc.repo.log import LogLine

_SIGNS = {"new": "+", "changed": "~", "removed": "-"}


@dataclass(frozen=True)
class _Log:
    commits: "tuple[LogLine, ...]"
    lineage: dict[str, tuple[str, ...]]


@click.command("log")
@click.argument("task", required=False, type=options.TaskName())
@click.option("--graph", is_flag=True, help="Draw which tasks were trained from which.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N commits.")
@pass_context
def command(ctx: Context, task: str | None, graph: bool, limit: int | None) -> None:
    """Show the commits that changed tasks or recipes, newest first; those of one TASK if named.

    A + stands before what a commit added, a ~ before what it changed, a - before what it removed.
    """
    repository = ctx.repository()
    result = _Log(tuple(repo.log.log(repository, task, limit=limit)), repo.log.lineage(repository))
    ctx.emit("log", result, _graph(result.lineage) if graph else _lines(result))


def _lines(result: _Log) -> Iterator[str]:
    for line in result.commits:
        marks = [f"+{name}" for name in line.added] + [f"~{name}" for name in line.changed]
        marks += [f"~{name} (stored anew)" for name in line.stored]
        marks += [f"-{name}" for name in line.removed]
        marks += [f"{_SIGNS[what]}{name} (recipe)" for name, what in line.recipes.items()]
        yield f"{line.commit[:12]}  {line.time[:19]}Z  {line.subject}  {' '.join(marks)}".rstrip()


def _graph(lineage: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Draw every task below each of its parents, the base at the root."""
    yield "base"
    roots = [name for name, parents in lineage.items() if not any(parent in lineage for parent in parents)]
    yield from _branches(roots, lineage, "", ())


def _branches(
    names: list[str], lineage: dict[str, tuple[str, ...]], indent: str, above: tuple[str, ...]
) -> Iterator[str]:
    for at, name in enumerate(names):
        last = at == len(names) - 1
        gone = [parent for parent in lineage[name] if parent not in lineage]
        source = f" (from {listed(gone)}, removed)" if gone else ""
        yield f"{indent}{'└─' if last else '├─'} {name}{source}"
        children = [child for child, parents in lineage.items() if name in parents and child not in above]
        yield from _branches(children, lineage, indent + ("   " if last else "│  "), (*above, name))
