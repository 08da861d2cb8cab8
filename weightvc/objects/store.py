"""The object store protocol: immutable bytes under the SHA-256 of those bytes."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from weightvc.objects.ids import ObjectId


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did: the object's id, its size in bytes, and whether it was new to the store."""

    object: ObjectId
    size: int
    new: bool


class ObjectStore(Protocol):
    """Immutable objects by id. Puts are idempotent and may race; nothing here deletes."""

    def put(self, chunks: Iterable[bytes | memoryview], expected: ObjectId | None = None) -> Stored:
        """Store the concatenated ``chunks``; durable only after :meth:`sync`.

        Raises:
            Corrupt: they are not the object that was ``expected``; nothing was stored.
        """
        ...

    def sync(self) -> None:
        """Make every object put so far durable. Called before anything refers to them."""
        ...

    def open(self, oid: ObjectId) -> memoryview:
        """Return the object's bytes, mapped, not read. The bytes are not verified here.

        Raises:
            Missing: the store has no such object.
        """
        ...

    def read(self, oid: ObjectId, most: int | None = None) -> Iterator[memoryview]:
        """Return the object's bytes in pieces. They are not verified here.

        Raises:
            Corrupt: there are more than ``most`` of them.
            Missing: the store has no such object.
        """
        ...

    def size(self, oid: ObjectId) -> int | None:
        """Return the object's size in bytes, or ``None`` when it is absent."""
        ...

    def sizes(self, wanted: Collection[ObjectId]) -> dict[ObjectId, int]:
        """Return the sizes of those of some objects that are there."""
        ...

    def ids(self) -> Iterator[ObjectId]:
        """Return the ids of all objects, in no particular order."""
        ...

    def verify(self, oid: ObjectId) -> None:
        """Read the object and compare it with its id.

        Raises:
            Missing: the store has no such object.
            Corrupt: its bytes do not hash to its id.
        """
        ...
