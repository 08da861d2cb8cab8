"""Repair: put aside what is damaged, and bring back what is missing from wherever there is a good copy.

Nothing is deleted, and no object is believed before its bytes have its id. What a source does not have is left as it
was found; running repair again, also after it was killed, goes on where it ended.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.delta.codec import Level
from weightvc.history import git
from weightvc.objects.ids import ObjectId, is_hex64
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import fsck, pieces, reach, related, snapshot
from weightvc.repo.fsck import Checked, Restored
from weightvc.repo.guard import guarded
from weightvc.repo.repository import Handle, handle
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
            it.
        dry_run: Find the good copies, and change nothing. What needs the base is not looked for while that is damaged.
        jobs: Number of threads.
        progress: Told of bytes done.

    Raises:
        BadInput: a source is neither a store nor a checkpoint.
    """
    before = fsck.fsck(repo, full=True, jobs=jobs, progress=progress)
    broken = {ObjectId(found.what): found.kind for found in before.findings if is_hex64(found.what)}
    aside = [oid for oid, kind in broken.items() if kind == "corrupt"]
    if not dry_run:
        for oid in aside:
            repo.store.put_aside(oid, repo.local / "quarantine")
    restored: dict[ObjectId, str] = {}
    for path in (*sources, *sources[:-1]):  # twice: a task's may need what a later source has of the base
        for oid, data in _copies(repo, path, broken.keys() - restored.keys(), jobs, progress):
            restored.setdefault(oid, str(path))
            if not dry_run:
                repo.store.put([data])
    repo.store.sync()
    after = before if dry_run else fsck.fsck(repo, full=True, jobs=jobs, progress=progress)
    lines = tuple(Restored(oid, path) for oid, path in restored.items())
    useless = [str(path) for path in sources if str(path) not in restored.values()] if broken else []
    told = after.hints
    if dry_run and restored.keys() >= broken.keys() != set():
        told = ("nothing was changed: run it with --repair, and without --dry-run",)
    hints = (*(f"{path} has nothing that is missing here" for path in useless), *told)
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
        with suppress(Missing, Corrupt):
            store.verify(oid)
            yield oid, store.open(oid)


def _store(path: Path) -> LocalStore | None:
    """Return the store of a repository, or that of a folder of objects; ``None`` if the path is neither."""
    with suppress(NotARepository):
        found = git.locate(path) if (path / ".git").exists() else None
        if found is not None:
            return handle(found).store
    here = LocalStore(path, path)
    return here if path.is_dir() and next(here.ids(), None) else None


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
            for codec, level in product(sorted({pieces.chosen(entry) for entry in lost}), LEVELS):
                # A base that is damaged itself, or a checkpoint that is nothing like it, leads nowhere.
                with suppress(WeightvcError), twin(self.repo) as made:
                    self._take(made, base, snapshot.Options(codec, level, self.jobs, allow_nonfinite=True))
                    for oid in wanted.intersection(made.store.ids()):
                        wanted.discard(oid)
                        yield oid, made.store.open(oid)
                if wanted.isdisjoint(manifest.objects()):
                    break

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

    def _take(self, made: Handle, base: Manifest | None, options: snapshot.Options) -> None:
        """Store the checkpoint in a scratch store."""
        names: Mapping[str, str] = {}
        if base is not None:
            adopt(made, self.repo, [base])
            names = related.match(self.repo, self.checkpoint.path, self.checkpoint, base, force=True)[0].names
        what, progress = self.checkpoint.path.name, self.progress
        snapshot.take(
            self.checkpoint, made.store, base=base, names=names, options=options, progress=progress, what=what
        )
