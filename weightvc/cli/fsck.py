"""`wvc fsck`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import exits, options
from weightvc.cli.context import Context, pass_context, size
from weightvc.util.text import counted, listed

if TYPE_CHECKING:
    from weightvc.repo.fsck import Checked, Finding


@click.command("fsck")
@click.option("--full", is_flag=True, help="Also read every object that something refers to, and decode it.")
@click.option(
    "--repair",
    is_flag=True,
    help="Put damaged objects into quarantine, and restore what --from or a remote has.",
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A repository, a folder of objects, or a checkpoint of the base or a task; without --repair, say what it has.",
)
@options.jobs
@options.dry_run
@pass_context
def command(ctx: Context, full: bool, repair: bool, sources: tuple[Path, ...], jobs: int, dry_run: bool) -> None:
    """Check that everything that history refers to is here; exit 1 when something is missing or damaged.

    Missing objects are counted for each task; `wvc -v fsck` names them one by one. Repairing deletes nothing: damaged
    objects are moved to .git/wvc/quarantine. A checkpoint is encoded again to find the objects that it was stored in.
    """
    found, progress = ctx.repository(), ctx.progress()
    dry_run = dry_run or not repair
    if repair or sources:
        result = repo.repair.repair(found, sources, dry_run=dry_run, jobs=jobs, progress=progress)
    else:
        result = repo.fsck.fsck(found, full=full, jobs=jobs, progress=progress)
    ctx.code = 0 if result.ok else exits.FOUND
    ctx.emit("fsck", result, [*_repaired(result, dry_run=dry_run), *_lines(result, bool(ctx.verbose))])
    ctx.note(result.notes)
    ctx.note(result.hints, "hint")


def _repaired(result: "Checked", *, dry_run: bool) -> Iterator[str]:
    for oid in result.quarantined:
        yield f"{'would move' if dry_run else 'moved'} damaged object {oid} to .git/wvc/quarantine"
    for one in result.restored:
        yield f"{'would restore' if dry_run else 'restored'} object {one.id} from {one.source}"


def _lines(result: "Checked", verbose: bool) -> Iterator[str]:
    missing = [finding for finding in result.findings if finding.kind == "missing"]
    for owner, count in Counter(owner for finding in missing for owner in _owners(finding)).items():
        what = "the base" if owner == "base" else f"task {owner}"
        yield f"{what}: {count} of {counted(result.needs[owner], 'object')} missing"
    for finding in result.findings:
        if finding.kind == "missing" and not verbose:
            continue
        yield f"{finding.kind} {finding.what}: {finding.detail}"
        if finding.costs not in {(), (finding.what,)}:
            yield f"  needed by {listed(finding.costs)}"
    if any(finding.kind == "history" for finding in result.findings):
        yield "what history refers to cannot be told, so no object was looked at"
        return
    here = result.objects - len(missing)
    how = "read and compared" if result.full else "present; `wvc fsck --full` reads them"
    manifests, objects = counted(result.manifests, "manifest"), counted(result.objects, "object")
    yield f"{manifests}; {here} of {objects}, {size(result.bytes)}, {how}"
    if result.unreferenced:
        yield f"{counted(result.unreferenced, 'object')} that nothing refers to; `wvc gc -n` says what can go"
    yield "no problems found" if result.ok else f"{counted(len(result.findings), 'problem')} found"


def _owners(finding: "Finding") -> list[str]:
    """Return the tasks, or the base, that need an object, each once."""
    return sorted({cost.partition(":")[0] for cost in finding.costs})
