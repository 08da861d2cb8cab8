"""Du: what the base and each task take in the store, alone and together."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from weightvc.objects.ids import ObjectId
from weightvc.objects.manifest import Manifest
from weightvc.repo import loss, reach
from weightvc.repo.repository import Handle
from weightvc.repo.state import load


@dataclass(frozen=True)
class Usage:
    """What one task, or the base, takes. Of versions in earlier commits, other branches and the stage too.

    Args:
        name: The task's, or ``base``.
        state: ``current``; ``staged`` for a task that is not committed; ``past`` for one that HEAD does not have.
        bytes: Of the tensors of its current version, or of the newest one that is found.
        stored_bytes: Of the objects of that version.
        own_bytes: Of the objects that no other task uses, all versions together.
        shared_bytes: Of those that others use as well.
        older_bytes: Of its own objects that only other versions than the current one use.
        versions: How many there are.
        lossy: The codecs of tensors that do not come back as they were added.
    """

    name: str
    state: str
    bytes: int
    stored_bytes: int
    own_bytes: int
    shared_bytes: int
    older_bytes: int
    versions: int
    lossy: tuple[str, ...]


@dataclass(frozen=True)
class Used:
    """All of it, in bytes.

    ``objects_bytes`` is the whole store, and ``unreferenced_bytes`` what `wvc gc` would delete, now or when it is old
    enough. ``cache_bytes`` are kept states of merges, ``scratch_bytes`` what commands at work, or killed, have there.
    ``quarantine_bytes`` are damaged objects that `wvc fsck --repair` put aside.
    """

    usage: tuple[Usage, ...]
    objects: int
    objects_bytes: int
    unreferenced: int
    unreferenced_bytes: int
    cache_bytes: int
    scratch_bytes: int
    quarantine_bytes: int


def du(repo: Handle) -> Used:
    """Say what everything takes on disk.

    Raises:
        NotARepository: HEAD has no `.wvc`.
        Corrupt: a manifest of HEAD cannot be read.
        Unsupported: a manifest is in a newer format.
    """
    state = load(repo)
    found = reach.manifests(repo, reflogs=True)
    named = found.objects()
    sizes = {oid: repo.store.size(oid) or 0 for oid in repo.store.ids()}
    versions: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in found.manifests:
        versions[_owner(manifest)].append(manifest)
    users = Counter(oid for every in versions.values() for oid in _objects(every))
    current = {"base": state.base, **state.tasks}
    staged = {_owner(manifest): manifest for manifest in found.staged}
    usage = []
    for name in sorted(versions, key=lambda name: (name not in current, name != "base", name)):
        shown = current.get(name) or staged.get(name) or versions[name][0]
        kind = "current" if name in current else "staged" if name in staged else "past"
        usage.append(_usage(name, kind, shown, versions[name], sizes, users))
    loose = [size for oid, size in sizes.items() if oid not in named]
    beside = [_tree(repo.local / name) for name in ("cache", "tmp", "quarantine")]
    return Used(tuple(usage), len(sizes), sum(sizes.values()), len(loose), sum(loose), *beside)


def _usage(  # noqa: PLR0917 -- all that is known of one task
    name: str,
    state: str,
    shown: Manifest,
    versions: Sequence[Manifest],
    sizes: Mapping[ObjectId, int],
    users: Mapping[ObjectId, int],
) -> Usage:
    every = _objects(versions)
    own = {oid for oid in every if users[oid] == 1}
    older = own - shown.objects().keys()
    lossy = loss.total(shown)
    return Usage(
        name,
        state,
        shown.nbytes,
        _total(shown.objects(), sizes),
        _total(own, sizes),
        _total(every - own, sizes),
        _total(older, sizes),
        len({manifest.version for manifest in versions}),
        () if lossy is None else lossy.codecs,
    )


def _owner(manifest: Manifest) -> str:
    return manifest.task or "base"


def _objects(manifests: Iterable[Manifest]) -> set[ObjectId]:
    return {oid for manifest in manifests for oid in manifest.objects()}


def _total(oids: Iterable[ObjectId], sizes: Mapping[ObjectId, int]) -> int:
    return sum(sizes.get(oid, 0) for oid in oids)


def _tree(directory: Path) -> int:
    """Return the bytes of all files below a directory; some may go meanwhile."""
    total = 0
    for place, _, files in os.walk(directory):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
