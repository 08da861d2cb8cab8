"""Locks: what a checkout directory is, so that it can be verified and built again.

``wvc.lock.json`` pins every task of the recipe to its version and lists the digest of all that was written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from weightvc.objects import paths
from weightvc.objects.ids import Digest, Version, hex64
from weightvc.objects.manifest import Parent
from weightvc.objects.paths import LOCK
from weightvc.objects.recipe import Recipe
from weightvc.objects.tensors import version_of
from weightvc.util import canon, fields
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput, Corrupt

SCHEMA = "weightvc/lock/1"
NAME = LOCK
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TensorLine:
    """An output tensor: the weight file that holds it, its digest, and how it came about.

    ``rule`` is ``base`` (no task changed it), ``task`` (taken as it is from a task), ``elementwise``, or, of a matrix
    that is merged as such, ``projected``, ``factored`` (projected as the product of narrow ones) or ``joined``.
    ``ranks`` are the split ranks that the method decided, one for each projection.
    """

    file: str
    name: str
    digest: Digest
    rule: str
    ranks: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the line as JSON; ``ranks`` only where there are any."""
        line: dict[str, Json] = {"file": self.file, "name": self.name, "digest": self.digest, "rule": self.rule}
        return line | {"ranks": list(self.ranks)} if self.ranks else line

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse a line; raises :class:`BadInput`."""
        line = fields.mapping(value, where, ("file", "name", "digest", "rule"), ("ranks",))
        file, name, rule = (fields.typed(line[key], str, where) for key in ("file", "name", "rule"))
        ranks = tuple(fields.natural(rank, where) for rank in fields.typed(line.get("ranks", []), list, where))
        return cls(file, name, Digest(hex64(line["digest"], where)), rule, ranks)


@dataclass(frozen=True)
class Lock:
    """A recipe with every task pinned, the environment that replayed it, and the digests of the output.

    ``files`` maps each written file, by its path in the directory, to a digest of it as a ``U8`` tensor: of the
    whole file, or of the header alone where it holds ``tensors`` (header and tensors are all there is in it).
    ``wvc`` and ``environment`` name the versions that decide bytes; ``commit`` is the revision it was built from.
    ``lossy`` names the tasks of the recipe that are stored lossily, in its order.
    """

    wvc: str
    environment: Mapping[str, str]
    commit: str
    base: Version
    recipe: Recipe
    tasks: tuple[Parent, ...]
    files: Mapping[str, Digest]
    tensors: tuple[TensorLine, ...]
    max_shard_size: int
    lossy: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> Version:
        """SHA-256 over the sorted (name, tensor digest) pairs of the model; heads of single tasks do not count."""
        return version_of((line.name, line.digest) for line in self.tensors if not line.file.startswith("heads/"))

    def to_bytes(self) -> bytes:
        """Return the file's bytes, a canonical document."""
        lossy = {"lossy": list(self.lossy)} if self.lossy else {}
        return canon.document(
            {
                "schema": SCHEMA,
                "wvc": self.wvc,
                "environment": dict(self.environment),
                "commit": self.commit,
                "base": self.base,
                "recipe": self.recipe.to_json(),
                "tasks": [task.to_json() for task in self.tasks],
                "max_shard_size": self.max_shard_size,
                "files": [[path, digest] for path, digest in sorted(self.files.items())],
                "tensors": [line.to_json() for line in sorted(self.tensors, key=lambda t: (t.file, t.name))],
                "digest": self.digest,
                **lossy,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse a lock; raises :class:`Corrupt` or :class:`Unsupported`."""
        try:
            return cls._parse(data, where)
        except BadInput as error:
            raise Corrupt(fields.located(error.what, where), "build the directory again with `wvc checkout`") from None

    @classmethod
    def _parse(cls, data: bytes, where: str) -> Self:
        value = canon.parse_document(data, where)
        fields.schema(value, SCHEMA, where)
        keys = "schema wvc environment commit base recipe tasks max_shard_size files tensors digest"
        doc = fields.mapping(value, where, keys.split(), ("lossy",))
        environment = fields.typed(doc["environment"], dict, where)
        lock = cls(
            wvc=fields.typed(doc["wvc"], str, where),
            environment={key: fields.typed(item, str, where) for key, item in environment.items()},
            commit=fields.typed(doc["commit"], str, where),
            base=Version(hex64(doc["base"], where)),
            recipe=Recipe.from_json(doc["recipe"], where),
            tasks=tuple(Parent.from_json(item, where) for item in fields.typed(doc["tasks"], list, where)),
            files=dict(_file(item, where) for item in fields.typed(doc["files"], list, where)),
            tensors=tuple(TensorLine.from_json(item, where) for item in fields.typed(doc["tensors"], list, where)),
            max_shard_size=fields.natural(doc["max_shard_size"], where),
            lossy=tuple(fields.typed(name, str, where) for name in fields.typed(doc.get("lossy", []), list, where)),
        )
        if lock.digest != doc["digest"]:
            raise BadInput(f"{where}: the tensors do not have the digest that the file states")
        if _COMMIT.fullmatch(lock.commit) is None:
            raise BadInput(f"{where}: {lock.commit[:80]!r} is not a commit id")
        if [weighted.task for weighted in lock.recipe.tasks] != [task.task for task in lock.tasks]:
            raise BadInput(f"{where}: the tasks of its recipe are not those that it pins")
        if list(lock.lossy) != [task.task for task in lock.tasks if task.task in lock.lossy]:
            raise BadInput(f"{where}: the lossy tasks are not tasks of its recipe, in its order")
        paths.check(lock.files, where)
        if not {line.file for line in lock.tensors} <= lock.files.keys():
            raise BadInput(f"{where}: a tensor in a file that is not among its files")
        if lock.to_bytes() != data:
            raise BadInput(f"{where}: not as wvc writes it: lists out of order, or a default spelled out")
        return lock


def _file(value: Json, where: str) -> tuple[str, Digest]:
    match value:
        case [str(path), str(digest)]:
            return path, Digest(hex64(digest, where))
    raise BadInput(f"{where}: a file is a pair of path and digest")
