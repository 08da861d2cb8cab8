"""Snapshot: a checkpoint → the entries of a manifest, with its objects in the store.

All heavy work of `init` and `add` is here. Memory does not grow with tensors: the target is mapped from its file,
the base tensor decoded chunk by chunk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from weightvc.checkpoint.reader import Checkpoint
from weightvc.delta import container, values
from weightvc.delta.codec import Level, codec_named
from weightvc.delta.encoding import encode
from weightvc.delta.pair import Unsuited
from weightvc.objects.ids import Digest
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.tensors import TensorSpec, tensor_digest
from weightvc.repo import loss
from weightvc.repo.decode import SPAN, Decoder, Reader, Section
from weightvc.repo.loss import Measured
from weightvc.store.local import LocalStore
from weightvc.util import heap, parallel
from weightvc.util.errors import BadInput, UsageError
from weightvc.util.progress import Progress
from weightvc.util.text import printable

T = TypeVar("T")

SMALL = 64 * 2**10
"""Tensors of up to this many raw bytes share bundle objects."""

FULL = "full"
"""The codec of tensors that have no base, unless another that uses none was asked for."""

LOSSLESS = "intdelta"
"""The codec of tensors that a lossy one does not take."""

RANK = 72
"""Rank of the factors that an estimate of memory counts with."""

BUNDLE = 4 * 2**20
"""A bundle is closed once it holds this many encoded bytes."""


@dataclass(frozen=True)
class Options:
    """How a checkpoint is stored."""

    codec: str = "intdelta"
    level: Level = "default"
    jobs: int = 1
    allow_nonfinite: bool = False


def peak_bytes(checkpoint: Checkpoint, options: Options) -> int:
    """Estimate the peak private memory of :func:`take`: the libraries, and for each thread some chunks and factors."""
    widest = max((sum(spec.shape) for spec in checkpoint.tensors.values() if len(spec.shape) == 2), default=0)
    return 64 * 2**20 + options.jobs * (8 * 2**20 + 3 * 8 * RANK * min(widest, 2**20))


@dataclass(frozen=True)
class _Item:
    """One tensor to store, and the base's counterpart."""

    section: Section
    spec: TensorSpec
    partner: Entry | None


@dataclass(frozen=True)
class _Piece:
    """An entry; with its encoding, still to be bundled, if it is small, and then without its place."""

    section: Section
    entry: Entry
    codec: str = ""
    small: bytes | None = None
    measured: Measured | None = None


@dataclass(frozen=True)
class Snapshot:
    """The three lists of a manifest, how many non-finite values the tensors hold, and what lossy ones lost."""

    tensors: tuple[Entry, ...]
    files: tuple[Entry, ...]
    headers: tuple[Entry, ...]
    nonfinite: int
    measured: tuple[Measured, ...] = ()


class _Taker:
    """Stores items one by one; called from several threads."""

    def __init__(self, checkpoint: Checkpoint, reader: Reader | None, store: LocalStore, options: Options) -> None:
        self._checkpoint = checkpoint
        self._reader = reader
        self._store = store
        self._options = options
        self._alone = FULL if codec_named(options.codec).uses_base else options.codec

    def __call__(self, item: _Item) -> _Piece:
        spec, partner = item.spec, item.partner
        data = self._read(item)
        digest = tensor_digest(spec.dtype, spec.shape, data)
        if partner is not None and partner.digest == digest:
            return _Piece(item.section, Entry(spec, digest, "same", partner.spec.name))
        base, codec, entry = None, self._alone, Entry(spec, digest, "whole")
        if (
            self._reader is not None
            and partner is not None
            and item.section == "tensors"
            and partner.spec.same_kind(spec)
        ):
            base, codec = self._reader.open(partner), self._options.codec
            entry = Entry(spec, digest, "delta", partner.spec.name)
        codec, chunks = self._encode(spec, data, base, codec)
        if spec.nbytes <= SMALL:
            small = b"".join(chunks)
            self._refuse_changed(item, data, digest)
            entry, measured = self._returned(entry, codec, memoryview(small), data, base)
            return _Piece(item.section, entry, codec, small, measured)
        stored = self._store.put(chunks)
        self._refuse_changed(item, data, digest)
        entry = replace(entry, place=Place(codec, stored.object, stored.size))
        entry, measured = self._returned(entry, codec, self._store.open(stored.object), data, base)
        return _Piece(item.section, entry, measured=measured)

    def _encode(
        self, spec: TensorSpec, data: memoryview, base: Decoder | None, codec: str
    ) -> tuple[str, Iterator[bytes]]:
        """Return the encoding and its codec: a lossless one for what a lossy one does not take."""
        try:
            return codec, encode(spec, data, base, codec, self._options.level)
        except Unsuited:
            return LOSSLESS, encode(spec, data, base, LOSSLESS, self._options.level)

    @staticmethod
    def _returned(
        entry: Entry, codec: str, stored: memoryview, data: memoryview, base: Decoder | None
    ) -> tuple[Entry, Measured | None]:
        """Return the entry of what comes back of a tensor, which a lossy codec makes another one."""
        if base is None or not codec_named(codec).lossy:
            return entry, None
        return loss.measure(entry, stored, data, base)

    def _refuse_changed(self, item: _Item, data: memoryview, digest: Digest) -> None:
        """Refuse what was rewritten in its file between the hashing and the end of the encoding."""
        if tensor_digest(item.spec.dtype, item.spec.shape, data) != digest:
            raise BadInput(
                f"{self._checkpoint.path}: {printable(item.spec.name)} changed while it was being read",
                "let the program that writes the checkpoint finish, then run the command again",
            )

    def _read(self, item: _Item) -> memoryview:
        name = item.spec.name
        match item.section:
            case "tensors":
                return self._checkpoint.read(name)
            case "files":
                return self._checkpoint.extra(name)  # noqa: S610 -- a file of the directory, no database
            case "headers":
                return memoryview(self._checkpoint.headers[name])

    def check(self, item: _Item) -> int:
        """Refuse a tensor whose values cannot be right, and return how many are not finite."""
        spec, data = item.spec, self._read(item)
        spans = [data[at : at + SPAN] for at in range(0, len(data), SPAN)]
        where = f"{self._checkpoint.path}: tensor {printable(spec.name)}"
        if spec.dtype == "BOOL" and any(values.count_bad_bools(span) for span in spans):
            raise BadInput(f"{where} is BOOL but holds bytes other than 0 and 1", "the file is damaged; write it again")
        nonfinite = sum(values.count_nonfinite(spec.dtype, span) for span in spans)
        if nonfinite and not self._options.allow_nonfinite:
            raise BadInput(
                f"{where} holds {nonfinite} non-finite values (NaN or infinity)",
                "pass --allow-nonfinite to store it all the same",
            )
        return nonfinite


def take(
    checkpoint: Checkpoint,
    store: LocalStore,
    *,
    base: Manifest | None,
    names: Mapping[str, str],
    options: Options,
    progress: Progress,
    what: str,
) -> Snapshot:
    """Store every tensor, file and header of ``checkpoint`` and return their entries, durable.

    Args:
        checkpoint: An open checkpoint.
        store: Where objects go.
        base: The base that deltas are taken from; ``None`` for the base itself.
        names: The base's name for each tensor that has a counterpart (:mod:`weightvc.repo.align`).
        options: Codec, threads, non-finite values.
        progress: Told of raw bytes done.
        what: What progress calls the checkpoint.

    Raises:
        BadInput: a tensor holds non-finite values or bytes that are no booleans, or a weight file changed meanwhile.
        Unsupported: no such codec.
        UsageError: a lossy codec for the base.
    """
    heap.steady()
    if base is None and codec_named(options.codec).lossy:
        raise UsageError(f"codec {options.codec} is lossy, and a base is kept as it is", "leave --codec out")
    items = sorted(_items(checkpoint, base, names), key=lambda item: -item.spec.nbytes)
    reader = None if base is None else Reader(store, base)
    taker = _Taker(checkpoint, reader, store, options)

    # All checks come first, so that a checkpoint that is refused leaves nothing in the store.
    tensors = [item for item in items if item.section == "tensors"]
    nonfinite = sum(_run(f"Checking {what}", taker.check, tensors, options.jobs, progress))
    pieces = _run(f"Storing {what}", taker, items, options.jobs, progress)
    checkpoint.refuse_changed()
    pieces.sort(key=lambda piece: (piece.section, piece.entry.spec.name))
    entries = list(_bundled(pieces, store))
    store.sync()
    lists = {
        section: tuple(entry for piece, entry in zip(pieces, entries, strict=True) if piece.section == section)
        for section in ("tensors", "files", "headers")
    }
    measured = tuple(piece.measured for piece in pieces if piece.measured is not None)
    return Snapshot(lists["tensors"], lists["files"], lists["headers"], nonfinite, measured)


def _run(label: str, work: Callable[[_Item], T], items: Sequence[_Item], jobs: int, progress: Progress) -> list[T]:
    def job(item: _Item) -> T:
        done = work(item)
        progress.advance(item.spec.nbytes)
        return done

    with progress.stage(label, sum(item.spec.nbytes for item in items)):
        return parallel.run(job, items, jobs)


def _items(checkpoint: Checkpoint, base: Manifest | None, names: Mapping[str, str]) -> Iterator[_Item]:
    files = {entry.spec.name: entry for entry in base.files} if base else {}
    headers = {entry.spec.name: entry for entry in base.headers} if base else {}
    for name, spec in checkpoint.tensors.items():
        yield _Item("tensors", spec, base.by_name[names[name]] if base and name in names else None)
    for path, size in checkpoint.extras.items():
        yield _Item("files", TensorSpec(path, "U8", (size,)), files.get(path))
    for name, header in checkpoint.headers.items():
        yield _Item("headers", TensorSpec(name, "U8", (len(header),)), headers.get(name))


def _bundled(pieces: Sequence[_Piece], store: LocalStore) -> Iterator[Entry]:
    """Return the pieces' entries in order, after small encodings have been stored together."""
    places = _bundle([(piece.codec, piece.small) for piece in pieces if piece.small is not None], store)
    for piece in pieces:
        yield piece.entry if piece.small is None else replace(piece.entry, place=next(places))


def _bundle(small: Sequence[tuple[str, bytes]], store: LocalStore) -> Iterator[Place]:
    group: list[tuple[str, bytes]] = []
    held = 0
    for at, (codec, data) in enumerate(small):
        group.append((codec, data))
        held += len(data)
        if held >= BUNDLE or at == len(small) - 1:
            stored = store.put([container.bundle([part for _, part in group])])
            yield from (Place(codec, stored.object, len(part), number) for number, (codec, part) in enumerate(group))
            group, held = [], 0
