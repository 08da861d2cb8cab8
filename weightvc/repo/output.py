"""Checkout directories: what may be overwritten, how a new one appears, and where all of them are."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from weightvc.checkpoint.files import map_file
from weightvc.history.exclude import exclude
from weightvc.objects import lock as locks
from weightvc.objects.lock import Lock
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import compare
from weightvc.repo.repository import TRACKED, Handle
from weightvc.util import canon, fsio, scratch
from weightvc.util.errors import Conflict, Corrupt, NotFound, RequestError, WeightvcError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.reading import read_file
from weightvc.util.text import listed

_ANEW = "delete it, and run `wvc checkout` anew for each directory that it wrote, so that `wvc revert` finds them"

Files: TypeAlias = dict[str, tuple[int, ...]]
"""The files of a directory, each with its inode, its size in bytes, and when it changed."""


def read_lock(directory: Path) -> Lock:
    """Return the lock of a checkout directory.

    Raises:
        NotFound: no such directory, or no lock in it.
        Corrupt: the lock was changed.
    """
    path = directory / locks.NAME
    if not fsio.is_regular(path):
        what = f"no {locks.NAME} here" if directory.is_dir() else "no such directory"
        raise NotFound(f"{directory}: {what}", "name a directory that `wvc checkout` wrote")
    if path.stat().st_size > canon.MAX_BYTES:
        raise Corrupt(f"{path}: {path.stat().st_size} bytes, which no lock has", "build it again with `wvc checkout`")
    return Lock.from_bytes(path.read_bytes(), str(path))


def check_apart(repo: Handle, directory: Path) -> None:
    """Raise :class:`Conflict` if replacing ``directory`` would change the repository, or another model."""
    real = directory.resolve()
    own = (repo.git.git_dir, repo.git.common_dir, repo.git.work_tree / TRACKED)
    if repo.git.work_tree.is_relative_to(real) or any(p.is_relative_to(real) or real.is_relative_to(p) for p in own):
        raise Conflict(f"{directory} holds the repository, or is part of it", "name another one with -o DIR")
    if above := next((parent for parent in real.parents if fsio.is_regular(parent / locks.NAME)), None):
        raise Conflict(f"{directory} is in the model directory {above}", "name one outside it with -o DIR")


def check_free(directory: Path, *, force: bool, jobs: int = 1, progress: Progress = SILENT) -> Files | None:
    """Refuse to replace anything that `wvc checkout` did not write, unless ``force``.

    Reads every file there, weights too: a model that was trained further in place looks like the one checked out.

    Returns:
        The files that may be replaced, for :func:`building`; all that there will be if ``None``.

    Raises:
        Conflict: the path is not a directory, a directory without a lock, or one in which files were added or changed
            since.
    """
    if not directory.exists() and not directory.is_symlink():
        return None if force else {}
    if directory.is_symlink() or not directory.is_dir():
        raise Conflict(f"{directory} exists and is not a directory", "name another one with -o DIR")
    if force or not any(directory.iterdir()):
        return None if force else {}
    files = _files(directory)  # before they are read: a change while that takes its time is found in the end
    try:
        changed = _foreign(directory, read_lock(directory), jobs, progress)
    except WeightvcError:
        raise Conflict(
            f"{directory} is not empty and was not written by wvc",
            "name another one with -o DIR, or pass --force to replace it",
        ) from None
    if changed:
        raise Conflict(
            f"{directory} holds files that were added or changed since the checkout: {listed(changed)}",
            "move them away, or pass --force to replace the directory with all it holds",
        )
    return files


def _files(directory: Path) -> Files:
    """Return every file of a directory, by its path in there, with what changes when the file does."""
    found: Files = {}
    for path in directory.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            status = path.lstat()
            marks = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            found[path.relative_to(directory).as_posix()] = marks
    return found


def _foreign(directory: Path, lock: Lock, jobs: int, progress: Progress) -> list[str]:
    compared = compare.weight_files(directory, lock, jobs, progress)
    whole = {locks.NAME, *(found.file for found in compared if not found.wrong)}
    changed = []
    for name in sorted(_files(directory)):
        path = directory / name
        if name in whole and fsio.is_regular(path):
            continue
        if (
            name not in lock.files
            or not fsio.is_regular(path)
            or tensor_digest("U8", [path.stat().st_size], map_file(path)) != lock.files[name]
        ):
            changed.append(name)
    return changed


@contextmanager
def building(final: Path, replaces: Files | None = None) -> Iterator[Path]:
    """Give a scratch directory beside ``final`` that takes its place when the block ends well, and goes otherwise.

    Args:
        final: The output directory.
        replaces: What :func:`check_free` returned for it.

    Raises:
        Conflict: files were added or changed meanwhile; ``final`` is then left as it is.
        RequestError: there can be no directory.
    """

    def check(aside: Path) -> None:
        now = _files(aside)
        if replaces is not None and (changed := sorted(n for n in now if now[n] != replaces.get(n))):
            raise Conflict(
                f"{final} got files that were added or changed during the build: {listed(changed)}",
                "move them away, or pass --force to replace the directory with all it holds",
            )

    made = scratch.beside(final, "wvc")
    try:
        with ExitStack() as stack:
            _make(made, final, stack)
            yield made
            for directory in [made, *sorted(p for p in made.rglob("*") if p.is_dir())]:
                fsio.sync_dir(directory)
            scratch.publish_dir(made, final, check)
    finally:
        fsio.remove_tree(made)


def _make(made: Path, final: Path, stack: ExitStack) -> None:
    try:
        fsio.make_dirs(made.parent)
        stack.enter_context(scratch.directory(made))
    except OSError as error:
        raise RequestError(
            f"{final}: no directory can be made there ({error.strerror})", "name another one with -o DIR"
        ) from error


def hide(repo: Handle, directory: Path) -> None:
    """Make git ignore an output directory within the work tree, and the scratch directories beside it.

    Raises:
        Conflict: see :func:`weightvc.history.exclude.exclude`.
    """
    real, top = directory.parent.resolve() / directory.name, repo.git.work_tree.resolve()
    if real.is_relative_to(top):
        where = _escaped(real.parent.relative_to(top).as_posix())
        parent, name = "/" if where == "." else f"/{where}/", _escaped(real.name)
        for pattern in (f".{name}.wvc-*/", f".{name}.old-*/", f"{name}/"):
            exclude(repo.git, parent + pattern)


def _escaped(path: str) -> str:
    """Write a path as a pattern; `?` stands for what a line of UTF-8 cannot hold (gitignore(5))."""
    return re.sub("[\n\udc80-\udcff]", "?", re.sub(r"[\\*?\[]", r"\\\g<0>", path))


@contextmanager
def recorded_while(repo: Handle, directory: Path) -> Iterator[list[str]]:
    """Note that checkout writes ``directory`` in the block, so that a removal can find it whatever happens.

    A block that fails before it has written the directory leaves the list as it was. Gives warnings: one if the list
    cannot be written, as on read-only media.
    """
    lock = directory / locks.NAME
    before = _inode(lock)
    try:
        new = _change(repo, directory, known=True)
    except OSError as error:
        if error.errno not in fsio.READ_ONLY:
            raise
        new = None
    if new is None:
        known = _entry_of(repo, directory) in _entries(repo.outputs)
        warning = f"{repo.local} is read-only: `wvc revert` will not know of {directory}"
        yield [] if known else [warning]
        return
    try:
        yield []
    except BaseException:
        if new and _inode(lock) == before:
            _change(repo, directory, known=False)
        raise
    _change(repo, directory, known=True)  # another one, which had begun before and failed, may have taken it out


def forget(repo: Handle, directory: Path) -> None:
    """Take a directory that is gone off the list; where nothing can be written, it stays."""
    try:
        _change(repo, directory, known=False)
    except OSError as error:
        if error.errno not in fsio.READ_ONLY:
            raise


def recorded(repo: Handle) -> list[Path]:
    """Return every directory that checkout wrote, as far as this repository knows.

    A copy of the repository has copies of the directories inside; those outside stay with the original. A repository
    that was moved keeps them all: those outside where they were, or at their place beside it if they moved along.
    """
    located = (_located(repo.git.common_dir.resolve(), *entry) for entry in _entries(repo.outputs))
    return list(dict.fromkeys(path for paths in located for path in paths))


def _located(common: Path, path: str, owner: str) -> list[Path]:
    """Return where the directory of an entry may be for the repository at ``common``; none if it is another's.

    What lies beside a moved repository may have moved along, or be somebody else's of that name.
    """
    if owner in ("", str(common)):
        return [_home(common) / path]
    along = Path(os.path.normpath(_home(common) / os.path.relpath(path, _home(Path(owner)))))
    moved = [along] if along != Path(path) and fsio.is_regular(along / locks.NAME) else []
    if _claimed(path, owner) or (moved and not os.path.lexists(path)):
        return moved
    return [*moved, Path(path)]


def _claimed(path: str, owner: str) -> bool:
    """Tell whether the repository ``owner`` has an entry on its own list."""
    try:
        return (path, owner) in _entries(Path(owner) / "wvc" / "outputs")
    except Corrupt:
        return False


def _home(common: Path) -> Path:
    """Return the directory that moves and is copied with the repository: the one that holds `.git`."""
    return common.parent if common.name == ".git" else common


def _change(repo: Handle, directory: Path, *, known: bool) -> bool:
    """Put a directory on the list or take it off, and return whether that changed anything."""
    entry = _entry_of(repo, directory)
    fsio.make_dirs(repo.local)
    with fsio.locked(repo.local / "refs.lock", shared=False):
        entries = _entries(repo.outputs)
        if (entry in entries) == known:
            return False
        entries = [*entries, entry] if known else [other for other in entries if other != entry]
        if entries:
            fsio.write_file(repo.outputs, json.dumps(entries).encode())
        else:
            fsio.remove_file(repo.outputs)
    return True


def _entry_of(repo: Handle, directory: Path) -> tuple[str, str]:
    common = repo.git.common_dir.resolve()
    home, real = _home(common), directory.parent.resolve() / directory.name
    return (str(real.relative_to(home)), "") if real.is_relative_to(home) else (str(directory), str(common))


def _entries(outputs: Path) -> list[tuple[str, str]]:
    """Return the list in a file: paths below :func:`_home` with no owner, absolute ones with the owner's git directory.

    Damage reads as nothing, and is repaired by the next checkout; raises :class:`Corrupt` for what cannot be read.
    """
    try:
        value = json.loads(read_file(outputs, _ANEW, most=2**24))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return []
    return [entry for entry in map(_entry, value if isinstance(value, list) else []) if entry is not None]


def _entry(value: object) -> tuple[str, str] | None:
    match value:
        case [str(path), str(owner)] if path and "\0" not in path + owner and os.path.isabs(path) == bool(owner):
            with suppress(UnicodeEncodeError):  # of surrogates that no file name decodes to
                os.fsencode(path + owner)
                return path, owner
    return None


def _inode(path: Path) -> int:
    return path.stat().st_ino if fsio.is_regular(path) else 0
