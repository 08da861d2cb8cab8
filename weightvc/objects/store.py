"""The object store protocol: immutable bytes under the SHA-256 of those bytes."""

from collections.abc import Iterable, Iterator
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

    def put(self, chunks: Iterable[bytes | memoryview]) -> Stored:
        """Store the concatenated ``chunks``; durable only after :meth:`sync`."""
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

    def size(self, oid: ObjectId) -> int | None:
        """Return the object's size in bytes, or ``None`` when it is absent."""
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
