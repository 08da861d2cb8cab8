"""Manifests: what one version of the base or of a task is made of.

The file format is specified in ``docs/format/manifest.md``.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, Self, TypeAlias, TypeVar, get_args

from weightvc.objects import paths
from weightvc.objects.ids import Digest, ObjectId, Version, hex64, task_name, task_uuid
from weightvc.objects.loss import Loss
from weightvc.objects.scores import Score, of_document, to_member
from weightvc.objects.tensors import MERGED, TensorSpec, version_of
from weightvc.objects.updates import Update, product
from weightvc.util import canon, fields
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput, Corrupt, Unsupported
from weightvc.util.text import printable

SCHEMA = "weightvc/manifest/1"

UPDATES = "updates"
"""The feature, and the key, of a task with low-rank updates."""

TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
"""How ``added`` is written: UTC, always with six digits of the second."""

T = TypeVar("T")

State: TypeAlias = Literal["same", "delta", "whole"]
"""How a tensor is kept: equal to the base's, as a delta from the base's, or with no reference to the base."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor's encoding is: an object, or one part of a bundle object."""

    codec: str
    object: ObjectId
    size: int
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a manifest: a tensor, its digest and where its bytes are.

    ``of`` names the base tensor for the states ``same`` and ``delta``; it differs from the tensor's own name when
    one side carries a constant prefix. ``place`` is ``None`` for ``same``. ``lossy`` says what was lost
    where ``digest`` is not that of the tensor that was added.
    """

    spec: TensorSpec
    digest: Digest
    state: State
    of: str | None = None
    place: Place | None = None
    lossy: Loss | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the line as JSON; ``of`` is left out where it equals the name."""
        line: dict[str, Json] = {
            "name": self.spec.name,
            "dtype": self.spec.dtype,
            "shape": list(self.spec.shape),
            "digest": self.digest,
            "state": self.state,
        }
        if self.of is not None and self.of != self.spec.name:
            line["of"] = self.of
        if self.place is not None:
            line |= {"codec": self.place.codec, "object": self.place.object, "size": self.place.size}
            if self.place.part is not None:
                line["part"] = self.place.part
        if self.lossy is not None:
            line["lossy"] = self.lossy.to_json()
        return line

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse one line; raises :class:`BadInput`."""
        keys = ("name", "dtype", "shape", "digest", "state")
        line = fields.mapping(value, where, keys, ("of", "codec", "object", "size", "part", "lossy"))
        name = fields.typed(line["name"], str, where)
        where = f"{where}: {name[:80]!r}"
        shape = tuple(fields.natural(d, where) for d in fields.typed(line["shape"], list, where))
        spec = TensorSpec(name, fields.typed(line["dtype"], str, where), shape)
        state = line["state"]
        if state not in get_args(State):
            raise BadInput(f"{where}: unknown state {str(state)[:40]!r}")
        if state == "whole" and "of" in line:
            raise BadInput(f"{where}: a whole tensor refers to no base tensor")
        of = None if state == "whole" else fields.typed(line.get("of", name), str, where)
        place = None if state == "same" else _place(line, where)
        if state == "same" and not {"codec", "object", "size", "part"}.isdisjoint(line):
            raise BadInput(f"{where}: a tensor equal to the base's has no object")
        lossy = Loss.of_line(line, where) if "lossy" in line else None
        entry = cls(spec, Digest(hex64(line["digest"], where)), state, of, place, lossy)
        if entry.to_json() != line:
            raise BadInput(f"{where}: `of` and `part` are left out where they say nothing")
        return entry


def _place(line: Mapping[str, Json], where: str) -> Place:
    part = line.get("part")
    return Place(
        codec=fields.typed(line.get("codec"), str, where),
        object=ObjectId(hex64(line.get("object"), where)),
        size=fields.natural(line.get("size"), where),
        part=None if part is None else fields.natural(part, where),
    )


@dataclass(frozen=True, slots=True)
class Parent:
    """A task version that another task was trained from."""

    task: str
    uuid: str
    version: Version

    def to_json(self) -> dict[str, Json]:
        """Return the parent as JSON."""
        return {"task": self.task, "uuid": self.uuid, "version": self.version}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse a parent; raises :class:`BadInput`."""
        line = fields.mapping(value, where, ("task", "uuid", "version"))
        name, uuid = (fields.typed(line[key], str, where) for key in ("task", "uuid"))
        return cls(task_name(name), task_uuid(uuid, where), Version(hex64(line["version"], where)))


@dataclass(frozen=True)
class Manifest:
    """One version of the base or of a task.

    ``tensors``, ``files`` (other files of the model directory) and ``headers`` (the safetensors header of each
    weight file, verbatim; none when the source was not safetensors) are sorted by name. Files and headers are
    kept as one-dimensional ``U8`` tensors. The base has no task name, UUID, ``added`` or base. ``updates``, sorted by
    the base's names, say which tensors of an adapter are factors of what; the rest of the base is as it was.
    """

    tensors: tuple[Entry, ...]
    files: tuple[Entry, ...]
    headers: tuple[Entry, ...]
    source: str
    task: str | None = None
    uuid: str | None = None
    added: str | None = None
    base: Version | None = None
    lineage: tuple[Parent, ...] = ()
    nonfinite: int = 0
    updates: tuple[Update, ...] = ()
    scores: tuple[Score, ...] = ()

    @cached_property
    def version(self) -> Version:
        """The task version: what locks, seeds and cache keys use."""
        pairs = ((entry.spec.name, entry.digest) for entry in self.tensors)
        return version_of(pairs, [update.to_json() for update in self.updates])

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        """The tensors by their own names."""
        return {entry.spec.name: entry for entry in self.tensors}

    @cached_property
    def by_base_name(self) -> Mapping[str, Entry]:
        """The tensors that refer to a base tensor, by the base's names."""
        return {entry.of: entry for entry in self.tensors if entry.of is not None}

    @cached_property
    def by_update(self) -> Mapping[str, Update]:
        """The low-rank updates, by the base's names."""
        return {update.of: update for update in self.updates}

    @cached_property
    def heads(self) -> tuple[Entry, ...]:
        """The tensors that a merge has no use for: those the base lacks in that shape and dtype, factors apart."""
        factors = {name for update in self.updates for name in (update.a, update.b)}
        return tuple(e for e in self.tensors if e.state == "whole" and e.spec.name not in factors)

    @cached_property
    def lossy(self) -> tuple[Entry, ...]:
        """The tensors of which something else comes back than was added."""
        return tuple(entry for entry in self.tensors if entry.lossy is not None)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors, decoded."""
        return sum(entry.spec.nbytes for entry in self.tensors)

    def entries(self) -> Iterator[Entry]:
        """Return every entry: tensors, files and headers."""
        yield from self.tensors
        yield from self.files
        yield from self.headers

    def places(self) -> Iterator[Place]:
        """Return where every stored entry is."""
        return (entry.place for entry in self.entries() if entry.place is not None)

    def objects(self) -> dict[ObjectId, int]:
        """Return the objects that this manifest refers to, with the stored bytes that it uses of each."""
        used: dict[tuple[ObjectId, int | None], int] = {(p.object, p.part): p.size for p in self.places()}
        sizes: dict[ObjectId, int] = {}
        for (oid, _), size in used.items():
            sizes[oid] = sizes.get(oid, 0) + size
        return sizes

    def to_bytes(self) -> bytes:
        """Return the file's bytes: the canonical document of :mod:`weightvc.util.canon`."""
        updates: dict[str, Json] = {UPDATES: [update.to_json() for update in self.updates]} if self.updates else {}
        return canon.document(
            {
                "schema": SCHEMA,
                "features": list(updates),
                "task": self.task,
                "uuid": self.uuid,
                "added": self.added,
                "base": self.base,
                "version": self.version,
                "lineage": [parent.to_json() for parent in self.lineage],
                "nonfinite": self.nonfinite,
                "source": self.source,
                "files": [entry.to_json() for entry in self.files],
                "headers": [entry.to_json() for entry in self.headers],
                "tensors": [entry.to_json() for entry in self.tensors],
                **to_member(self.scores),
            }
            | updates
        )

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse a manifest file.

        Raises:
            Unsupported: a newer schema, or a feature that this version does not know.
            Corrupt: anything but the one valid encoding of a manifest.
        """
        try:
            return cls._parse(data, where)
        except BadInput as error:
            raise Corrupt(fields.located(error.what, where), "run `wvc fsck`, or restore the file with git") from None

    @classmethod
    def _parse(cls, data: bytes, where: str) -> Self:
        value = canon.parse_document(data, where)
        fields.schema(value, SCHEMA, where)
        features = fields.typed(value.get("features", []), list, where)
        if features not in ([], [UPDATES]):
            raise Unsupported(f"{where}: unknown features {printable(str(features))[:60]}", "upgrade weightvc")
        keys = "schema features task uuid added base version lineage nonfinite source files headers tensors"
        doc = fields.mapping(value, where, [*keys.split(), *features], ("scores",))
        task, base = fields.optional(doc["task"], str, where), doc["base"]
        manifest = cls(
            tensors=_entries(doc["tensors"], where),
            files=_entries(doc["files"], where),
            headers=_entries(doc["headers"], where),
            source=fields.typed(doc["source"], str, where),
            task=None if task is None else task_name(task),
            uuid=fields.optional(doc["uuid"], str, where),
            added=fields.optional(doc["added"], str, where),
            base=None if base is None else Version(hex64(base, where)),
            lineage=_list(doc["lineage"], Parent.from_json, where),
            nonfinite=fields.natural(doc["nonfinite"], where),
            updates=_list(doc.get(UPDATES, []), Update.from_json, where),
            scores=of_document(doc, where),
        )
        _check(manifest, where)
        _check_updates(manifest, bool(features), where)
        if manifest.version != doc["version"]:
            raise BadInput(f"{where}: the tensors do not have the version that the file states")
        return manifest


def _check(manifest: Manifest, where: str) -> None:
    """Check what no single field shows; raises :class:`BadInput`."""
    if manifest.task is None:
        if (manifest.uuid, manifest.added, manifest.base, manifest.lineage) != (None, None, None, ()):
            raise BadInput(f"{where}: the base has no UUID, time, base or lineage")
        if referring := next((entry for entry in manifest.entries() if entry.state != "whole"), None):
            raise BadInput(f"{where}: {referring.spec.name[:80]!r}: there is nothing that the base could refer to")
    elif manifest.uuid is None or manifest.added is None or manifest.base is None:
        raise BadInput(f"{where}: a task has a UUID, a time and a base")
    else:
        task_uuid(manifest.uuid, where)
        _time(manifest.added, where)
    for entry in (*manifest.files, *manifest.headers):
        is_bytes = entry.spec.dtype == "U8" and len(entry.spec.shape) == 1
        if not is_bytes or entry.state == "delta" or entry.of not in (None, entry.spec.name):
            raise BadInput(
                f"{where}: {entry.spec.name[:80]!r}: a file or header is U8 of one dimension, whole or the base's own"
            )
    names = [entry.spec.name for entry in manifest.headers]
    if bad := next((name for name in names if not paths.is_plain(name)), None):
        raise BadInput(f"{where}: {printable(bad)[:80]!r} cannot name a weight file")
    paths.check([*names, *(entry.spec.name for entry in manifest.files)], where)


def _check_updates(manifest: Manifest, stated: bool, where: str) -> None:
    if (manifest.task is None and stated) or stated != bool(manifest.updates):
        raise BadInput(f"{where}: updates are a task's, and left out where there are none")
    for update in manifest.updates:
        factors = [manifest.by_name.get(name) for name in (update.a, update.b)]
        specs = [e.spec for e in factors if e is not None and e.state == "whole" and e.spec.dtype in MERGED]
        if len(specs) != 2 or product(*specs) is None:
            raise BadInput(f"{where}: {update.of[:80]!r}: no two whole tensors of numbers that are its factors")
    if any(a.of >= b.of for a, b in itertools.pairwise(manifest.updates)):
        raise BadInput(f"{where}: updates are not sorted and distinct")
    if any(entry.of in manifest.by_update and entry.state != "same" for entry in manifest.tensors):
        raise BadInput(f"{where}: a tensor is both updated and replaced")


def _time(text: str, where: str) -> None:
    """Refuse any spelling but one, so that the order of texts is the order of times."""
    try:
        same = datetime.strptime(text, TIME).replace(tzinfo=UTC).strftime(TIME) == text
    except ValueError:
        same = False
    if not same:
        raise BadInput(f"{where}: {text[:80]!r} is not a time such as 2026-01-31T09:30:00.000000Z")


def _list(value: Json, parse: Callable[[Json, str], T], where: str) -> tuple[T, ...]:
    return tuple(parse(item, where) for item in fields.typed(value, list, where))


def _entries(value: Json, where: str) -> tuple[Entry, ...]:
    entries = _list(value, Entry.from_json, where)
    names = [entry.spec.name for entry in entries]
    if any(a >= b for a, b in itertools.pairwise(names)):
        raise BadInput(f"{where}: names are not sorted and distinct")
    return entries
