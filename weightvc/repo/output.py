"""Checkout directories: what may be overwritten, and how a new one appears."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from weightvc.util.text import listed

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
