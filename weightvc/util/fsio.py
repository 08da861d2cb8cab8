"""The only writer: atomic, durable file operations behind one seam.

Nothing reaches its final name except by rename or link, after its bytes are on disk. Every system call that
changes a file system goes through :data:`ops`, so that tests can record them, fail the n-th one, or replay a
power cut (the method of ALICE, Pillai et al., OSDI 2014).
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from weightvc.util.errors import Conflict

READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""What the system says of a place that may be read but not written."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class Ops:
    """The primitive write operations. Tests subclass this; nothing else calls ``os`` to write."""

    def create(self, path: Path) -> int:
        """Create ``path`` exclusively, never through a symbolic link, and return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> int:
        """Write at ``offset`` and return how many bytes went out."""
        return os.pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        """Force the file or directory behind ``fd`` to disk."""
        os.fsync(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing a file of that name."""
        os.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name; fails if that name exists."""
        os.link(old, new, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove one name."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Make one directory."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Remove one empty directory."""
        os.rmdir(path)

    def utime(self, path: Path) -> None:
        """Set the modification time to now."""
        os.utime(path, follow_symlinks=False)

    def rmtree(self, path: Path) -> None:
        """Remove a directory with all it holds."""
        shutil.rmtree(path)


ops = Ops()


def sync_dir(path: Path) -> None:
    """Make the names in a directory durable; git never does this."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ops.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the bytes of a regular file durable, whoever wrote them."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        ops.fsync(fd)
    finally:
        os.close(fd)


def check_plain(directory: Path) -> None:
    """Raise :class:`Conflict` if a symbolic link or a file has the name of a directory that wvc writes into."""
    try:
        mode = os.lstat(directory).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        raise Conflict(f"{directory} is not a plain directory; wvc writes nothing through it", "move it away")


def make_plain(directory: Path) -> None:
    """Make a directory as :func:`make_dirs` does, after :func:`check_plain`."""
    check_plain(directory)
    make_dirs(directory)


def make_dirs(path: Path) -> None:
    """Make a directory and its missing parents durably; an existing directory is left as it is."""
    if path.is_dir():
        return
    make_dirs(path.parent)
    with suppress(FileExistsError):
        ops.mkdir(path)
    sync_dir(path.parent)


SCRATCH = re.compile(r"tmp-([1-9]\d{0,8})-[0-9a-f]{16}", re.ASCII)
"""The whole name of a file that is being written, or was when its process died."""


class NewFile:
    """A file being written under a scratch name, removed again unless published.

    Used as a context manager. ``write`` appends; ``pwrite`` may be called from several threads.
    """

    def __init__(self, directory: Path, name: str = "") -> None:
        self.path = directory / (name or f"tmp-{os.getpid()}-{secrets.token_hex(8)}")
        self._fd = ops.create(self.path)
        self._end = 0

    def write(self, data: Buffer) -> None:
        """Append ``data``."""
        self._end += self.pwrite(data, self._end)

    def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of ``data`` at byte ``offset`` and return its length."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += ops.pwrite(self._fd, view[done:], offset + done)
        return done

    def close(self, *, sync: bool = True) -> None:
        """Close the descriptor, after forcing the bytes to disk if ``sync``."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            if sync:
                ops.fsync(fd)
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """Return the open descriptor, for reading back what was written."""
        return self._fd

    def replace(self, final: Path) -> None:
        """Publish under ``final``, replacing what is there. The caller syncs the directory."""
        self.close()
        ops.rename(self.path, final)

    def link(self, final: Path) -> bool:
        """Publish under ``final`` unless that name exists; return whether it was new."""
        self.close()
        try:
            ops.link(self.path, final)
        except FileExistsError:
            return False
        finally:
            self.discard()
        return True

    def discard(self) -> None:
        """Close and remove the scratch name; does nothing when it is gone."""
        self.close(sync=False)
        with suppress(FileNotFoundError):
            ops.unlink(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def scratch_file(directory: Path) -> NewFile:
    """Return a new file for intermediate results, in the system's temporary directory if ``directory`` is read-only."""
    try:
        make_dirs(directory)
        return NewFile(directory)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    return NewFile(Path(tempfile.gettempdir()))


def write_file(path: Path, data: Buffer) -> None:
    """Replace ``path`` by ``data`` atomically and durably."""
    with NewFile(path.parent) as new:
        new.write(data)
        new.replace(path)
    sync_dir(path.parent)


def remove_file(path: Path) -> None:
    """Remove ``path`` durably; a file that is not there is fine."""
    with suppress(FileNotFoundError):
        ops.unlink(path)
        sync_dir(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory and all it holds; one that is not there is fine."""
    with suppress(FileNotFoundError, NotADirectoryError):
        ops.rmtree(path)


def beside(final: Path, kind: str) -> Path:
    """Return a new scratch name in the directory of ``final`` that tells whose it is: `.NAME.KIND-PID-RANDOM`."""
    return final.with_name(f".{final.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


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
    try:
        if replaced:
            ops.rename(final, aside)
            check(aside)
        ops.rename(made, final)
    except BaseException:
        if aside.is_dir() and made.is_dir():
            ops.rename(aside, final)
        raise
    sync_dir(final.parent)
    if replaced:
        remove_tree(aside)


def sweep(final: Path) -> None:
    """Clear away what killed processes left beside ``final``, as far as possible.

    A directory that was moved aside gets its name back if nothing else took it.
    """
    left = re.compile(rf"\.{re.escape(final.name)}\.(wvc|old)-([1-9]\d{{0,8}})-[0-9a-f]{{8}}", re.ASCII)
    with suppress(OSError):
        for path in sorted(final.parent.iterdir()):
            match = left.fullmatch(path.name)
            if match is None or _alive(int(match[2])):
                continue
            if match[1] == "old" and not os.path.lexists(final):
                ops.rename(path, final)
                sync_dir(final.parent)
            else:
                remove_tree(path)


def sweep_scratch(directory: Path) -> None:
    """Remove what killed processes left in a directory of scratch files, as far as possible."""
    with suppress(OSError):
        for path in directory.iterdir():
            if (match := SCRATCH.fullmatch(path.name)) and not _alive(int(match[1])):
                remove_tree(path) if path.is_dir() and not path.is_symlink() else remove_file(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def locked(path: Path, *, shared: bool, wait: bool = True) -> Iterator[None]:
    """Hold an advisory lock on the file ``path`` (made if need be); the kernel frees it if the process dies.

    Raises:
        Conflict: ``wait`` is false and somebody else holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(fd, how)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise Conflict(f"{path}: another wvc command holds this lock", "try again when it has ended") from None
            raise
        yield
    finally:
        os.close(fd)


def is_regular(path: Path) -> bool:
    """Tell whether ``path`` itself is a regular file: no link, FIFO or device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
