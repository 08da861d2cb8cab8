"""A store of objects in a folder that fsspec reaches: ``objects/ab/cdef…`` holds the object ``abcdef…``.

Nothing there is believed. Names that are no ids are passed over, a body may have no more bytes than were asked for,
and whoever reads compares the bytes with the id.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback

from weightvc.objects.ids import ObjectId, is_hex64
from weightvc.objects.store import Stored
from weightvc.remote.retry import tried
from weightvc.remote.url import ObjectUrl
from weightvc.util import fsio
from weightvc.util.errors import Corrupt, Missing, RemoteError

PART = 16 * 2**20
"""Bytes of a part of an upload, and of what is held of a file at a time."""

_READ = 2**20
_EXCLUSIVE = {"s3", "gs"}
"""Schemes whose drivers put a file only where there is none."""


_BUCKETS = {"s3", "gs", "az"}


def _nowhere(url: ObjectUrl, error: Exception) -> RemoteError:
    return RemoteError(f"{url}: there is no such bucket ({error})", "look at its name, and at AWS_ENDPOINT_URL for S3")


class _Capped(Callback):  # type: ignore[misc]
    """Counts what arrives, and ends it when that is too much."""

    def __init__(self, what: str, most: int | None) -> None:
        super().__init__()
        self._what = what
        self._most = most

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        self._refuse(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._refuse(self.value)

    def _refuse(self, size: int) -> None:
        if self._most is not None and size > self._most:
            raise Corrupt(f"{self._what} sends {size} bytes of it or more, {self._most} were expected", "")


_NAME = re.compile(r"([0-9a-f]{2})/([0-9a-f]{62})", re.ASCII)


class Bucket:
    """An :class:`weightvc.objects.store.ObjectStore` elsewhere; safe to share between threads.

    Args:
        url: Its address.
        files: The file system that the address is in.
        tmp: A scratch directory on this machine.
    """

    def __init__(self, url: ObjectUrl, files: AbstractFileSystem, tmp: Path) -> None:
        self.url = url
        self._files = files
        self._tmp = tmp

    def put(self, chunks: Iterable[bytes | memoryview], expected: ObjectId | None = None) -> Stored:
        """Store the concatenated ``chunks``; what is there under their id, of another size, is replaced.

        Raises:
            Corrupt: they are not the object that was ``expected``; nothing was sent.
            RemoteError: it could not be stored.
        """
        fsio.make_plain(self._tmp)
        sha, size = hashlib.sha256(), 0
        with fsio.NewFile(self._tmp) as new:
            for chunk in chunks:
                new.write(chunk)
                sha.update(chunk)
                size += memoryview(chunk).nbytes
            oid = ObjectId(sha.hexdigest())
            if expected not in (None, oid):
                raise Corrupt(f"object {expected}: its bytes hash to {oid}", "run `wvc fsck`")
            try:
                tried(str(self.url), partial(self._send, new.path, oid, exclusive=True))
            except FileExistsError:
                if self._is_whole(oid):
                    return Stored(oid, size, new=False)
                tried(str(self.url), partial(self._send, new.path, oid, exclusive=False))
            except FileNotFoundError as error:
                raise _nowhere(self.url, error) from None
        return Stored(oid, size, new=True)

    def _is_whole(self, oid: ObjectId) -> bool:
        try:
            self.verify(oid)
        except Corrupt:
            return False
        return True

    def check(self) -> None:
        """Raise :class:`RemoteError` if there is no such bucket: it would look like an empty one."""
        if self.url.scheme in _BUCKETS:
            with suppress(PermissionError):  # one may have the right to what is in it only
                try:
                    tried(str(self.url), lambda: self._files.info(self.url.path.partition("/")[0]), denied=False)
                except FileNotFoundError as error:
                    raise _nowhere(self.url, error) from None

    def _send(self, file: Path, oid: ObjectId, *, exclusive: bool) -> None:
        how = {"mode": "create"} if exclusive and self.url.scheme in _EXCLUSIVE else {}
        self._files.put_file(str(file), self._key(oid), chunksize=PART, **how)

    def sync(self) -> None:
        """Do nothing: what a server has acknowledged is stored."""

    def read(self, oid: ObjectId, most: int | None = None) -> Iterator[memoryview]:
        """Return the object's bytes in pieces, once all have arrived; they are not verified here.

        Raises:
            Corrupt: there are more than ``most`` of them.
            Missing: there is no such object.
            RemoteError: they could not be read.
        """
        fsio.make_plain(self._tmp)
        with fsio.NewFile(self._tmp) as new:
            try:
                tried(str(self.url), partial(self._fetch, oid, new.path, most))
            except FileNotFoundError:
                raise Missing(f"object {oid} is not at {self.url}", "push it from a clone that has it") from None
            with new.path.open("rb") as file:
                while data := file.read(_READ):
                    yield memoryview(data)

    def _fetch(self, oid: ObjectId, file: Path, most: int | None) -> None:
        how = {"max_concurrency": 1} if self.url.scheme == "s3" else {}  # reads a little at a time, however much comes
        callback = _Capped(f"object {oid}: {self.url}", most)
        self._files.get_file(self._key(oid), str(file), callback=callback, **how)

    def open(self, oid: ObjectId) -> memoryview:
        """Return the object's bytes, all of them in memory; see :meth:`read`."""
        return memoryview(b"".join(self.read(oid)))

    def size(self, oid: ObjectId) -> int | None:
        """Return the object's size in bytes, or ``None`` when it is absent."""
        try:
            return int(tried(str(self.url), lambda: self._files.info(self._key(oid)))["size"])
        except FileNotFoundError:
            return None

    def sizes(self, wanted: Collection[ObjectId]) -> dict[ObjectId, int]:
        """Return the sizes of those of some objects that are there; asks for whole folders where many are wanted."""
        shards: dict[str, list[ObjectId]] = {}
        for oid in sorted(wanted):
            shards.setdefault(oid[:2], []).append(oid)
        found: dict[ObjectId, int] = {}
        for shard, oids in shards.items():
            if len(oids) == 1:
                size = self.size(oids[0])
                found |= {} if size is None else {oids[0]: size}
            else:
                found |= {oid: size for oid, size in self._listed(shard) if oid in set(oids)}
        return found

    def ids(self) -> Iterator[ObjectId]:
        """Return the ids of all objects, in no particular order; whatever has another name is passed over."""
        for shard in range(256):
            yield from (oid for oid, _ in self._listed(f"{shard:02x}"))

    def _listed(self, shard: str) -> Iterator[tuple[ObjectId, int]]:
        folder = f"{self._root}/{shard}"
        try:
            lines = tried(str(self.url), lambda: self._files.ls(folder, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in lines:
            name = _NAME.fullmatch("/".join(str(line["name"]).split("/")[-2:]))
            if name and line.get("type") == "file" and is_hex64(oid := name[1] + name[2]) and name[1] == shard:
                yield ObjectId(oid), int(line["size"])

    def verify(self, oid: ObjectId) -> None:
        """Read the object and compare it with its id; see :meth:`read`."""
        sha = hashlib.sha256()
        for data in self.read(oid):
            sha.update(data)
        if sha.hexdigest() != oid:
            raise Corrupt(
                f"object {oid}: what {self.url} has hashes to {sha.hexdigest()}", "`wvc push --full` mends it"
            )

    @property
    def _root(self) -> str:
        path = self.url.path.partition("/")[2] if self.url.scheme == "sftp" else self.url.path
        return f"/{path}/objects" if self.url.scheme == "sftp" else f"{path}/objects"

    def _key(self, oid: ObjectId) -> str:
        return f"{self._root}/{oid[:2]}/{oid[2:]}"
