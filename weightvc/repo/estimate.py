"""Estimate: what a checkpoint would take in the store by each codec and level, from a sample of its chunks.

For each dtype, and apart for tensors without a base, chunks are drawn at random by bytes: one from each of so many
equal shares of all that would be stored, where tensors of one shape stand together. The drawing is the same every
time. A chunk stands for its share, and so do what its codec keeps beside the tensor's chunks and the time that fitting
took. Headers of objects are counted, not estimated.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from pathlib import Path
from time import perf_counter

import numpy as np

from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.delta import container, encoding
from weightvc.delta.codec import CHUNK, CODECS, Level, codec_named
from weightvc.delta.pair import Pair
from weightvc.objects.ids import Digest, task_name
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import pieces, related, snapshot
from weightvc.repo.decode import Reader
from weightvc.repo.repository import Handle
from weightvc.repo.snapshot import Item
from weightvc.repo.state import load
from weightvc.util import blas, heap, parallel
from weightvc.util.progress import SILENT, Progress

CHUNKS = 64
"""How many chunks are drawn, and up to one more for each dtype; what has no more bytes is encoded whole."""

LEVELS: tuple[Level, ...] = ("fast", "default", "best")

_PLAIN = ("full", "raw")
"""Codecs that do the same at every level."""

_FRAME = len(container.frame(b"", b""))


@dataclass(frozen=True)
class Estimate:
    """What one codec and level would give: stored bytes, their ratio to the tensors', and MB/s of one thread.

    A ``lossy`` one would give less back than is added.
    """

    codec: str
    level: Level
    stored_bytes: int
    ratio: float
    encode_mb_s: float
    lossy: bool


@dataclass(frozen=True)
class Estimated:
    """All estimates; ``bytes`` counts the tensors, ``sampled_bytes`` what of the checkpoint was encoded."""

    task: str
    bytes: int
    sampled_bytes: int
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Options:
    """``codec`` is tried beside the built-in ones; ``jobs`` threads find what equals the base, one thread encodes."""

    codec: str = "intdelta"
    jobs: int = 1
    force_base: bool = False


def estimate(repo: Handle, path: Path, name: str, options: Options, progress: Progress = SILENT) -> Estimated:
    """Say what `add` would store for the checkpoint at ``path`` by each codec and level. Nothing is written.

    Values are not checked, as they are by `add`: not every tensor is read whole.

    Raises:
        BadInput: no usable checkpoint, a task name that cannot be, or a checkpoint that is no fine-tune of this base.
        Unsupported: no such codec.
    """
    heap.steady()
    task_name(name)
    rows = _rows(options.codec)
    state = load(repo)
    with open_checkpoint(path) as checkpoint:
        matched, _ = related.match(repo, path, checkpoint, state.base, force=options.force_base)
        total = sum(spec.nbytes for spec in checkpoint.tensors.values())
        sample = _Sample(checkpoint, Reader(repo.store, state.base), total)
        sample.look(snapshot.items(checkpoint, state.base, matched.names), options.jobs)
        sample.warm()
        with blas.one_thread(), progress.stage(f"Estimating task {name}", sample.nbytes * len(rows)):
            estimates = tuple(sample.measure(codec, level, progress) for codec, level in rows)
        checkpoint.refuse_changed()
    return Estimated(name, total, sample.nbytes, estimates)


def _rows(codec: str) -> list[tuple[str, Level]]:
    """Return the codecs and levels to try: what is lossy, or not built in, only if it is named."""
    codec_named(codec)
    names = [name for name, kind in CODECS.items() if kind.uses_base and not kind.lossy]
    names += [name for name in dict.fromkeys((codec, "raw")) if name not in names]
    return [(name, level) for name in names for level in (("default",) if name in _PLAIN else LEVELS)]


@dataclass(frozen=True)
class _Drawn:
    """A tensor of which chunks were drawn: how many bytes of all that is stored each of them stands for."""

    item: Item
    stands: dict[int, float]


class _Sample:
    """What of a checkpoint would be stored, and the chunks drawn from it; ``nbytes`` counts the bytes of those."""

    def __init__(self, checkpoint: Checkpoint, reader: Reader, total: int) -> None:
        self._checkpoint = checkpoint
        self._reader = reader
        self._total = total
        self._stored: list[Item] = []
        self._drawn: list[_Drawn] = []
        self.nbytes = 0

    def look(self, items: Iterable[Item], jobs: int) -> None:
        """Find out what would be stored, each equal tensor once, and draw the sample."""
        every = list(items)
        groups: dict[object, list[Item]] = defaultdict(list)
        for item, key in zip(every, parallel.run(self._key, every, jobs), strict=True):
            if key is not None:
                groups[key].append(item)
        for alike in groups.values():
            large = len(alike) > 1 and alike[0].spec.nbytes > pieces.SMALL
            self._stored += {self._digest(item): item for item in alike}.values() if large else alike
        self._stored.sort(key=lambda item: (item.section, item.spec.dtype, item.spec.shape, item.spec.name))
        self._drawn = _draw(self._stored)
        self.nbytes = sum(_size(drawn.item, index) for drawn in self._drawn for index in drawn.stands)

    def warm(self) -> None:
        """Read what was drawn once, so that no codec is timed while the disk is."""
        for drawn in self._drawn:
            pair = self._pair(drawn.item, alone=False)
            for index in drawn.stands:
                pair.target(index).tobytes()
                if drawn.item.base is not None:
                    pair.base(index)

    def _key(self, item: Item) -> object | None:
        """Return what tensors that are equal have in common, or ``None`` for one that equals the base's."""
        partner = item.partner
        if item.base is not None and item.spec.nbytes:
            pair, middle = self._pair(item, alone=False), (item.spec.nbytes - 1) // CHUNK // 2
            equal = np.array_equal(pair.target(middle), pair.base(middle))
            part = pair.target(middle).tobytes()
        else:
            equal = partner is not None and partner.spec.same_kind(item.spec)
            part = bytes(item.read(self._checkpoint)[:CHUNK])
        if equal and partner is not None and partner.digest == self._digest(item):
            return None
        of = None if item.base is None else item.base.digest
        return item.section, item.spec.dtype, item.spec.shape, of, tensor_digest("U8", (len(part),), part)

    def _digest(self, item: Item) -> Digest:
        return tensor_digest(item.spec.dtype, item.spec.shape, item.read(self._checkpoint))

    def _pair(self, item: Item, *, alone: bool) -> Pair:
        base = None if alone or item.base is None else self._reader.open(item.base)
        return Pair(item.spec, item.read(self._checkpoint), base)

    def measure(self, codec: str, level: Level, progress: Progress) -> Estimate:
        """Encode what was drawn, and return what all would take."""
        names = {False: codec, True: pieces.alone(codec)}
        size = seconds = 0.0
        for item in self._stored:
            head = encoding.head(names[item.base is None], item.spec, side=False)
            size += len(head) + _FRAME * -(-item.spec.nbytes // CHUNK)
        for drawn in self._drawn:
            more, took = self._encode(drawn, names[drawn.item.base is None], level, progress)
            size, seconds = size + more, seconds + took
        speed = sum(item.spec.nbytes for item in self._stored) / seconds / 1e6 if seconds else 0.0
        ratio = size / self._total if self._total else 0.0
        return Estimate(codec, level, round(size), ratio, speed, codec_named(codec).lossy)

    def _encode(self, drawn: _Drawn, codec: str, level: Level, progress: Progress) -> tuple[float, float]:
        """Return how many bytes and seconds the drawn chunks of a tensor stand for."""
        kind = codec_named(codec)
        pair = self._pair(drawn.item, alone=not kind.uses_base)
        begin = perf_counter()
        coder = pieces.fitted(codec, pair, level)
        side = coder.side
        share = sum(drawn.stands.values()) / pair.spec.nbytes
        size = (_FRAME + len(side)) * share if side else 0.0
        seconds = (perf_counter() - begin) * share
        for index, stands in drawn.stands.items():
            begin = perf_counter()
            target = pair.target(index)
            body = coder.encode_chunk(index, target, pair.base(index) if kind.uses_base else None)
            seconds += (perf_counter() - begin) * stands / target.nbytes
            size += len(body) * stands / target.nbytes
            progress.advance(target.nbytes)
        return size, seconds


def _size(item: Item, index: int) -> int:
    return min(CHUNK, item.spec.nbytes - index * CHUNK)


def _draw(items: Sequence[Item]) -> list[_Drawn]:
    """Draw chunks of each kind of tensor, as many as its bytes are of all, or all chunks where those are few."""
    total = sum(item.spec.nbytes for item in items)
    kinds: dict[object, list[Item]] = defaultdict(list)
    for item in items:
        kinds[item.base is None, item.spec.dtype].append(item)
    drawn: list[_Drawn] = []
    for alike in kinds.values():
        nbytes = sum(item.spec.nbytes for item in alike)
        count = ceil(CHUNKS * nbytes / total) if nbytes else 0
        drawn += _some(alike, nbytes, count) if nbytes > count * CHUNK else _all(alike)
    return drawn


def _all(items: Sequence[Item]) -> Iterator[_Drawn]:
    for item in items:
        if item.spec.nbytes:
            yield _Drawn(item, {at: _size(item, at) for at in range(ceil(item.spec.nbytes / CHUNK))})


def _some(items: Sequence[Item], nbytes: int, count: int) -> Iterator[_Drawn]:
    """Draw one chunk from each of ``count`` equal shares of the bytes."""
    ends = list(accumulate(item.spec.nbytes for item in items))
    step = nbytes / count
    points = (np.arange(count) + np.random.Generator(np.random.PCG64(0)).random(count)) * step
    found: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for point in points.astype(np.int64).tolist():
        at = bisect_right(ends, point)
        found[at][(point - ends[at] + items[at].spec.nbytes) // CHUNK] += step
    return (_Drawn(items[at], dict(stands)) for at, stands in found.items())
