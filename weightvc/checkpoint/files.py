"""Reading files that somebody else named: only regular files, mapped, never copied."""

import mmap
import os
import stat
from pathlib import Path

from weightvc.util import canon
from weightvc.util.errors import BadInput, NotFound
from weightvc.util.text import printable


def label(path: Path) -> str:
    """Return ``path`` as error messages show it."""
    return printable(str(path))


def regular_size(path: Path) -> int:
    """Return the size in bytes of a regular file, or of the one that a symbolic link leads to.

    Links to files are followed because model caches are made of them.

    Raises:
        NotFound: there is nothing, or a link that leads to nothing.
        BadInput: a directory, FIFO, device or socket, or something that cannot be examined.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        what = "a symbolic link that leads nowhere" if path.is_symlink() else "no such file or directory"
        raise NotFound(f"{label(path)}: {what}", "check the path") from None
    except OSError as error:
        raise BadInput(f"{label(path)}: cannot be examined ({error.strerror})", "check the path") from None
    return _size(status, path)


def map_file(path: Path) -> memoryview:
    """Map a regular file read-only; the map is released when its last view is.

    A file that somebody shortens while it is mapped kills the process when the lost part is read: that is the
    price of not copying, and the same for every reader that maps.

    Raises:
        NotFound: there is no such file.
        BadInput: it is not a regular file, or may not be read.
    """
    regular_size(path)  # opening a FIFO or a device can block or act; look first, and again below
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadInput(f"{label(path)}: cannot be read ({error.strerror})", "check its permissions") from None
    try:
        size = _size(os.fstat(fd), path)
        # An empty file cannot be mapped.
        return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b"")
    finally:
        os.close(fd)


def marks(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does: inode, size in bytes, modification time in ns; nothing if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def parse_json(data: bytes, where: str, hint: str) -> canon.Json:
    """Parse JSON from outside strictly, with ``hint`` as the next step when it is refused."""
    try:
        return canon.parse(data, where)
    except BadInput as error:
        raise BadInput(error.what, hint) from None


def _size(status: os.stat_result, path: Path) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{label(path)}: not a regular file", "give a file or a model directory")
    return status.st_size
