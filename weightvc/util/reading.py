"""Reading wvc's own small files, whatever somebody has put in their places."""

import errno
import os
import stat
from pathlib import Path

from weightvc.util import canon
from weightvc.util.errors import Corrupt
from weightvc.util.text import printable

_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
"""What the system says of a link that is not followed, of a socket, and of a device that is not there."""


def read_file(path: Path, hint: str, most: int = canon.MAX_BYTES) -> bytes:
    """Return the bytes of a regular file; follows no link, and waits for no FIFO or device.

    Args:
        path: The file.
        hint: What to do when it is no such file.
        most: Bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
        Corrupt: it is something else, or larger.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise Corrupt(f"{printable(str(path))}: not a regular file", hint) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Corrupt(f"{printable(str(path))}: not a regular file", hint)
        if status.st_size > most:
            raise Corrupt(f"{printable(str(path))}: {status.st_size} bytes, more than the limit of {most}", hint)
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(fd)
