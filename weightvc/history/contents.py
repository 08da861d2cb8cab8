"""Objects of git's, compared with their ids: git itself does that in `git fsck` only, and believes what it reads."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from weightvc.history import process
from weightvc.util import canon
from weightvc.util.errors import Corrupt
from weightvc.util.text import printable

_BATCH = 16
"""Objects read by one git process..."""

_SMALL = 2**20
"""... and more of them while all take no more bytes..."""

_LARGE = 2**26
"""... fewer, if they take more: bounds the memory that their output takes."""


@dataclass(frozen=True, slots=True)
class Content:
    """An object: its id, ``blob``, ``tree``, ``commit`` or ``tag``, and its bytes."""

    id: str
    kind: str
    data: bytes

    @property
    def whole(self) -> bool:
        """Whether the bytes are what the id stands for."""
        return object_id(self.kind, self.data, len(self.id)) == self.id


def object_id(kind: str, data: bytes, digits: int) -> str:
    """Return the id that git gives to an object, in a repository whose ids have 40 or 64 digits."""
    digest = hashlib.sha1 if digits == 40 else hashlib.sha256
    return digest(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def sizes(work_tree: Path, names: Sequence[str]) -> list[tuple[str, int] | None]:
    """Return the id and the size of the object that each name stands for; ``None`` where git has none.

    Raises:
        Corrupt: one is larger than any file of wvc.
    """
    found: list[tuple[str, int] | None] = []
    for line in process.run(work_tree, "cat-file", "--batch-check", "--buffer", stdin=_asked(names)).splitlines():
        oid, size = os.fsdecode(line.split(b" ")[0]), line.rpartition(b" ")[2]
        found.append((oid, int(size)) if size.isdigit() else None)
        if size.isdigit() and int(size) > canon.MAX_BYTES:  # before git hands over what would not fit
            what = f"git's object {printable(oid)} has {int(size)} bytes"
            raise Corrupt(f"{what}, more than any file of wvc", "`git log --all --find-object` finds its commit")
    return found


def read(work_tree: Path, names: Sequence[str]) -> list[Content | None]:
    """Return the objects that some names stand for, as git has them; ``None`` where it has none."""
    out = process.run(work_tree, "cat-file", "--batch", "--buffer", stdin=_asked(names))
    found: list[Content | None] = []
    start = 0
    for _ in names:
        end = out.index(b"\n", start)
        *told, last = out[start:end].split(b" ")
        start = end + 1
        if not last.isdigit():
            found.append(None)
            continue
        oid, kind = told
        found.append(Content(oid.decode(), kind.decode(), out[start : start + int(last)]))
        start += int(last) + 1
    return found


def checked(work_tree: Path, objects: Path, names: Sequence[str], most: int | None = None) -> Iterator[Content | None]:
    """Return objects as :func:`read` does, each compared with its id.

    Args:
        work_tree: The work tree of the repository.
        objects: Where its loose objects are.
        names: Any names, of any number of objects.
        most: Bytes that all may have together.

    Raises:
        Corrupt: one is damaged, or they have more bytes.
    """
    for batch in _batches(work_tree, names, most):
        for name, found in zip(batch, read(work_tree, batch), strict=True):
            if found is not None and not found.whole:
                raise process.damaged(objects, found.id, found.kind)
            if found is None and process.loose(objects, name).is_file():
                raise process.damaged(objects, name)
            yield found


def _batches(work_tree: Path, names: Sequence[str], most: int | None) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    taken = [0 if found is None else found[1] for found in sizes(work_tree, names)]
    if most is not None and sum(taken) > most:
        raise Corrupt(
            f"the files of wvc in one commit have {sum(taken)} bytes together, more than the limit of {most}",
            "`git ls-tree -r -l HEAD .wvc` shows them",
        )
    for name, size in zip(names, taken, strict=True):
        if (len(batch) >= _BATCH and held + size > _SMALL) or (batch and held + size > _LARGE):
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += size
    if batch:
        yield batch


def _asked(names: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\n" for name in names)
