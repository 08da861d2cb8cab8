"""Fetch: branches by git, and then the objects of their tips, or those of some tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from weightvc.history import transport
from weightvc.objects.manifest import Manifest
from weightvc.repo import reach, remotes
from weightvc.repo.guard import guarded
from weightvc.repo.repository import Handle
from weightvc.repo.state import has_wvc, load, load_commit
from weightvc.repo.transfer import WORKERS, Transfer, needed
from weightvc.util.errors import NotFound
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import listed, printable


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought, or, for a dry run, would bring.

    ``objects`` and ``bytes`` count what came, ``present`` the objects that were here, and ``absent`` those that the
    remote lacks, too. ``lacking`` names the tasks at HEAD, and `base`, that are therefore not all here.
    """

    remote: str
    url: str
    objects: int
    bytes: int
    present: int
    absent: int
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """``tasks`` are those whose objects are wanted, all if it is ``None``; ``history`` asks for every version of them.

    ``refs`` says whether git fetches first, and ``quiet`` that it says nothing of success.
    """

    tasks: Sequence[str] | None = None
    history: bool = False
    refs: bool = True
    quiet: bool = False
    jobs: int = WORKERS
    dry_run: bool = False


@guarded
def fetch(repo: Handle, name: str | None, options: Options, progress: Progress = SILENT) -> Fetched:
    """Have git fetch, then bring the objects that `HEAD` and the remote's branches refer to and that are not here.

    Each is compared with its id on arrival, and none is taken that nothing here refers to.

    Raises:
        NotFound: there is no such remote or task.
        RemoteError: the remote does not answer, or sends something else. What has arrived stays.
    """
    remote = remotes.chosen(repo, name)
    if options.refs and not options.dry_run and remote.name in transport.remotes(repo.git):
        transport.fetch(repo.git, remote.name, quiet=options.quiet)
    wanted = needed(_manifests(repo, remote.name, options))
    transfer = Transfer(remotes.connect(repo, remote), repo.store, f"remote {remote.name}", sending=False)
    todo, moved = transfer.missing(wanted)
    if not options.dry_run:
        with progress.stage(f"Fetching from {remote.name}", moved.bytes):
            transfer.run(todo, wanted, max(options.jobs, WORKERS), progress)
    state, absent = load(repo), set(moved.absent)  # which are among what is wanted
    lacking = {one.task or "base" for one in (state.base, *state.tasks.values()) if absent & one.objects().keys()}
    counts = (moved.objects, moved.bytes, moved.present, len(absent))
    return Fetched(remote.name, remote.url, *counts, tuple(sorted(lacking)))


def _manifests(repo: Handle, remote: str, options: Options) -> list[Manifest]:
    """Return the manifests whose objects are wanted; the base is always among them."""
    head = load(repo).commit
    tips = list(dict.fromkeys([head, *(tip for tip in transport.tips(repo.git, remote) if has_wvc(repo, tip))]))
    found = reach.of_history(repo, tips).manifests if options.history else list(_at(repo, tips))
    known = {str(manifest.task) for manifest in found if manifest.task is not None}
    if lacking := [task for task in options.tasks or () if task not in known]:
        here = f"the tasks are: {listed(sorted(known)) or 'none'}"
        what = f"no task {printable(lacking[0])!r} at HEAD or at a branch of {remote}; {here}"
        raise NotFound(what, "`wvc status` shows those at HEAD")
    return [one for one in found if one.task is None or options.tasks is None or one.task in options.tasks]


def _at(repo: Handle, tips: Sequence[str]) -> Iterator[Manifest]:
    for tip in tips:
        state = load_commit(repo, tip)
        yield state.base
        yield from state.tasks.values()
