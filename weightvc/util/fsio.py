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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from weightvc.util.errors import Conflict

READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""What the system says of a place that may be read but not written."""

FAULTS = frozenset({errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)})
"""What the system says of bytes that the disk, or the file system's own checksums, no longer give."""

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

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
"""What the system says of a lock on a file system that has none."""


def hold(fd: int, path: Path) -> bool:
    """Mark a scratch file or directory as in use until ``fd`` is closed, and tell whether it still has that name.

    The kernel frees the lock when the process dies, and knows it from other containers, too. It is shared: only
    :func:`weightvc.util.scratch.left` asks for it alone. Where there are no locks nothing is marked.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _create(directory: Path) -> tuple[Path, int]:
    """Make a file under a scratch name, held; another one if a sweep took it first."""
    while True:
        path = directory / f"tmp-{os.getpid()}-{secrets.token_hex(8)}"
        fd = ops.create(path)
        if hold(fd, path):
            return path, fd
        os.close(fd)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have an error of the system say which file it is about."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class NewFile:
    """A file being written under a scratch name, or ``name``, removed again unless published.

    Used as a context manager. ``write`` appends; ``pwrite`` may be called from several threads.
    """

    def __init__(self, directory: Path, name: str = "") -> None:
        self.path, self._fd = (directory / name, ops.create(directory / name)) if name else _create(directory)
        self._end = 0

    def write(self, data: Buffer) -> None:
        """Append ``data``."""
        self._end += self.pwrite(data, self._end)

    def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of ``data`` at byte ``offset`` and return its length."""
        view = memoryview(data).cast("B")
        done = 0
        with _naming(self.path):
            while done < len(view):
                done += ops.pwrite(self._fd, view[done:], offset + done)
        return done

    def pread_into(self, out: Buffer, offset: int) -> None:
        """Fill ``out`` with the bytes from ``offset`` on, which have been written."""
        view = memoryview(out).cast("B")
        done = 0
        with _naming(self.path):
            while done < len(view):
                read = os.preadv(self._fd, [view[done:]], offset + done)
                if not read:
                    raise OSError(errno.EIO, "ends too early")
                done += read

    def close(self, *, sync: bool = True) -> None:
        """Close the descriptor, after forcing the bytes to disk if ``sync``."""
        try:
            if sync:
                self._sync()
        finally:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _sync(self) -> None:
        if self._fd >= 0:
            with _naming(self.path):
                ops.fsync(self._fd)

    def fileno(self) -> int:
        """Return the open descriptor, for reading back what was written."""
        return self._fd

    def replace(self, final: Path, *, sync: bool = True) -> None:
        """Publish under ``final``, replacing what is there. The caller syncs the directory.

        Without ``sync`` a power cut may leave anything under that name: for what is checked when it is read.
        """
        if sync:
            self._sync()  # and held until it has its name
        ops.rename(self.path, final)
        self.close(sync=False)

    def link(self, final: Path) -> bool:
        """Publish under ``final`` unless that name exists; return whether it was new."""
        self._sync()
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
