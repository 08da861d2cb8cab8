"""Directories that appear whole, and what killed processes left of them.

A scratch directory or file is held by :func:`weightvc.util.fsio.hold` while its process lives. A process id says
nothing in another container; only where the file system has no locks is the id in the name gone by.
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from weightvc.util import fsio

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def beside(final: Path, kind: str) -> Path:
    """Return a new scratch name in the directory of ``final`` that tells whose it is: `.NAME.KIND-PID-RANDOM`."""
    return final.with_name(f".{final.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def directory(path: Path) -> Iterator[None]:
    """Make a directory under a scratch name, and hold it in the block."""
    with ExitStack() as stack:
        held = False
        while not held:
            fsio.ops.mkdir(path)
            with suppress(FileNotFoundError):  # a sweep took it before it was held
                held = _hold(path, stack)
        yield


@contextmanager
def inside(where: Path) -> Iterator[Path]:
    """Give a new scratch directory in a directory of scratch files, held in the block and gone after it."""
    fsio.make_dirs(where)
    path = where / f"tmp-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with directory(path):
            yield path
    finally:
        fsio.remove_tree(path)


def _hold(path: Path, stack: ExitStack) -> bool:
    """Hold a directory until ``stack`` ends, and tell whether it still has that name."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    stack.callback(os.close, fd)
    return fsio.hold(fd, path)


def publish_dir(made: Path, final: Path, check: Callable[[Path], None] = lambda _: None) -> None:
    """Move a finished directory to its final name durably, replacing a directory that is there.

    The old directory is moved aside first and removed last, so that at every moment either the old or the new
    one is complete on disk. A failure or an interrupt between the two moves puts the old one back.

    Args:
        made: The new directory, beside ``final``.
        final: The name that it gets.
        check: Called with the old directory when nobody can reach it by its name any more; raises to keep it.
    """
    aside = beside(final, "old")
    replaced = final.is_dir() and not final.is_symlink()
    with ExitStack() as stack:
        try:
            if replaced:
                with suppress(PermissionError):  # one that may not be read is moved all the same
                    while not _hold(final, stack):
                        pass
                fsio.ops.rename(final, aside)
                check(aside)
            fsio.ops.rename(made, final)
        except BaseException:
            if aside.is_dir() and made.is_dir():
                fsio.ops.rename(aside, final)
            raise
        fsio.sync_dir(final.parent)
        if replaced:
            fsio.remove_tree(aside)


def sweep(final: Path) -> None:
    """Clear away what killed processes left beside ``final``, as far as possible.

    A directory that was moved aside gets its name back if nothing else took it.
    """
    names = re.compile(rf"\.{re.escape(final.name)}\.(wvc|old)-([1-9]\d{{0,8}})-[0-9a-f]{{8}}", re.ASCII)
    with suppress(OSError):
        for path in sorted(final.parent.iterdir()):
            if (match := names.fullmatch(path.name)) is None:
                continue
            with left(path, int(match[2])) as is_left:
                if is_left and match[1] == "old" and not os.path.lexists(final):
                    fsio.ops.rename(path, final)
                    fsio.sync_dir(final.parent)
                elif is_left:
                    fsio.remove_tree(path)


def sweep_files(where: Path) -> None:
    """Remove what killed processes left in a directory of scratch files, as far as possible."""
    with suppress(OSError):
        for path in where.iterdir():
            if (match := fsio.SCRATCH.fullmatch(path.name)) is None:
                continue
            with left(path, int(match[1])) as is_left:
                if is_left:
                    fsio.remove_tree(path) if path.is_dir() else fsio.remove_file(path)


@contextmanager
def left(path: Path, pid: int) -> Iterator[bool]:
    """Tell whether nobody holds a scratch file or directory of process ``pid``; in the block nobody can.

    What is neither, or may not be opened, is not touched.
    """
    with ExitStack() as stack:
        try:
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise FileNotFoundError(path)
            fd = os.open(path, (os.O_RDWR if stat.S_ISREG(mode) else os.O_RDONLY) | _OPEN)  # NFS locks what is writable
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            free = error.errno in fsio.NO_LOCKS and not _alive(pid)
        yield free


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
