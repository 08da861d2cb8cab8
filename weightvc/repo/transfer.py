"""Moving objects between stores: only what is missing, in parallel, compared with its id on arrival."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from weightvc.objects.ids import ObjectId
from weightvc.objects.manifest import Manifest
from weightvc.objects.store import ObjectStore
from weightvc.util import parallel
from weightvc.util.errors import Corrupt, Missing, RemoteError
from weightvc.util.progress import Progress

WORKERS = 8
"""Threads at the least: most of the time they wait for the other side."""

_BUNDLE = 2**26
"""Bytes that a bundle of small tensors has at most; a manifest only says how large its own parts are."""

_TRIES = 2
_AGAIN = "`wvc push --full` in a clone that has it whole sends it again"


@dataclass(frozen=True)
class Moved:
    """How many ``objects`` of how many ``bytes`` were moved, and how many were ``present`` before.

    ``absent`` are those that neither side has.
    """

    objects: int
    bytes: int
    present: int
    absent: tuple[ObjectId, ...] = ()


def needed(manifests: Iterable[Manifest]) -> dict[ObjectId, int]:
    """Return the objects that manifests refer to, each with the bytes that it has at most."""
    found: dict[ObjectId, int] = {}
    for manifest in manifests:
        for place in manifest.places():
            found[place.object] = place.size if place.part is None else _BUNDLE
    return found


@dataclass(frozen=True)
class Transfer:
    """A move from one store to another.

    Attributes:
        source: Has the objects.
        target: Gets them.
        where: What to call the side that is not here in errors.
        sending: The source is this machine's: what has another size at the target is moved, too.
    """

    source: ObjectStore
    target: ObjectStore
    where: str
    sending: bool

    def missing(
        self, wanted: Mapping[ObjectId, int], damaged: Collection[ObjectId] = ()
    ) -> tuple[dict[ObjectId, int], Moved]:
        """Return what is to be moved, with sizes, and what that will have been.

        Args:
            wanted: Objects, with the bytes that each has at most.
            damaged: Those that are at the target and have to be moved all the same.
        """
        there = self.target.sizes(wanted.keys())
        have = self.source.sizes(wanted.keys() if self.sending else wanted.keys() - there.keys())
        todo = {oid: size for oid, size in have.items() if there.get(oid) != size or oid in damaged}
        absent = tuple(sorted(wanted.keys() - there.keys() - have.keys()))
        return todo, Moved(len(todo), sum(todo.values()), len(wanted) - len(todo) - len(absent), absent)

    def damaged(self, wanted: Mapping[ObjectId, int], jobs: int, progress: Progress) -> set[ObjectId]:
        """Read those objects that are at the target, and return those that are not what their ids stand for."""
        there = self.target.sizes(wanted.keys())

        def job(oid: ObjectId) -> bool:
            try:
                self.target.verify(oid)
            except (Corrupt, Missing):
                return True
            finally:
                progress.advance(there[oid])
            return False

        with progress.stage("Reading what is there", sum(there.values())):
            oids = sorted(there)
            return {oid for oid, wrong in zip(oids, parallel.run(job, oids, jobs), strict=True) if wrong}

    def run(self, todo: Mapping[ObjectId, int], most: Mapping[ObjectId, int], jobs: int, progress: Progress) -> None:
        """Move objects, the largest first; interrupted, it can be run again, and goes on.

        Args:
            todo: Objects and their sizes.
            most: The bytes that each may have.
            jobs: Number of threads.
            progress: Told of bytes moved.

        Raises:
            Corrupt: an object here is damaged.
            RemoteError: what arrives is not what was asked for, or nothing does.
        """

        def job(oid: ObjectId) -> None:
            self._move(oid, most[oid])
            progress.advance(todo[oid])

        try:
            parallel.run(job, sorted(todo, key=lambda oid: (-todo[oid], oid)), jobs)
        finally:
            self.target.sync()

    def _move(self, oid: ObjectId, most: int) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self.target.put(self.source.read(oid, most), expected=oid)
            except Corrupt as error:
                if self.sending:
                    raise
                if not left:
                    raise RemoteError(f"{self.where}: {error.what}", _AGAIN) from None
            else:
                return
