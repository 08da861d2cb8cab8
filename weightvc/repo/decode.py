"""Reading stored tensors back: an entry of a manifest → its raw bytes, in spans or whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from weightvc.checkpoint.header import MAX_HEADER
from weightvc.delta import container
from weightvc.delta.codec import CHUNK
from weightvc.delta.encoding import Encoded
from weightvc.objects.ids import ObjectId
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.store import ObjectStore
from weightvc.util import parallel
from weightvc.util.errors import Corrupt, Missing
from weightvc.util.text import printable

SPAN = 2 * CHUNK
"""Raw bytes that streaming work holds of one tensor at a time."""

Section: TypeAlias = Literal["tensors", "files", "headers"]
"""A list of a manifest."""

SECTIONS: tuple[Section, ...] = ("tensors", "files", "headers")
"""The three lists of every manifest."""


@dataclass(frozen=True)
class Decoder:
    """One tensor of the store: its own encoding, and the base tensor that it needs or equals."""

    entry: Entry
    encoded: Encoded | None
    base: "Decoder | None"

    def read_into(self, out: memoryview, offset: int, base: memoryview | None = None) -> None:
        """Decode raw bytes [``offset``, ``offset + len(out)``) into ``out``.

        Args:
            out: Writable bytes.
            offset: A multiple of :data:`weightvc.delta.codec.CHUNK`; the end is one too, or the tensor's end.
            base: The same range of the base tensor, if the caller has it already.
        """
        if base is None and self.base is not None and (self.encoded is None or self.encoded.needs_base):
            if self.encoded is None:
                self.base.read_into(out, offset)
                return
            base = np.empty(len(out), np.uint8).data
            self.base.read_into(base, offset)
        if self.encoded is None:
            out[:] = base if base is not None else b""
        else:
            self.encoded.decode_into(out, base if self.encoded.needs_base else None, offset)

    def kept(self) -> "Decoder":
        """Return a decoder of the same tensor for one thread, which keeps what it decodes, to be read again."""
        return _Kept(self.entry, self.encoded, self.base)

    def spans(self) -> Iterator[tuple[int, memoryview]]:
        """Return the tensor's bytes as (offset, span) pairs; each span's buffer is reused for a later one."""
        return parallel.spans(self.read_into, self.entry.spec.nbytes, SPAN)

    def read(self) -> memoryview:
        """Return all of the tensor's bytes."""
        out = memoryview(bytearray(self.entry.spec.nbytes))
        self.read_into(out, 0)
        return out


@dataclass(frozen=True)
class _Kept(Decoder):
    """A decoder that keeps raw spans, by their offsets."""

    held: dict[int, bytes] = field(default_factory=dict)

    def read_into(self, out: memoryview, offset: int, base: memoryview | None = None) -> None:
        """Decode raw bytes, or copy what was decoded before; see :meth:`Decoder.read_into`."""
        if offset in self.held:
            out[:] = self.held[offset]
            return
        super().read_into(out, offset, base)
        self.held[offset] = bytes(out)


class Reader:
    """Opens the entries of a base and of the tasks taken from it. Safe to use from several threads."""

    def __init__(self, store: ObjectStore, base: Manifest) -> None:
        self._store = store
        self._base: Mapping[Section, Mapping[str, Entry]] = {
            "tensors": base.by_name,
            "files": {entry.spec.name: entry for entry in base.files},
            "headers": {entry.spec.name: entry for entry in base.headers},
        }
        self._bundles: dict[ObjectId, list[memoryview]] = {}

    def open(self, entry: Entry, section: Section = "tensors", base: Decoder | None = None) -> Decoder:
        """Return the decoder of an entry.

        Args:
            entry: What to read.
            section: The list that it is in.
            base: The decoder of the base tensor that it may need, if the caller has that one already.

        Raises:
            Missing: an object that it needs is absent.
            Corrupt: the object is not this tensor's encoding, or the base has no such tensor; or a header that is too
                large to be one.
        """
        if section == "headers" and entry.spec.nbytes > MAX_HEADER + 8:
            what = f"the header of {printable(entry.spec.name)} has {entry.spec.nbytes} bytes"
            raise Corrupt(f"{what}, more than any that was added", "run `wvc fsck --full`")
        if entry.of is None:
            base = None
        else:
            partner = self._base[section].get(entry.of)
            if partner is None or not partner.spec.same_kind(entry.spec):
                raise Corrupt(f"{printable(entry.spec.name)}: the base has no such tensor {printable(entry.of)}")
            if entry.state == "same" and partner.digest != entry.digest:
                raise Corrupt(f"{printable(entry.spec.name)}: said to equal the base's tensor, but does not")
            if base is None or base.entry is not partner:
                base = self.open(partner, section)
        return Decoder(entry, None if entry.place is None else self._encoded(entry, entry.place), base)

    def _open(self, entry: Entry, place: Place) -> memoryview:
        try:
            return self._store.open(place.object)
        except Missing as error:
            if place.object not in error.what:  # but of the whole store
                raise
            raise Missing(f"{printable(entry.spec.name)} cannot be read: {error.what}", error.hint) from None

    def _encoded(self, entry: Entry, place: Place) -> Encoded:
        where = f"object {place.object}"
        if place.part is None:
            data = self._open(entry, place)
        else:
            parts = self._bundles.get(place.object)
            if parts is None:
                parts = self._bundles[place.object] = container.members(self._open(entry, place), where)
            if place.part >= len(parts):
                raise Corrupt(f"{where}: no part {place.part}", "run `wvc fsck --full`")
            data = parts[place.part]
        if len(data) != place.size:
            raise Corrupt(f"{where}: {len(data)} bytes, its manifest says {place.size}", "run `wvc fsck --full`")
        encoded = Encoded.parse(data, where)
        if not encoded.spec.same_kind(entry.spec) or encoded.codec != place.codec:
            raise Corrupt(f"{where}: not the encoding of {printable(entry.spec.name)}", "run `wvc fsck --full`")
        return encoded
