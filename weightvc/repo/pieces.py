"""Pieces: encodings on their way into the store, those of small tensors in bundles that they share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from weightvc.delta import container
from weightvc.delta.codec import Codec, Level, codec_named
from weightvc.delta.pair import Pair, Unsuited
from weightvc.objects.manifest import Entry, Place
from weightvc.objects.store import Stored
from weightvc.repo.decode import SECTIONS, Section

SMALL = 64 * 2**10
"""Tensors of up to this many raw bytes share bundle objects."""

BUNDLE = 4 * 2**20
"""A bundle is closed once it holds this many encoded bytes."""

FULL = "full"
"""The codec of tensors that have no base, unless another that uses none was asked for."""

LOSSLESS = "intdelta"
"""The codec of tensors that a lossy one does not take."""

Lists = dict[Section, tuple[Entry, ...]]
"""The three lists of a manifest."""


class Sink(Protocol):
    """What takes objects: the part of :class:`weightvc.objects.store.ObjectStore` that stores."""

    def put(self, chunks: Iterable[bytes | memoryview]) -> Stored:
        """Store the concatenated ``chunks``; durable only after :meth:`sync`."""
        ...

    def sync(self) -> None:
        """Make every object put so far durable."""
        ...


@dataclass(frozen=True)
class Piece:
    """An entry; with its encoding, still to be bundled, if it is small, and then without its place."""

    section: Section
    entry: Entry
    codec: str = ""
    small: bytes | None = None


def alone(codec: str) -> str:
    """Return the codec of tensors without a base where ``codec`` was asked for; raises :class:`Unsupported`."""
    return FULL if codec_named(codec).uses_base else codec


def chosen(entry: Entry) -> str:
    """Return the codec that may have been asked for where an entry was stored by the one that it has."""
    codec = entry.place.codec if entry.place is not None else FULL
    return LOSSLESS if codec == FULL else codec


def fitted(codec: str, pair: Pair, level: Level) -> Codec:
    """Return the codec for one tensor, a lossless one if ``codec`` is lossy and does not take it."""
    try:
        return codec_named(codec).fit(pair, level)
    except Unsuited:
        return codec_named(LOSSLESS).fit(pair, level)


def keep(section: Section, entry: Entry, codec: str, chunks: Iterable[bytes], store: Sink) -> Piece:
    """Store the encoding of an entry that has no place yet, or hold it back for a bundle if its tensor is small."""
    if entry.spec.nbytes <= SMALL:
        return Piece(section, entry, codec, b"".join(chunks))
    stored = store.put(chunks)
    return Piece(section, replace(entry, place=Place(codec, stored.object, stored.size)))


def settle(pieces: Iterable[Piece], store: Sink) -> Lists:
    """Store what was held back, make all objects durable, and return the entries by list, sorted by name."""
    ordered = sorted(pieces, key=lambda piece: (piece.section, piece.entry.spec.name))
    entries = list(_bundled(ordered, store))
    store.sync()
    return {
        section: tuple(entry for piece, entry in zip(ordered, entries, strict=True) if piece.section == section)
        for section in SECTIONS
    }


def _bundled(pieces: Sequence[Piece], store: Sink) -> Iterator[Entry]:
    """Return the pieces' entries in order, after small encodings have been stored together."""
    places = _bundle([(piece.codec, piece.small) for piece in pieces if piece.small is not None], store)
    for piece in pieces:
        yield piece.entry if piece.small is None else replace(piece.entry, place=next(places))


def _bundle(small: Sequence[tuple[str, bytes]], store: Sink) -> Iterator[Place]:
    group: list[tuple[str, bytes]] = []
    held = 0
    for at, (codec, data) in enumerate(small):
        group.append((codec, data))
        held += len(data)
        if held >= BUNDLE or at == len(small) - 1:
            stored = store.put([container.bundle([part for _, part in group])])
            yield from (Place(codec, stored.object, len(part), number) for number, (codec, part) in enumerate(group))
            group, held = [], 0
