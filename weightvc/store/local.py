"""The object store of one repository: a file for each object, under the SHA-256 of its bytes.

``<root>/ab/cdef…`` holds the object ``abcdef…``. A file gets that name by a link, after its bytes are on disk, so
that whatever has a name is whole. Nothing here follows a symbolic link.
"""

import errno
import hashlib
import mmap
import os
import re
import secrets
import stat
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from weightvc.objects.ids import ObjectId, hex64, is_hex64
from weightvc.objects.store import Stored
from weightvc.util import fsio
from weightvc.util.errors import Conflict, Corrupt, Missing

_SHARD = re.compile(r"[0-9a-f]{2}", re.ASCII)
_READ = 2**20
FETCH = "`wvc fetch` brings what HEAD needs, `wvc fetch --all` what older revisions do; `wvc fsck` says what is lost"
"""What to do about an object that is not here."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: a FIFO must not hang us


class LocalStore:
    """An :class:`weightvc.objects.store.ObjectStore` in a directory; safe to share between threads and processes.

    Args:
        root: The objects directory; made by the first put.
        tmp: Scratch directory on the same file system; made by the first put.
    """

    def __init__(self, root: Path, tmp: Path) -> None:
        self.root = root
        self.tmp = tmp
        self._touched: set[Path] = set()
        self._lock = threading.Lock()

    def put(self, chunks: Iterable[bytes | memoryview], expected: ObjectId | None = None) -> Stored:
        """Store the concatenated ``chunks``; durable only after :meth:`sync`.

        An object that is there already is read again and its modification time set to now, which keeps it from
        a garbage collection that is under way; a damaged copy, or one that cannot be touched, is replaced.

        Raises:
            Conflict: a directory of the store is a symbolic link or no directory.
            Corrupt: they are not the object that was ``expected``; nothing was stored.
            OSError: the disk is full, read-only or failing; no object has been named.
        """
        fsio.make_plain(self.tmp)
        fsio.make_plain(self.root)
        sha = hashlib.sha256()
        size = 0
        with fsio.NewFile(self.tmp) as new:
            for chunk in chunks:
                new.write(chunk)
                sha.update(chunk)
                size += memoryview(chunk).nbytes
            oid = ObjectId(sha.hexdigest())
            if expected not in (None, oid):
                raise Corrupt(f"object {expected}: its bytes hash to {oid}", "run wvc fsck")
            final = self._path(oid)
            fsio.make_plain(final.parent)
            fresh = self._publish(new, oid, final)
        with self._lock:
            self._touched.add(final.parent)
        return Stored(oid, size, fresh)

    def _publish(self, new: fsio.NewFile, oid: ObjectId, final: Path) -> bool:
        try:
            self.verify(oid)
            fsio.ops.utime(final)
        except Missing:
            return new.link(final)
        except (Corrupt, OSError) as error:
            if not isinstance(error, Corrupt | PermissionError) and error.errno not in fsio.FAULTS:
                raise
            if final.is_dir() and not final.is_symlink():
                raise Conflict(f"{final} is a directory where the file of an object belongs", "move it away") from None
            with self._mending():
                new.replace(final)
            return True
        return False

    def _mending(self) -> AbstractContextManager[None]:
        """Keep everybody else from giving or taking a damaged object's name in the block."""
        return fsio.locked(self.tmp / "mend.lock", shared=False)

    def adopt(self, other: "LocalStore", oid: ObjectId) -> None:
        """Give an object of ``other``, on the same file system, a second name here; for scratch stores, not synced.

        Raises:
            Missing: ``other`` has no such object.
        """
        final = self._path(oid)
        fsio.make_dirs(final.parent)
        try:
            fsio.ops.link(other._path(oid), final)  # noqa: SLF001 -- another store of this class
        except FileNotFoundError:
            raise other._missing(oid) from None  # noqa: SLF001

    def sync(self) -> None:
        """Make every object put so far durable. Called before anything refers to them.

        Raises:
            OSError: the disk failed. What was put may be lost at a power cut, and nothing may refer to it.
        """
        with self._lock:
            touched, self._touched = self._touched, set()
        if not touched:
            return
        try:
            # The root too: another process may have made the fan-out directory and not have got to syncing it.
            for directory in (*sorted(touched), self.root, self.root.parent):
                fsio.sync_dir(directory)
        except OSError:
            with self._lock:
                self._touched |= touched
            raise

    def open(self, oid: ObjectId) -> memoryview:
        """Return the object's bytes, mapped read-only. They are not verified here.

        Raises:
            Missing: the store has no such object.
            Corrupt: its name is taken by something that is not a regular file in a real directory.
        """
        with self._opened(oid) as (fd, size):
            return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b"")

    def read(self, oid: ObjectId, most: int | None = None) -> Iterator[memoryview]:
        """Return the object's bytes in pieces; they are not verified here.

        Raises:
            Corrupt: there are more than ``most`` of them, or no file.
            Missing: the store has no such object.
        """
        with self._opened(oid) as (fd, size):
            if most is not None and size > most:
                raise Corrupt(f"object {oid} has {size} bytes, {most} were expected", "run wvc fsck")
            while data := os.read(fd, _READ):
                yield memoryview(data)

    def sizes(self, wanted: Collection[ObjectId]) -> dict[ObjectId, int]:
        """Return the sizes of those of some objects that are there."""
        return {oid: size for oid in wanted if (size := self.size(oid)) is not None}

    def size(self, oid: ObjectId) -> int | None:
        """Return the object's size in bytes, or ``None`` when it is absent."""
        try:
            with self._opened(oid) as (_, size):
                return size
        except Missing:
            return None

    def ids(self) -> Iterator[ObjectId]:
        """Return the ids of all objects, in no particular order; files of other names are passed over."""
        if not self.root.is_dir():
            return
        with os.scandir(self.root) as shards:
            for shard in shards:
                if _SHARD.fullmatch(shard.name) and shard.is_dir(follow_symlinks=False):
                    with os.scandir(shard.path) as files:
                        names = [shard.name + file.name for file in files if file.is_file(follow_symlinks=False)]
                    yield from (ObjectId(name) for name in names if is_hex64(name))

    def changed(self, oid: ObjectId) -> int:
        """Return when an object was put last, in nanoseconds by the clock of its file system.

        Raises:
            Missing: the store has no such object.
        """
        with self._opened(oid) as (fd, _):
            return os.fstat(fd).st_mtime_ns

    def delete(self, oid: ObjectId) -> None:
        """Remove an object; durable only after :meth:`sync`. The caller knows that nothing refers to it."""
        final = self._path(oid)
        fsio.ops.unlink(final)
        with self._lock:
            self._touched.add(final.parent)

    def put_aside(self, oid: ObjectId, where: Path) -> bool:
        """Move what has an object's name and is not the object into a directory, under a name of its own.

        Args:
            oid: The object.
            where: The directory, on the same file system.

        Returns:
            Whether anything was moved.

        Raises:
            Conflict: a directory of the store is a symbolic link or no directory.
            OSError: it cannot be read, other than by a fault of the disk.
        """
        fsio.make_plain(self.tmp)
        fsio.make_plain(where)
        final = self._path(oid)
        with self._mending():
            try:
                self.verify(oid)
            except Missing:
                return False
            except (Corrupt, OSError) as error:
                if isinstance(error, OSError) and error.errno not in fsio.FAULTS:
                    raise  # nothing is known of its bytes
                fsio.check_plain(self.root)
                fsio.check_plain(final.parent)  # or the link that is on the way would be followed
                fsio.ops.rename(final, where / f"{oid}-{secrets.token_hex(4)}")
            else:
                return False  # another process has mended it
        fsio.sync_dir(where)
        fsio.sync_dir(final.parent)
        return True

    def verify(self, oid: ObjectId) -> None:
        """Read the object and compare it with its id.

        Raises:
            Missing: the store has no such object.
            Corrupt: its bytes do not hash to its id.
        """
        sha = hashlib.sha256()
        with self._opened(oid) as (fd, _):
            while data := os.read(fd, _READ):
                sha.update(data)
        if sha.hexdigest() != oid:
            raise Corrupt(f"object {oid}: its bytes hash to {sha.hexdigest()}", "run wvc fsck")

    def _path(self, oid: ObjectId) -> Path:
        return self.root / oid[:2] / oid[2:]

    def _missing(self, oid: ObjectId) -> Missing:
        """Return the error for an absent object; a store that was never made is that of a clone by git."""
        if self.root.is_dir():
            return Missing(f"object {oid} is not in the store", FETCH)
        return Missing(
            "this clone has no objects yet: only git history was cloned",
            f"`wvc remote add NAME URL` and `wvc fetch` bring them, or copy another clone's to {self.root}",
        )

    @contextmanager
    def _opened(self, oid: ObjectId) -> Iterator[tuple[int, int]]:
        """Open an object without following any link below the root's parent: its descriptor and size."""
        hex64(oid, "object id")
        opened: list[int] = []
        try:
            for name, flags in ((self.root, _DIRECTORY), (oid[:2], _DIRECTORY), (oid[2:], _FILE)):
                opened.append(os.open(name, flags, dir_fd=opened[-1] if opened else None))
            status = os.fstat(opened[-1])
            if not stat.S_ISREG(status.st_mode):
                raise Corrupt(f"{self._path(oid)}: not a regular file", "move it away and run wvc fsck")
            yield opened[-1], status.st_size
        except FileNotFoundError:
            raise self._missing(oid) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise Corrupt(
                    f"{self._path(oid)}: a symbolic link or special file on the way to this object",
                    "move it away and run wvc fsck",
                ) from None
            raise
        finally:
            for fd in reversed(opened):
                os.close(fd)
