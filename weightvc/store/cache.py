"""Results that can be computed again, each in a file named by its key: bounded, checked when read, never needed.

A file is

    magic "weightvc cache 1", 16 bytes
    length of the header, little-endian, 4 bytes
    header: canonical JSON of key, tags, about, the data's size and its xxh3-128
    xxh3-128 of all before, 16 bytes
    data

What is damaged, cut, unreadable or under another's name is removed and counts as absent. Where nothing can be written,
nothing is, and where the disk is full everything goes, for others need the room more. Nothing is synced: what a power
cut leaves of a file does not have its checksum.
"""

import errno
import os
import stat
import struct
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from weightvc.objects.ids import is_hex64
from weightvc.util import canon, fields, fsio
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput, Conflict

_MAGIC = b"weightvc cache 1"
_START = struct.Struct("<16sI")
_SUM = 16
_LONGEST = 2**24
"""Bytes of the longest header that is read."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: a FIFO must not hang us


class Cache:
    """Files in one directory, of which the least recently used go first; safe to share between threads and processes.

    Other processes' files count from when this one begins, so that several at a time may exceed the limit together.

    Args:
        root: The directory; made by the first put.
        tmp: Scratch directory on the same file system; made by the first put.
        limit: Bytes that the files may have in all. What is beyond it is removed now.
    """

    def __init__(self, root: Path, tmp: Path, limit: int) -> None:
        self._root = root
        self._tmp = tmp
        self._limit = limit
        self._lock = threading.Lock()
        self._sizes = OrderedDict((path.name, size) for _, size, path in sorted(_files(root)))
        self._total = sum(self._sizes.values())
        self._make_room()

    def get(self, key: str, out: memoryview, *, keep: bool = True) -> Json | None:
        """Read what is under ``key``.

        Args:
            key: 64 hexadecimal digits.
            out: Filled with the data, which must have this length; holds anything if nothing is returned.
            keep: Whether this counts as a use.

        Returns:
            What was put as ``about``, ``None`` if there is nothing under the key.
        """
        try:
            with _opened(self._root / key) as fd:
                about = _read(fd, key, out)
        except FileNotFoundError:
            return None
        except (OSError, BadInput):
            _remove(self._root / key)
            with self._lock:
                self._total -= self._sizes.pop(key, 0)
            return None
        if keep:
            with self._lock, suppress(KeyError):  # another process put it
                self._sizes.move_to_end(key)
            with suppress(OSError):
                fsio.ops.utime(self._root / key)
        return about

    def put(self, key: str, tags: Collection[str], about: Json, data: memoryview) -> None:
        """Keep ``data``, which is copied, under ``key`` if there is room for it; one failure ends all writing.

        Args:
            key: 64 hexadecimal digits.
            tags: What :func:`forget` may ask for.
            about: Anything that canonical JSON can say, returned by :meth:`get`.
            data: One-dimensional bytes.
        """
        described = {"key": key, "tags": sorted(tags), "about": about, "size": len(data)}
        text = canon.dumps({**described, "sum": xxhash.xxh3_128_hexdigest(data)})
        head = _START.pack(_MAGIC, len(text)) + text
        head += xxhash.xxh3_128_digest(head)
        size = len(head) + len(data)
        with self._lock:
            if size > self._limit:
                return
            self._total += size - self._sizes.pop(key, 0)
            self._make_room()
        try:
            fsio.make_plain(self._tmp)
            fsio.make_plain(self._root)
            with fsio.NewFile(self._tmp) as new:
                new.write(head)
                new.write(data)
                new.replace(self._root / key, sync=False)
        except (OSError, Conflict) as error:
            with self._lock:
                self._limit = 0
                if getattr(error, "errno", None) in _FULL:
                    self._make_room()
            return
        with self._lock:
            self._total -= self._sizes.pop(key, 0)
            self._sizes[key] = size

    def _make_room(self) -> None:
        while self._sizes and self._total > self._limit:
            key, gone = self._sizes.popitem(last=False)
            self._total -= gone
            _remove(self._root / key)


def forget(root: Path, tags: Collection[str]) -> list[Path]:
    """Remove every file with one of ``tags`` from a cache's directory, and every file that cannot say its tags.

    Returns:
        The files that could not be removed.
    """
    return [path for _, _, path in _files(root) if _may_have(path, frozenset(tags)) and not _remove(path)]


def _may_have(path: Path, tags: frozenset[str]) -> bool:
    try:
        with _opened(path) as fd:
            return not tags.isdisjoint(_header(fd)["tags"])
    except FileNotFoundError:
        return False
    except (OSError, BadInput):
        return True


def _files(root: Path) -> Iterator[tuple[int, int, Path]]:
    """Return time of last use, size and path of each file that has a key's name, as far as they can be seen."""
    with suppress(OSError):
        for path in root.iterdir():
            with suppress(FileNotFoundError):
                if is_hex64(path.name) and stat.S_ISREG((status := os.lstat(path)).st_mode):
                    yield status.st_mtime_ns, status.st_size, path


def _remove(path: Path) -> bool:
    """Remove a file, and tell whether it is gone."""
    try:
        fsio.ops.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, _FILE)
    try:
        yield fd
    finally:
        os.close(fd)


def _header(fd: int) -> dict[str, Json]:
    """Read what stands before the data; raises :class:`BadInput` unless it is whole."""
    start = _fill(fd, memoryview(bytearray(_START.size)))
    magic, length = _START.unpack(start)
    if magic != _MAGIC or length > _LONGEST:
        raise BadInput("not a file of this cache")
    text, found = (_fill(fd, memoryview(bytearray(size))) for size in (length, _SUM))
    if xxhash.xxh3_128_digest(bytes(start) + text) != found:
        raise BadInput("a damaged header")
    return fields.mapping(canon.parse(bytes(text), "header"), "header", ("key", "tags", "about", "size", "sum"))


def _read(fd: int, key: str, out: memoryview) -> Json:
    """Read the data of ``key`` and return what was said about it; raises :class:`BadInput` unless it is whole."""
    header = _header(fd)
    if (header["key"], header["size"]) != (key, len(out)):
        raise BadInput("another key's, or of another size")
    if xxhash.xxh3_128_hexdigest(_fill(fd, out)) != header["sum"]:
        raise BadInput("damaged")
    return header["about"]


def _fill(fd: int, out: memoryview) -> memoryview:
    """Read the next bytes of a file, as many as fit into ``out``; raises :class:`BadInput` if there are fewer."""
    done = 0
    while done < len(out):
        read = os.readv(fd, [out[done:]])
        if not read:
            raise BadInput("cut")
        done += read
    return out
