"""`wvc du`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli.context import Context, pass_context, size
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.du import Usage, Used


@click.command("du")
@pass_context
def command(ctx: Context) -> None:
    """Say what the base and each task take in the store: by themselves, and together with others.

    All versions count, those of earlier commits and other branches too. Two tasks share what is equal in both.
    STORED is what the current version takes, some of it shared perhaps; OWN what no other task uses, of all versions;
    SHARED what others use as well; OLDER the part of OWN that only earlier versions or encodings use.
    """
    result = repo.du.du(ctx.repository())
    ctx.emit("du", result, _lines(result))


def _lines(result: "Used") -> Iterator[str]:
    width = max(len(one.name) for one in result.usage)
    yield f"{'':<{width}}{'STORED':>12}{'OWN':>12}{'SHARED':>12}{'OLDER':>12}"
    for one in result.usage:
        figures = (one.stored_bytes, one.own_bytes, one.shared_bytes, one.older_bytes)
        yield f"{one.name:<{width}}" + "".join(f"{size(figure):>12}" for figure in figures) + _notes(one)
    yield f"{counted(result.objects, 'object')}, {size(result.objects_bytes)}"
    if result.unreferenced:
        loose = f"{counted(result.unreferenced, 'object')}, {size(result.unreferenced_bytes)}"
        yield f"{loose}, that nothing refers to: `wvc gc` deletes them when they are old enough"
    beside = {
        "cached states": result.cache_bytes,
        "scratch files": result.scratch_bytes,
        "damaged objects in .git/wvc/quarantine, which nothing reads": result.quarantine_bytes,
    }
    for what, nbytes in beside.items():
        if nbytes:
            yield f"{what}: {size(nbytes)}"


def _notes(one: "Usage") -> str:
    notes = [] if one.state == "current" else [one.state]
    notes += [f"lossy: {', '.join(one.lossy)}"] if one.lossy else []
    notes += [f"{one.versions} versions"] if one.versions > 1 else []
    return f"  {'; '.join(notes)}" if notes else ""
