"""Push: objects to a remote, and then the branch, so that nobody sees a commit whose weights are not there."""

from dataclasses import dataclass

from weightvc.history import branch as branches
from weightvc.history import transport
from weightvc.objects.ids import ObjectId
from weightvc.repo import reach, remotes
from weightvc.repo.guard import guarded
from weightvc.repo.repository import Handle
from weightvc.repo.state import load
from weightvc.repo.transfer import WORKERS, Transfer, needed
from weightvc.util.errors import Corrupt, Missing, RequestError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import counted, listed, printable


@dataclass(frozen=True)
class Pushed:
    """What a push sent, or, for a dry run, would send.

    ``objects`` and ``bytes`` count what was sent, ``present`` the objects that were there. ``branch`` is what git
    pushed, ``None`` if only objects were.
    """

    remote: str
    url: str
    objects: int
    bytes: int
    present: int
    branch: str | None


@dataclass(frozen=True)
class Options:
    """How a push is done.

    ``refs`` says whether git pushes the branch, ``full`` to read what is there and send again what is damaged, and
    ``quiet`` that git says nothing of success.
    """

    refs: bool = True
    full: bool = False
    quiet: bool = False
    jobs: int = WORKERS
    dry_run: bool = False


@guarded
def push(repo: Handle, name: str | None, options: Options, progress: Progress = SILENT) -> Pushed:
    """Send what the history of the current branch refers to and the remote lacks; then have git push the branch.

    What the remote has in another size is sent again.

    Raises:
        Corrupt: an object here, or a manifest of the history, is damaged.
        Missing: an object is neither here nor there.
        RemoteError: the remote does not take it. What it has taken stays there.
        RequestError: there is no such remote, or no branch.
    """
    remote = remotes.chosen(repo, name)
    branch = _branch(repo, remote.name) if options.refs else None
    load(repo)
    found = reach.of_history(repo, [str(repo.git.head())])
    if found.unreadable:
        raise Corrupt(found.unreadable[0].error.what, "`wvc fsck` shows what is damaged")
    wanted = needed(found.manifests)
    transfer = Transfer(repo.store, remotes.connect(repo, remote), f"remote {remote.name}", sending=True)
    jobs = max(options.jobs, WORKERS)
    todo, moved = transfer.missing(wanted, transfer.damaged(wanted, jobs, progress) if options.full else ())
    _refuse_absent(moved.absent, remote)
    if not options.dry_run:
        with progress.stage(f"Pushing to {remote.name}", moved.bytes):
            transfer.run(todo, wanted, jobs, progress)
        if branch is not None:
            transport.push(repo.git, remote.name, branch, quiet=options.quiet)
    return Pushed(remote.name, remote.url, moved.objects, moved.bytes, moved.present, branch)


def _branch(repo: Handle, name: str) -> str:
    if name not in (known := transport.remotes(repo.git)):
        raise RequestError(
            f"git has no remote {printable(name)!r}; its remotes are: {listed(known) or 'none'}",
            f"run `git remote add {printable(name)} GIT_URL`, or pass --objects-only",
        )
    branch = branches.current(repo.git)
    if branch is None:
        raise RequestError("HEAD is detached, so that there is no branch to push", "switch to one with `git switch`")
    return branch


def _refuse_absent(absent: tuple[ObjectId, ...], remote: remotes.Remote) -> None:
    if absent:
        raise Missing(
            f"neither here nor at remote {remote.name}: {counted(len(absent), 'object')} of this branch",
            "`wvc fetch --all` brings those of older revisions; `wvc fsck` says whose they are",
        )
