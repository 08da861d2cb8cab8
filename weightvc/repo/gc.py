"""Gc: delete the objects that nothing refers to, once they are old enough."""

import time
from contextlib import nullcontext
from dataclasses import dataclass

from weightvc.history import remembered
from weightvc.objects.ids import ObjectId
from weightvc.repo import guard, reach
from weightvc.repo.repository import Handle
from weightvc.repo.state import load
from weightvc.util import fsio, scratch
from weightvc.util.errors import Corrupt, Missing, RequestError, UsageError
from weightvc.util.progress import SILENT, Progress

GRACE_DAYS = 14
"""As long as git keeps what nothing refers to: whoever is at work elsewhere may still be about to."""

_DAY = 24 * 60 * 60 * 10**9


@dataclass(frozen=True)
class Garbage:
    """An object that nothing refers to; ``young`` if it is kept for now."""

    id: ObjectId
    bytes: int
    young: bool


@dataclass(frozen=True)
class Collected:
    """What gc did, or, for a dry run, would do.

    ``removed`` and ``removed_bytes`` count the objects that were deleted, ``young`` and ``young_bytes`` those that are
    kept because they are younger than ``grace_days``, ``used`` those in the store that something refers to. ``objects``
    are the former two, by id.
    """

    removed: int
    removed_bytes: int
    young: int
    young_bytes: int
    used: int
    grace_days: float
    objects: tuple[Garbage, ...]


@dataclass(frozen=True)
class Options:
    """Objects put within the last ``grace_days`` are kept."""

    grace_days: float = GRACE_DAYS
    dry_run: bool = False


def gc(repo: Handle, options: Options, progress: Progress = SILENT) -> Collected:
    """Delete the objects that no manifest refers to, and what killed commands left in the scratch directory.

    A manifest counts if a ref, a reflog, a worktree, git's index or a stage still holds it; one that cannot be read
    counts for all ids that its text has. Ages are told by the clock of the store's own file system.

    Raises:
        Conflict: another command uses the store.
        Corrupt: something of git's history is damaged, so that nobody can tell what it refers to.
        NotARepository: HEAD has no `.wvc`.
        RequestError: the clone does not have all of history, or the files of its main work tree cannot be found.
        Unsupported: a manifest is in a newer format.
        UsageError: the grace period is negative.
    """
    if not options.grace_days >= 0:
        raise UsageError(f"a grace period of {options.grace_days:g} days", "give 0 or more")
    with nullcontext() if options.dry_run else guard.alone(repo):
        load(repo)  # before its first commit, a repository may be about to get its base
        used = _used(repo)
        held = len(used.intersection(repo.store.ids()))
        garbage = _garbage(repo, used, options.grace_days)
        if not options.dry_run:
            _delete(repo, [one for one in garbage if not one.young], progress)
            scratch.sweep_files(repo.tmp)
    old, young = ([one for one in garbage if one.young is is_young] for is_young in (False, True))
    counts = (len(old), sum(one.bytes for one in old), len(young), sum(one.bytes for one in young))
    return Collected(*counts, held, options.grace_days, tuple(garbage))


def _used(repo: Handle) -> set[ObjectId]:
    """Return the ids of all objects that something refers to."""
    if repo.git.is_shallow():
        raise RequestError(
            "this clone has only the end of history, and objects may belong to what is cut off",
            "run `git fetch --unshallow` first",
        )
    remembered.refuse_hidden(repo.git)
    return reach.manifests(repo, reflogs=True, checked=True).objects()


def _garbage(repo: Handle, used: set[ObjectId], grace_days: float) -> list[Garbage]:
    since = _now(repo) - grace_days * _DAY
    found = []
    for oid in sorted(repo.store.ids()):
        if oid in used:
            continue
        try:
            found.append(Garbage(oid, repo.store.size(oid) or 0, repo.store.changed(oid) > since))
        except (Missing, Corrupt):  # no object, but something that has its name: that is for fsck
            continue
    return found


def _now(repo: Handle) -> int:
    """Return the time in nanoseconds by the clock of the store's file system, which may be another machine's."""
    try:
        fsio.ops.utime(repo.lock)
        return repo.lock.stat().st_mtime_ns
    except OSError:  # a dry run where nothing can be written
        return time.time_ns()


def _delete(repo: Handle, garbage: list[Garbage], progress: Progress) -> None:
    with progress.stage("Deleting", sum(one.bytes for one in garbage)):
        for one in garbage:
            repo.store.delete(one.id)
            progress.advance(one.bytes)
    repo.store.sync()
