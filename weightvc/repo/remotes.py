"""Remotes: stores of objects elsewhere, each under a name in the settings of this clone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.items import Table

from weightvc.history import branch as branches
from weightvc.history import transport
from weightvc.objects.settings import Settings, remote_name
from weightvc.objects.store import ObjectStore
from weightvc.remote.bucket import Bucket
from weightvc.remote.drivers import filesystem
from weightvc.remote.url import LOCAL, ObjectUrl
from weightvc.repo import settings
from weightvc.repo.repository import Handle
from weightvc.repo.state import load
from weightvc.repo.transfer import needed
from weightvc.store.local import LocalStore
from weightvc.util import fsio
from weightvc.util.errors import Conflict, NotFound, RemoteError, RequestError
from weightvc.util.text import listed, meant, printable

OBJECTS = "objects"
TMP = "tmp"


@dataclass(frozen=True)
class Remote:
    """A remote's name and the address of its objects."""

    name: str
    url: str


@dataclass(frozen=True)
class Tested:
    """What a remote has of the objects that HEAD needs; ``bytes`` are those of what it ``present``s."""

    name: str
    url: str
    needed: int
    present: int
    bytes: int


def listing(repo: Handle) -> tuple[Remote, ...]:
    """Return all remotes, by name."""
    return tuple(Remote(name, url) for name, url in sorted(settings.load(repo).remotes.items()))


def add(repo: Handle, name: str, address: str, *, dry_run: bool = False) -> Remote:
    """Keep the address of a store of objects under a name.

    Raises:
        BadInput: it is no address, or says more than where the objects are.
        Conflict: another address has that name.
        UsageError: the name is none.
    """
    made = Remote(remote_name(name), str(ObjectUrl.parse(address)))

    def change(before: Settings, table: Table) -> None:
        _refuse_taken(before, made)
        table[name] = made.url

    _refuse_taken(settings.load(repo), made)
    if not dry_run:
        _change(repo, change)
    return made


def _refuse_taken(before: Settings, made: Remote) -> None:
    if (other := before.remotes.get(made.name, made.url)) != made.url:
        raise Conflict(
            f"remote {made.name} is {printable(other)}", f"run `wvc remote rm {made.name}` first, or take another name"
        )


def remove(repo: Handle, name: str, *, dry_run: bool = False) -> Remote:
    """Forget a remote; its objects stay where they are."""
    gone = find(repo, name)

    def change(_: Settings, table: Table) -> None:
        table.pop(name, None)

    if not dry_run:
        _change(repo, change)
    return gone


def _change(repo: Handle, change: Callable[[Settings, Table], None]) -> None:
    """Change the table of remotes durably; whatever else is in the file, comments too, stays as it is."""
    fsio.make_plain(repo.local)
    file = settings.path(repo)
    with fsio.locked(repo.local / "config.lock", shared=False):
        before = settings.load(repo)
        document = tomlkit.parse(settings.data(repo).decode())
        table = document.setdefault("remotes", tomlkit.table())
        change(before, table)
        if not table:
            del document["remotes"]
        made = tomlkit.dumps(document).encode()
        Settings.from_bytes(made, str(file))
        fsio.write_file(file, made)
        fsio.sync_dir(file.parent)


def find(repo: Handle, name: str) -> Remote:
    """Return a remote; an unknown one is a :class:`NotFound` that says what is known."""
    known = {remote.name: remote for remote in listing(repo)}
    if name not in known:
        names: Sequence[str] = sorted(known)
        hint = meant(name, names, f"add one with `wvc remote add {printable(name)} URL`")
        raise NotFound(f"no remote {printable(name)!r}; the remotes are: {listed(names) or 'none'}", hint)
    return known[name]


def connect(repo: Handle, remote: Remote) -> ObjectStore:
    """Open the store of a remote.

    Raises:
        RemoteError: it cannot be reached.
        RequestError: what reaches it is not installed.
    """
    url = ObjectUrl.parse(remote.url)
    if url.scheme != LOCAL:
        bucket = Bucket(url, filesystem(url), repo.tmp)
        bucket.check()
        return bucket
    folder = Path(url.path)
    if not folder.is_dir():
        raise RemoteError(
            f"remote {remote.name}: {printable(url.path)} is no directory", "mount the disk, or `mkdir` it"
        )
    return LocalStore(folder / OBJECTS, folder / TMP)


def test(repo: Handle, name: str) -> Tested:
    """Ask a remote for what it has of the objects of the base and all tasks at HEAD, in the right size."""
    remote = find(repo, name)
    state = load(repo)
    most = needed((state.base, *state.tasks.values()))
    there, here = connect(repo, remote).sizes(most.keys()), repo.store.sizes(most.keys())
    whole = {oid: size for oid, size in there.items() if size == here.get(oid, min(size, most[oid]))}
    return Tested(remote.name, remote.url, len(most), len(whole), sum(whole.values()))


def chosen(repo: Handle, name: str | None) -> Remote:
    """Return the remote of a name; without one, that which the branch follows in git, `origin`, or the only one.

    Raises:
        NotFound: there is none.
        RequestError: there are several, and none of them is that.
    """
    if name is not None:
        return find(repo, name)
    known = {remote.name: remote for remote in listing(repo)}
    branch = branches.current(repo.git)
    followed = transport.upstream(repo.git, branch) if branch else None
    for likely in (followed, "origin", *(known if len(known) == 1 else ())):
        if likely in known:
            return known[likely]
    if known:
        raise RequestError(f"which remote? They are: {listed(sorted(known))}", "name one of them")
    raise NotFound("there is no remote", "add one with `wvc remote add NAME URL`")
