"""Repack: committed tasks → the same tasks in another encoding, staged. No tensor, file or version changes."""

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from weightvc.delta.codec import Level, codec_named
from weightvc.delta.encoding import Encoded, encode
from weightvc.objects.ids import Digest, ObjectId
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.store import Stored
from weightvc.objects.tensors import TensorHasher
from weightvc.repo import pieces, stage
from weightvc.repo.decode import SECTIONS, SPAN, Decoder, Reader, Section
from weightvc.repo.guard import guarded
from weightvc.repo.pieces import Piece, Sink
from weightvc.repo.repository import Handle, task_path
from weightvc.repo.state import State, load
from weightvc.util import blas, fsio, heap, parallel
from weightvc.util.errors import BadInput, Conflict, Corrupt, UsageError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import listed, printable

WORTH = 0.005
"""Share of a task's stored bytes that a new encoding must save: both stay in the store as long as history does."""


@dataclass(frozen=True)
class Options:
    """How tasks are stored anew.

    With neither a codec nor a level, each tensor is encoded by ``intdelta`` at level ``best``, and keeps the encoding
    that it has unless the new one is smaller; a task that this makes less than half a percent smaller stays as it is.
    With either, every tensor is stored so, whatever its size: the codec is ``intdelta`` and the level ``best`` where
    only the other one is given.
    """

    codec: str | None = None
    level: Level | None = None
    jobs: int = 1
    dry_run: bool = False

    @property
    def forced(self) -> bool:
        """Whether an encoding is taken even if it is no smaller."""
        return self.codec is not None or self.level is not None


@dataclass(frozen=True)
class RepackedTask:
    """One task: the bytes of its tensors, and those stored for it before and after."""

    task: str
    bytes: int
    before_bytes: int
    after_bytes: int


@dataclass(frozen=True)
class Repacked:
    """What repack did, or, for a dry run, would do; ``staged`` names the tasks that are staged now."""

    tasks: tuple[RepackedTask, ...]
    staged: tuple[str, ...]


@guarded
def repack(repo: Handle, names: Sequence[str], options: Options, progress: Progress = SILENT) -> Repacked:
    """Encode the tasks ``names``, or all, anew, and stage those whose encoding changes.

    Every tensor is decoded and compared with its digest before, and once more from its new encoding after. A dry run
    encodes as well, but keeps nothing. Either every changed task is staged or none.

    Raises:
        NotFound: no such task.
        Conflict: something is staged for one of the tasks, or one was changed meanwhile.
        Unsupported: no such codec.
        UsageError: the codec is lossy.
        BadInput: the codec does not give a tensor back.
        Missing: an object is absent.
        Corrupt: an object is damaged.
    """
    heap.steady()
    if options.codec is not None and codec_named(options.codec).lossy:
        raise UsageError(
            f"codec {options.codec} is lossy, and a task that is stored anew keeps every bit",
            f"add the fine-tune again with `wvc add PATH --task NAME --codec {options.codec}`",
        )
    state = load(repo)
    _refuse_staged(repo, names or list(state.tasks))
    tasks = [state.task(name) for name in dict.fromkeys(names)] or list(state.tasks.values())
    packer = _Packer(repo, state, options, progress)
    anew = {str(task.task): _worth(task, packer.task(task), options) for task in tasks}
    changed = {name: manifest for name, manifest in anew.items() if manifest != state.tasks[name]}
    if not options.dry_run:
        _stage(repo, state, changed)
    lines = (RepackedTask(name, m.nbytes, _stored(state.tasks[name]), _stored(m)) for name, m in anew.items())
    return Repacked(tuple(lines), () if options.dry_run else tuple(changed))


def _stored(manifest: Manifest) -> int:
    return sum(manifest.objects().values())


def _worth(task: Manifest, anew: Manifest, options: Options) -> Manifest:
    """Return the new encoding, or the old one if the new one saves next to nothing and nobody asked for it."""
    return anew if options.forced or _stored(anew) <= (1 - WORTH) * _stored(task) else task


def _refuse_staged(repo: Handle, names: Iterable[str]) -> None:
    paths = stage.changes(repo).keys()
    if busy := [name for name in dict.fromkeys(names) if task_path(name) in paths]:
        raise Conflict(
            f"something is staged for {listed(busy)}, and would be lost",
            f"commit it with `wvc commit -m MESSAGE`, or take it back with `wvc unstage {printable(busy[0])}`",
        )


def _stage(repo: Handle, state: State, changed: Mapping[str, Manifest]) -> None:
    """Stage all manifests or none; none if anybody changed the tasks since ``state`` was loaded."""
    now = load(repo)
    _refuse_staged(repo, changed)
    if moved := [name for name in changed if now.tasks.get(name) != state.tasks[name]]:
        raise Conflict(f"{listed(moved)} changed meanwhile; nothing was staged", "run the command again")
    begun: list[str] = []
    try:
        for name, manifest in changed.items():
            begun.append(name)
            stage.put(repo, task_path(name), manifest.to_bytes())
    except BaseException:
        for name in begun:
            stage.forget(repo, task_path(name))
        raise


class _NotSmaller(Exception):
    """An encoding has reached the size that it had to stay below."""


class _Nowhere:
    """Takes objects for a dry run: they get their ids, and are gone."""

    @staticmethod
    def put(chunks: Iterable[bytes | memoryview]) -> Stored:
        """Return what a store would."""
        sha, size = hashlib.sha256(), 0
        for chunk in chunks:
            sha.update(chunk)
            size += len(chunk)
        return Stored(ObjectId(sha.hexdigest()), size, new=False)

    def sync(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class _Item:
    """An entry of the list ``section``; several threads take them."""

    section: Section
    entry: Entry


class _Packer:
    """Encodes the entries of tasks anew, one task after the other."""

    def __init__(self, repo: Handle, state: State, options: Options, progress: Progress) -> None:
        self._repo = repo
        self._reader = Reader(repo.store, state.base)
        self._sink: Sink = _Nowhere() if options.dry_run else repo.store
        self._options = options
        self._progress = progress
        self._codec = options.codec or "intdelta"
        self._alone = pieces.alone(self._codec)

    def task(self, task: Manifest) -> Manifest:
        """Return the manifest with its entries where they are stored now, durable."""
        items = [_Item(section, entry) for section in SECTIONS for entry in getattr(task, section)]
        same = [Piece(item.section, item.entry) for item in items if item.entry.place is None]
        stored = sorted(
            (item for item in items if item.entry.place is not None), key=lambda item: -item.entry.spec.nbytes
        )
        total = sum(item.entry.spec.nbytes for item in stored)
        with blas.one_thread(), self._progress.stage(f"Repacking task {task.task}", total):
            done = parallel.run(self._entry, stored, self._options.jobs)
        lists = pieces.settle([*same, *done], self._sink)
        return replace(task, tensors=lists["tensors"], files=lists["files"], headers=lists["headers"])

    def _entry(self, item: _Item) -> Piece:
        entry = item.entry
        decoder = self._reader.open(entry, item.section)
        codec, base = (self._alone, None) if entry.of is None else (self._codec, decoder.base)
        limit = None if self._options.forced or entry.place is None else entry.place.size
        with self._decoded(decoder) as data:
            chunks = encode(entry.spec, data, base, codec, self._options.level or "best")
            try:
                piece = pieces.keep(item.section, replace(entry, place=None), codec, _below(chunks, limit), self._sink)
            except _NotSmaller:
                piece = Piece(item.section, entry)
        if not self._options.dry_run and piece.entry != entry:
            self._prove(piece, decoder.base)
        self._progress.advance(entry.spec.nbytes)
        return piece

    @contextmanager
    def _decoded(self, decoder: Decoder) -> Iterator[memoryview]:
        """Give a tensor's bytes, which have its digest: a large one's in a scratch file, mapped."""
        entry = decoder.entry
        if entry.spec.nbytes <= SPAN:
            data = decoder.read()
            _compare(entry, _digest(entry, [data]))
            yield data
            return
        with fsio.scratch_file(self._repo.tmp) as scratch:
            _compare(entry, _digest(entry, _written(decoder, scratch)))
            yield memoryview(mmap.mmap(scratch.fileno(), entry.spec.nbytes, access=mmap.ACCESS_READ))

    def _prove(self, piece: Piece, base: Decoder | None) -> None:
        """Refuse a codec whose encoding is not that of the tensor."""
        entry, place = piece.entry, piece.entry.place
        data = memoryview(piece.small or b"") if place is None else self._repo.store.open(place.object)
        codec = piece.codec if place is None else place.codec
        decoder = Decoder(entry, Encoded.parse(data, printable(entry.spec.name)), base)
        if _digest(entry, (span for _, span in decoder.spans())) != entry.digest:
            raise BadInput(f"codec {codec} does not give {printable(entry.spec.name)} back", "name another codec")


def _digest(entry: Entry, spans: Iterable[memoryview]) -> Digest:
    hasher = TensorHasher(entry.spec.dtype, entry.spec.shape)
    for span in spans:
        hasher.update(span)
    return hasher.digest()


def _compare(entry: Entry, found: Digest) -> None:
    if found != entry.digest:
        raise Corrupt(f"{printable(entry.spec.name)}: its bytes do not have the digest that its manifest states")


def _written(decoder: Decoder, scratch: fsio.NewFile) -> Iterator[memoryview]:
    for offset, span in decoder.spans():
        scratch.pwrite(span, offset)
        yield span


def _below(chunks: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    """Return the chunks, or raise :class:`_NotSmaller` once they have ``limit`` bytes together."""
    held = 0
    for chunk in chunks:
        held += len(chunk)
        if limit is not None and held >= limit:
            raise _NotSmaller
        yield chunk
