"""Removal records: what `wvc revert` leaves in the history about a task that was taken out."""

from dataclasses import dataclass
from typing import Self

from weightvc.objects.ids import Version, hex64, task_name, task_uuid
from weightvc.util import canon, fields
from weightvc.util.errors import BadInput, Corrupt

SCHEMA = "weightvc/removal/1"


@dataclass(frozen=True)
class Removal:
    """One task's removal. Kept under the task's UUID, so that a later task of that name is another matter.

    ``reason`` and ``requester`` are as the caller gave them; ``recipes`` are the named recipes that contained the
    task; ``dependants`` are tasks that derive from it and were kept.
    """

    task: str
    uuid: str
    version: Version
    removed: str
    parent: str
    recipes: tuple[str, ...] = ()
    dependants: tuple[str, ...] = ()
    reason: str = ""
    requester: str = ""

    def to_bytes(self) -> bytes:
        """Return the record's file, a canonical document."""
        return canon.document(
            {
                "schema": SCHEMA,
                "task": self.task,
                "uuid": self.uuid,
                "version": self.version,
                "removed": self.removed,
                "parent": self.parent,
                "recipes": list(self.recipes),
                "dependants": list(self.dependants),
                "reason": self.reason,
                "requester": self.requester,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse a record; raises :class:`Corrupt` or :class:`Unsupported`."""
        try:
            value = canon.parse_document(data, where)
            fields.schema(value, SCHEMA, where)
            keys = (
                "schema",
                "task",
                "uuid",
                "version",
                "removed",
                "parent",
                "recipes",
                "dependants",
                "reason",
                "requester",
            )
            doc = fields.mapping(value, where, keys)
            uuid, removed, parent, reason, requester = (
                fields.typed(doc[key], str, where) for key in ("uuid", "removed", "parent", "reason", "requester")
            )
            recipes, dependants = (
                tuple(fields.typed(item, str, where) for item in fields.typed(doc[key], list, where))
                for key in ("recipes", "dependants")
            )
            task, version = task_name(fields.typed(doc["task"], str, where)), Version(hex64(doc["version"], where))
            task_uuid(uuid, where)
        except BadInput as error:
            raise Corrupt(fields.located(error.what, where), "restore the file with git") from None
        return cls(task, uuid, version, removed, parent, recipes, dependants, reason, requester)
