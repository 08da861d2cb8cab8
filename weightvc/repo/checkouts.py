"""The list of the directories that checkout wrote, each with what was asked for in it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from weightvc.history import remembered
from weightvc.objects import lock as locks
from weightvc.repo import asked
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Request
from weightvc.util import fsio, scratch
from weightvc.util.errors import Corrupt
from weightvc.util.reading import read_file

_ANEW = "delete it, and run `wvc checkout` anew for each directory that it wrote, so that `wvc revert` finds them"


@dataclass(frozen=True)
class _Entry:
    """A line of the list: a path below :func:`_home` with no owner, or an absolute one with its git directory.

    ``request`` is ``None`` for a line that an older wvc wrote, and while a directory is built.
    """

    path: str
    owner: str
    request: Request | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.path, self.owner

    def to_json(self) -> list[object]:
        return [self.path, self.owner, *([] if self.request is None else [asked.to_json(self.request)])]


@contextmanager
def recorded_while(repo: Handle, directory: Path, request: Request) -> Iterator[list[str]]:
    """Note that checkout writes ``directory`` in the block, so that a removal can find it whatever happens.

    A block that fails before it has written the directory leaves the list as it was. What was asked for is noted when
    it is there. Gives warnings: one if the list cannot be written, as on read-only media.
    """
    lock, key = directory / locks.NAME, _key(repo, directory)
    inode = _inode(lock)
    before = next((entry for entry in _entries(repo.outputs) if entry.key == key), None)
    try:
        _change(repo, key, _Entry(*key))
    except OSError as error:
        if error.errno not in fsio.READ_ONLY:
            raise
        warning = f"{repo.local} is read-only: `wvc revert` will not know of {directory}"
        yield [] if before else [warning]
        return
    done = _Entry(*key, request)
    try:
        yield []
    except BaseException:
        _change(repo, key, before if _inode(lock) == inode else done)
        raise
    _change(repo, key, done)


def note(repo: Handle, directory: Path, request: Request) -> None:
    """Note what a directory that was built anew holds now; where nothing can be written, the list stays as it is."""
    key = _key(repo, directory)
    _change_if_possible(repo, key, _Entry(*key, request))


def forget(repo: Handle, directory: Path) -> None:
    """Take a directory that is gone off the list; where nothing can be written, it stays."""
    _change_if_possible(repo, _key(repo, directory), None)


def recorded(repo: Handle) -> dict[Path, Request | None]:
    """Return every directory that checkout wrote, as far as this repository knows, with what was asked for in it.

    A copy of the repository has copies of the directories inside; those outside stay with the original. A repository
    that was moved keeps them all: those outside where they were, or at their place beside it if they moved along.
    """
    found: dict[Path, Request | None] = {}
    for entry in _entries(repo.outputs):
        for path in _located(repo.git.common_dir.resolve(), entry):
            found[path] = entry.request or found.get(path)
    return found


def elsewhere(repo: Handle, directory: Path) -> Path | None:
    """Return the other work tree that a directory lies in, whose branch says what it holds; ``None`` if in none."""
    real = directory.resolve()
    tops = {top.resolve(): top for top in remembered.work_trees(repo.git)}
    around = [top for top in tops if real.is_relative_to(top)]
    nearest = max(around, key=lambda top: len(top.parts), default=None)
    return None if nearest in (None, repo.git.work_tree.resolve()) else tops[nearest]


def _located(common: Path, entry: _Entry) -> list[Path]:
    """Return where the directory of an entry may be for the repository at ``common``; none if it is another's.

    What lies beside a moved repository may have moved along, or be somebody else's of that name.
    """
    path, owner = entry.key
    if owner in ("", str(common)):
        return [_home(common) / path]
    along = Path(os.path.normpath(_home(common) / os.path.relpath(path, _home(Path(owner)))))
    moved = [along] if along != Path(path) and fsio.is_regular(along / locks.NAME) else []
    if _claimed(entry, owner) or (moved and not os.path.lexists(path)):
        return moved
    return [*moved, Path(path)]


def _claimed(entry: _Entry, owner: str) -> bool:
    """Tell whether the repository ``owner`` has an entry on its own list."""
    try:
        return entry.key in {other.key for other in _entries(Path(owner) / "wvc" / "outputs")}
    except Corrupt:
        return False


def _home(common: Path) -> Path:
    """Return the directory that moves and is copied with the repository: the one that holds `.git`."""
    return common.parent if common.name == ".git" else common


def _change(repo: Handle, key: tuple[str, str], new: _Entry | None) -> None:
    """Put ``new`` in the place of the entry of that key, or take that off the list."""
    fsio.make_dirs(repo.local)
    with fsio.locked(repo.local / "refs.lock", shared=False):
        scratch.sweep_files(repo.local)
        before = _entries(repo.outputs)
        after = [entry if entry.key != key else new for entry in before]
        after += [new] if all(entry.key != key for entry in before) else []
        kept = [entry for entry in after if entry is not None]
        if kept == before:
            return
        if kept:
            fsio.write_file(repo.outputs, json.dumps([entry.to_json() for entry in kept]).encode())
        else:
            fsio.remove_file(repo.outputs)


def _change_if_possible(repo: Handle, key: tuple[str, str], new: _Entry | None) -> None:
    try:
        _change(repo, key, new)
    except OSError as error:
        if error.errno not in fsio.READ_ONLY:
            raise


def _key(repo: Handle, directory: Path) -> tuple[str, str]:
    common = repo.git.common_dir.resolve()
    home, real = _home(common), directory.parent.resolve() / directory.name
    return (str(real.relative_to(home)), "") if real.is_relative_to(home) else (str(directory), str(common))


def _entries(outputs: Path) -> list[_Entry]:
    """Return the list in a file.

    Damage reads as nothing, and is repaired by the next checkout; raises :class:`Corrupt` for what cannot be read.
    """
    try:
        value = json.loads(read_file(outputs, _ANEW, most=2**24))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return []
    found = map(_entry, value if isinstance(value, list) else [])
    return list({entry.key: entry for entry in found if entry is not None}.values())


def _entry(value: object) -> _Entry | None:
    match value:
        case [str(path), str(owner), *more] if path and "\0" not in path + owner and os.path.isabs(path) == bool(owner):
            with suppress(UnicodeEncodeError):  # of surrogates that no file name decodes to
                os.fsencode(path + owner)
                return _Entry(path, owner, asked.from_json(more[0]) if more else None)
    return None


def _inode(path: Path) -> int:
    return path.stat().st_ino if fsio.is_regular(path) else 0
