"""Repair: put aside what is damaged, and bring back what is missing from wherever there is a good copy.

Nothing is deleted, and no object is believed before its bytes have its id. Running repair again, also after it was
killed, goes on where it ended.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Self

from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.delta import container
from weightvc.delta.codec import Level
from weightvc.history import git
from weightvc.objects.ids import Digest, ObjectId, is_hex64
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import fsck, pieces, reach, related, snapshot
from weightvc.repo.decode import SECTIONS, Section
from weightvc.repo.fsck import Checked, Restored
from weightvc.repo.guard import guarded
from weightvc.repo.refetch import refetch
from weightvc.repo.repository import TRACKED, Handle, handle
from weightvc.repo.snapshot import Snapshot
from weightvc.repo.twin import adopt, twin
from weightvc.store.local import LocalStore
from weightvc.util.errors import Corrupt, Missing, NotARepository, WeightvcError
from weightvc.util.progress import SILENT, Progress

LEVELS: tuple[Level, ...] = ("default", "fast", "best")

Copy = tuple[ObjectId, memoryview]


@guarded
def repair(
    repo: Handle, sources: Sequence[Path], *, dry_run: bool = False, jobs: int = 1, progress: Progress = SILENT
) -> Checked:
    """Check all objects as a full :func:`weightvc.repo.fsck.fsck` does, mend what can be mended, and check again.

    Args:
        repo: The repository.
        sources: Repositories or folders of objects, which are copied from; or checkpoints of the base or of a task,
            which are encoded again, in every way in which they may have been stored. The first to have an object gives
            it; what none has, the remotes are asked for.
        dry_run: Find the good copies, and change nothing. What needs the base is not looked for while that is damaged.
        jobs: Number of threads.
        progress: Told of bytes done.

    Raises:
        BadInput: a source is neither a store nor a checkpoint.
    """
    before = fsck.fsck(repo, full=True, jobs=jobs, progress=progress)
    broken = {ObjectId(found.what): found.kind for found in before.findings if is_hex64(found.what)}
    for path in sources:
        _refuse(path)
    aside = [oid for oid, kind in broken.items() if kind == "corrupt"]
    if not dry_run:
        aside = [oid for oid in aside if repo.store.put_aside(oid, repo.local / "quarantine")]
    restored: dict[ObjectId, str] = {}
    for path in (*sources, *sources[:-1]):  # twice: a task's may need what a later source has of the base
        for oid, data in _copies(repo, path, broken.keys() - restored.keys(), jobs, progress):
            restored.setdefault(oid, str(path))
            if not dry_run:
                repo.store.put([data])
    left = broken.keys() - restored.keys()
    fetched, wrong = refetch(repo, left, dry_run=dry_run, jobs=jobs, progress=progress)
    restored |= fetched
    repo.store.sync()
    after = before if dry_run else fsck.fsck(repo, full=True, jobs=jobs, progress=progress)
    lines = tuple(Restored(oid, path) for oid, path in restored.items())
    useless = [str(path) for path in sources if str(path) not in restored.values()] if broken else []
    told = after.hints
    if dry_run and restored.keys() >= broken.keys() != set():
        told = ("nothing was changed: run it with --repair, and without --dry-run",)
    hints = (*(f"{path} has nothing that is missing here" for path in useless), *wrong, *told)
    return replace(after, restored=lines, quarantined=tuple(aside), hints=hints)


def _copies(repo: Handle, path: Path, wanted: Collection[ObjectId], jobs: int, progress: Progress) -> Iterator[Copy]:
    """Return the good copies that a source has of objects; each is there until the next one is asked for."""
    if not wanted:
        return
    store = _store(path)
    if store is None:
        with open_checkpoint(path) as checkpoint:
            yield from _Again(repo, checkpoint, jobs, progress).encoded(set(wanted))
        return
    for oid in sorted(wanted):
        try:
            store.verify(oid)
            data = store.open(oid)
        except (Missing, Corrupt, OSError):  # a bad sector, say: the next object may be whole
            continue
        yield oid, data


def _refuse(path: Path) -> None:
    """Refuse a source that is neither a store nor a checkpoint, before anything is done."""
    if _store(path) is None:
        with open_checkpoint(path):
            pass


def _store(path: Path) -> LocalStore | None:
    """Return the store of a repository, or that of a folder of objects; ``None`` if the path is neither."""
    with suppress(NotARepository):
        found = git.locate(path) if (path / ".git").exists() else None
        store = None if found is None else handle(found).store
        if store is not None and ((path / TRACKED).is_dir() or next(store.ids(), None)):
            return store  # and not what a hub keeps in git: a checkpoint
    for folder in (path, path / "objects"):  # of objects, or of what is pushed to
        here = LocalStore(folder, folder)
        if folder.is_dir() and next(here.ids(), None):
            return here
    return None


@dataclass(frozen=True)
class _Again:
    """A checkpoint to encode again."""

    repo: Handle
    checkpoint: Checkpoint
    jobs: int
    progress: Progress

    def encoded(self, wanted: set[ObjectId]) -> Iterator[Copy]:
        """Encode it as each damaged version of the base or a task may have been; the base comes first."""
        found = reach.manifests(self.repo)
        bases = {manifest.version: manifest for manifest in found.manifests if manifest.task is None}
        for manifest in sorted(found.manifests, key=lambda manifest: manifest.task or ""):
            lost = [entry for entry in manifest.entries() if entry.place and entry.place.object in wanted]
            if not any(map(self._may_have, lost)):  # reading it takes a part of the time of encoding it
                continue
            base = bases.get(manifest.base) if manifest.base else None
            parts = _Parts.of(manifest, wanted)
            for codec, level in product(sorted(_codecs(lost)), LEVELS):
                # A base that is damaged itself, or a checkpoint that is nothing like it, leads nowhere.
                with suppress(WeightvcError), twin(self.repo) as made:
                    taken = self._take(made, base, snapshot.Options(codec, level, self.jobs, allow_nonfinite=True))
                    parts.gather(made.store, taken)
                    for oid in wanted.intersection(made.store.ids()):
                        wanted.discard(oid)
                        yield oid, made.store.open(oid)
                if wanted.isdisjoint(manifest.objects()):
                    break
            with twin(self.repo) as made:
                for oid in wanted.intersection(parts.join(made.store)):
                    wanted.discard(oid)
                    yield oid, made.store.open(oid)

    def _may_have(self, entry: Entry) -> bool:
        """Tell whether an entry may have been stored from here: whether the checkpoint has these very bytes.

        Of what was stored lossily, others come back, so that only its kind can be compared.
        """
        name, found = entry.spec.name, self.checkpoint
        if name in found.tensors:
            data = found.read(name)
        elif name in found.extras:
            data = found.extra(name)  # noqa: S610 -- a file of the directory, no database
        elif name in found.headers:
            data = memoryview(found.headers[name])
        else:
            return False
        if data.nbytes != entry.spec.nbytes:
            return False
        return entry.lossy is not None or entry.digest == tensor_digest(entry.spec.dtype, entry.spec.shape, data)

    def _take(self, made: Handle, base: Manifest | None, options: snapshot.Options) -> Snapshot:
        """Store the checkpoint in a scratch store."""
        names: Mapping[str, str] = {}
        if base is not None:
            adopt(made, self.repo, [base])
            names = related.match(self.repo, self.checkpoint.path, self.checkpoint, base, force=True)[0].names
        what, progress = self.checkpoint.path.name, self.progress
        return snapshot.take(
            self.checkpoint, made.store, base=base, names=names, options=options, progress=progress, what=what
        )


def _codecs(entries: Sequence[Entry]) -> set[str]:
    """Return the codecs that may have been asked for where entries were stored as they are."""
    return {pieces.chosen(entry) for entry in entries} | {entry.place.codec for entry in entries if entry.place}


@dataclass(frozen=True)
class _Parts:
    """The parts of a manifest's lost bundles: those of a repacked task hold what became smaller, and nothing else.

    Attributes:
        lost: Where they were, and the digests of their tensors, by list and name.
        found: The same encodings, as far as any turned up.
    """

    lost: Mapping[tuple[Section, str], tuple[Place, Digest]]
    found: dict[Place, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, wanted: Collection[ObjectId]) -> Self:
        """Return the parts of those bundles that are wanted, none of them found."""
        places = ((section, entry, entry.place) for section, entry in _listed(manifest))
        return cls({(s, e.spec.name): (at, e.digest) for s, e, at in places if at and at.object in wanted})

    def gather(self, store: LocalStore, taken: Snapshot) -> None:
        """Keep what a store has of the same tensors, if it is by the same codecs and as long."""
        bundles: dict[ObjectId, list[memoryview]] = {}
        for section, entry in _listed(taken):
            want, digest = self.lost.get((section, entry.spec.name), (None, None))
            have = entry.place
            if want is None or have is None or have.part is None or want in self.found:
                continue
            if (have.codec, have.size, entry.digest) == (want.codec, want.size, digest):
                if have.object not in bundles:
                    bundles[have.object] = container.members(store.open(have.object), have.object)
                self.found[want] = bytes(bundles[have.object][have.part])

    def join(self, store: LocalStore) -> set[ObjectId]:
        """Store the bundles that the parts make, and return their ids; that of one that lacks a part is another."""
        bundles: dict[ObjectId, list[bytes]] = {}
        for place in sorted(self.found, key=lambda place: place.part or 0):
            bundles.setdefault(place.object, []).append(self.found[place])
        return {store.put([container.bundle(parts)]).object for parts in bundles.values()}


def _listed(lists: Manifest | Snapshot) -> Iterator[tuple[Section, Entry]]:
    """Return all entries, each with the list that it is in."""
    return ((section, entry) for section in SECTIONS for entry in getattr(lists, section))
