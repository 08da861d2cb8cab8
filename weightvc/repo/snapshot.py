"""Snapshot: a checkpoint → the entries of a manifest, with its objects in the store.

All heavy work of `init` and `add` is here. Memory does not grow with tensors: the target is mapped from its file,
the base tensor decoded chunk by chunk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from weightvc.checkpoint.reader import Checkpoint
from weightvc.delta import values
from weightvc.delta.codec import Level, codec_named
from weightvc.delta.encoding import encode
from weightvc.delta.pair import Unsuited
from weightvc.objects.ids import Digest
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.tensors import TensorSpec, tensor_digest
from weightvc.repo import loss, pieces
from weightvc.repo.decode import SPAN, Decoder, Reader, Section
from weightvc.repo.loss import Measured
from weightvc.repo.pieces import Piece
from weightvc.store.local import LocalStore
from weightvc.util import blas, heap, parallel
from weightvc.util.errors import BadInput, UsageError
from weightvc.util.progress import Progress
from weightvc.util.text import printable

T = TypeVar("T")

RANK = 72
"""Rank of the factors that an estimate of memory counts with."""


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
class Item:
    """One tensor to store, and the base's counterpart, of any shape."""

    section: Section
    spec: TensorSpec
    partner: Entry | None

    @property
    def base(self) -> Entry | None:
        """The base's tensor that this one is a delta from."""
        like = self.partner is not None and self.partner.spec.same_kind(self.spec)
        return self.partner if like and self.section == "tensors" else None

    def read(self, checkpoint: Checkpoint) -> memoryview:
        """Return the bytes, mapped."""
        match self.section:
            case "tensors":
                return checkpoint.read(self.spec.name)
            case "files":
                return checkpoint.extra(self.spec.name)  # noqa: S610 -- a file of the directory, no database
            case "headers":
                return memoryview(checkpoint.headers[self.spec.name])


@dataclass(frozen=True)
class Snapshot:
    """The three lists of a manifest, how many non-finite values the tensors hold, and what lossy ones lost."""

    tensors: tuple[Entry, ...]
    files: tuple[Entry, ...]
    headers: tuple[Entry, ...]
    nonfinite: int
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class _Checked:
    """An item that may be stored, with its tensor's digest and how many of its values are not finite."""

    item: Item
    digest: Digest
    nonfinite: int = 0

    @property
    def spec(self) -> TensorSpec:
        """The tensor's dtype and shape."""
        return self.item.spec

    @property
    def same(self) -> Piece | None:
        """The piece of a tensor that equals the base's, which there is nothing to store for."""
        partner = self.item.partner
        if partner is None or partner.digest != self.digest:
            return None
        return Piece(self.item.section, Entry(self.item.spec, self.digest, "same", partner.spec.name))


S = TypeVar("S", Item, _Checked)


class _Taker:
    """Checks items, and stores them one by one; called from several threads."""

    def __init__(self, checkpoint: Checkpoint, base: Manifest | None, store: LocalStore, options: Options) -> None:
        self._checkpoint = checkpoint
        self._reader = None if base is None else Reader(store, base)
        self._finite = base is not None and not base.nonfinite
        self._store = store
        self._options = options
        self._alone = pieces.alone(options.codec)
        self.measured: list[Measured] = []

    def __call__(self, checked: _Checked) -> Piece:
        item, digest = checked.item, checked.digest
        spec, data = item.spec, item.read(self._checkpoint)
        base, codec, entry = None, self._alone, Entry(spec, digest, "whole")
        if self._reader is not None and item.base is not None:
            base, codec = self._reader.open(item.base), self._options.codec
            entry = Entry(spec, digest, "delta", item.base.spec.name)
        codec, chunks = self._encode(spec, data, base, codec)
        piece = pieces.keep(item.section, entry, codec, chunks, self._store)
        self._refuse_changed(item, data, digest)
        return self._returned(piece, codec, data, base)

    def _encode(
        self, spec: TensorSpec, data: memoryview, base: Decoder | None, codec: str
    ) -> tuple[str, Iterator[bytes]]:
        """Return the encoding and its codec: a lossless one for what a lossy one does not take."""
        try:
            return codec, encode(spec, data, base, codec, self._options.level)
        except Unsuited:
            return pieces.LOSSLESS, encode(spec, data, base, pieces.LOSSLESS, self._options.level)

    def _returned(self, piece: Piece, codec: str, data: memoryview, base: Decoder | None) -> Piece:
        """Return the piece of what comes back of a tensor, which a lossy codec makes another one."""
        if base is None or not codec_named(codec).lossy:
            return piece
        place = piece.entry.place
        encoding = memoryview(piece.small or b"") if place is None else self._store.open(place.object)
        entry, measured = loss.measure(piece.entry, encoding, data, base)
        if measured is not None:
            self.measured.append(measured)
        return replace(piece, entry=entry)

    def _refuse_changed(self, item: Item, data: memoryview, digest: Digest) -> None:
        """Refuse what was rewritten in its file between the hashing and the end of the encoding."""
        if tensor_digest(item.spec.dtype, item.spec.shape, data) != digest:
            raise BadInput(
                f"{self._checkpoint.path}: {printable(item.spec.name)} changed while it was being read",
                "let the program that writes the checkpoint finish, then run the command again",
            )

    def check(self, item: Item) -> _Checked:
        """Hash an item, and refuse a tensor whose values cannot be right; the base's own were looked at before."""
        spec, data = item.spec, item.read(self._checkpoint)
        checked = _Checked(item, tensor_digest(spec.dtype, spec.shape, data))
        if item.section != "tensors" or (self._finite and checked.same):
            return checked
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
        return replace(checked, nonfinite=nonfinite)


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
    work = sorted(items(checkpoint, base, names), key=lambda item: -item.spec.nbytes)
    taker = _Taker(checkpoint, base, store, options)

    # All checks come first, so that a checkpoint that is refused leaves nothing in the store.
    checked = _run(f"Checking {what}", taker.check, work, options.jobs, progress)
    moved = [item for item in checked if item.same is None]
    stored = _run(f"Storing {what}", taker, moved, options.jobs, progress)
    checkpoint.refuse_changed()
    stored += [piece for one in checked if (piece := one.same) is not None]
    lists = pieces.settle(stored, store)
    return Snapshot(
        lists["tensors"], lists["files"], lists["headers"], sum(one.nonfinite for one in checked), tuple(taker.measured)
    )


def _run(label: str, work: Callable[[S], T], items: Sequence[S], jobs: int, progress: Progress) -> list[T]:
    def job(item: S) -> T:
        done = work(item)
        progress.advance(item.spec.nbytes)
        return done

    with blas.one_thread(), progress.stage(label, sum(item.spec.nbytes for item in items)):
        return parallel.run(job, items, jobs)


def items(checkpoint: Checkpoint, base: Manifest | None, names: Mapping[str, str]) -> Iterator[Item]:
    """Return all that is stored of a checkpoint, given the base's name for each tensor that has a counterpart."""
    files = {entry.spec.name: entry for entry in base.files} if base else {}
    headers = {entry.spec.name: entry for entry in base.headers} if base else {}
    for name, spec in checkpoint.tensors.items():
        yield Item("tensors", spec, base.by_name[names[name]] if base and name in names else None)
    for path, size in checkpoint.extras.items():
        yield Item("files", TensorSpec(path, "U8", (size,)), files.get(path))
    for name, header in checkpoint.headers.items():
        yield Item("headers", TensorSpec(name, "U8", (len(header),)), headers.get(name))
