"""Fsck: is everything that history refers to here, and is it what it must be?"""

import errno
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from weightvc.objects.ids import ObjectId
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.recipe import Recipe
from weightvc.objects.removal import Removal
from weightvc.objects.tensors import TensorHasher
from weightvc.repo import reach
from weightvc.repo.decode import SECTIONS, Reader, Section
from weightvc.repo.repository import RECIPES, REMOVALS, Handle
from weightvc.repo.state import load
from weightvc.util import blas, fsio, parallel
from weightvc.util.errors import Corrupt, Missing, NotARepository, Unsupported, WeightvcError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import printable

_TELLING = {*fsio.FAULTS, errno.EACCES, errno.EPERM}
"""Errors that say something of one file, and not of the whole machine."""


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    ``kind`` is ``missing``, ``corrupt``, ``unreadable``, ``manifest``, ``removal``, ``recipe`` or ``history``.

    ``what`` names the object or file, ``costs`` the tasks (or the base) and tensors that need it.
    """

    kind: str
    what: str
    costs: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Restored:
    """An object of which a good copy was found, and where."""

    id: ObjectId
    source: str


@dataclass(frozen=True)
class Checked:
    """The outcome; ``unreferenced`` objects are in the store but no revision or staged task refers to them.

    ``needs`` counts the objects that the base and each task refer to, all their versions together. ``hints`` say what
    can be done about objects that are missing or damaged. :mod:`weightvc.repo.repair` says which it ``restored``, and
    which damaged ones it put into ``quarantined``; or would, in a dry run. ``notes`` tell of files of earlier commits
    that never were manifests, which `HEAD` has no more.
    """

    ok: bool
    full: bool
    manifests: int
    objects: int
    bytes: int
    unreferenced: int
    findings: tuple[Finding, ...]
    needs: Mapping[str, int]
    hints: tuple[str, ...] = ()
    restored: tuple[Restored, ...] = ()
    quarantined: tuple[ObjectId, ...] = ()
    notes: tuple[str, ...] = ()


def fsck(repo: Handle, *, full: bool = False, jobs: int = 1, progress: Progress = SILENT) -> Checked:
    """Check every manifest that a ref, HEAD or the stage holds, and every object that one refers to.

    Objects are checked for presence and size. With ``full`` they are read and compared with their ids, and so is all
    of git's history; and every entry is decoded and compared with the digest that its manifest states.

    Raises:
        NotARepository: HEAD has no `.wvc`.
        Unsupported: something is in a newer format, which says nothing about damage.
    """
    manifests, findings, hints, notes = _manifests(repo, full)
    if not any(finding.kind == "history" for finding in findings):
        findings += [*_records(repo), *_staged_recipes(repo), *_head(repo)]
    findings += _baseless(repo, manifests)
    users: dict[ObjectId, list[tuple[str, Place]]] = defaultdict(list)
    for owner, manifest in manifests:
        for entry in manifest.entries():
            if entry.place is not None:
                users[entry.place.object].append((f"{owner}: {entry.spec.name}", entry.place))

    def job(oid: ObjectId) -> tuple[int, Finding | None]:
        found = _object(repo, oid, users[oid], full)
        progress.advance(found[0])
        return found

    total = sum(sum(manifest.objects().values()) for _, manifest in manifests)
    with blas.one_thread(), progress.stage("Checking objects", total):
        checked = parallel.run(job, sorted(users), jobs)
    found = [finding for _, finding in checked if finding is not None]
    findings += found
    broken = [finding for finding in found if finding.kind != "manifest"]
    if full:
        findings += _decoded(repo, manifests, {finding.what for finding in broken}, jobs, progress)
    extra = sum(oid not in users for oid in repo.store.ids())
    held = sum(size for size, _ in checked)
    needs = Counter(owner for owner, _ in {(owner, oid) for owner, manifest in manifests for oid in manifest.objects()})
    hints += _hints(broken, findings)
    counts = (len(manifests), len(users), held, extra)
    return Checked(not findings, full, *counts, tuple(findings), needs, tuple(hints), notes=tuple(notes))


def _hints(broken: Sequence[Finding], findings: Sequence[Finding]) -> list[str]:
    """Return what can be done about objects that are not here, or not whole, and about manifests."""
    hints = []
    owners = {cost.partition(":")[0] for finding in broken for cost in finding.costs}
    if any(finding.kind != "unreadable" for finding in broken):
        again = "`wvc fetch --all` brings what was pushed; or restore them from another clone, or from the checkpoints"
        hints.append(f"{again}: `wvc fsck --repair --from PATH`")
    if any(finding.kind == "unreadable" for finding in broken):
        hints.append("whoever owns the files that cannot be read can let you: `chmod a+r`")
    if "base" in owners and len(owners) > 1:
        hints.append("name the base's checkpoint, or a clone, first: tasks are encoded against the base")
    paths = {finding.what for finding in findings if finding.kind == "manifest"}
    for found in sorted(paths - {"HEAD"}):
        name, path = printable(found.rpartition("/")[2].removesuffix(".json")), printable(found)
        if path.startswith("staged "):
            hints.append(f"drop the staged version: `wvc unstage {name}`, and add it again")
        elif "HEAD" in paths:  # or an older commit's, which a later one has mended
            good = f"`git log -- {path}` shows the commits that changed it"
            hints.append(
                f"{good}; take it from one that has it whole: `git checkout COMMIT -- {path}`, and `git commit`"
            )
    return hints


def _manifests(repo: Handle, full: bool) -> tuple[list[tuple[str, Manifest]], list[Finding], list[str], list[str]]:
    """Return every manifest with whose it is, those that cannot be read, hints, and notes."""
    try:
        found = reach.manifests(repo, checked=full)
    except (NotARepository, Unsupported):
        raise
    except WeightvcError as error:  # of git or the stage: what is behind it cannot be looked at
        return (
            [],
            [Finding("history", "manifests", (), error.what)],
            [error.hint or "`git fsck` shows what is wrong"],
            [],
        )
    wrong, past = [], []
    for one in found.unreadable:
        if one.blob and _is_past(repo, one):
            what = f"{one.error.what}, in commit {repo.git.first_with(one.path, one.blob)[:12]}"
            past.append(f"{what}; no branch or tag has that any more, and nothing is to be done")
        else:
            wrong.append(Finding("manifest", one.path, (), one.error.what.removeprefix(f"{one.path}: ")))
    return [(manifest.task or "base", manifest) for manifest in found.manifests], wrong, [], past


def _is_past(repo: Handle, one: reach.Unreadable) -> bool:
    """Tell whether no branch, tag or index has such a file, but only a commit before."""
    return one.blob not in repo.git.present(one.path)


def _records(repo: Handle) -> list[Finding]:
    """Return the removal records of any revision that cannot be read, and the recipes that git does not have whole."""
    found = []
    try:
        listed = repo.git.all_blobs((REMOVALS, RECIPES))
    except (Corrupt, Missing) as error:
        return [Finding("history", "records", (), error.what)]
    for path, blobs in listed.items():
        kind = "removal" if path.startswith(REMOVALS) else "recipe"
        try:
            for data in repo.git.read_blobs(sorted(blobs)).values():
                if kind == "removal":  # what an older recipe says matters only to those who ask for it
                    Removal.from_bytes(data, path)
        except Unsupported:
            raise
        except WeightvcError as error:
            found.append(Finding(kind, path, (), error.what))
    return found


def _staged_recipes(repo: Handle) -> list[Finding]:
    """Return the recipes that cannot be read, of those that are staged in any worktree."""
    found = []
    for tree in repo.git.trees():
        for path, data in reach.staged(repo, tree).items():
            if data and path.startswith(RECIPES):
                try:
                    Recipe.from_bytes(data, path)
                except WeightvcError as error:
                    found.append(Finding("recipe", f"staged {path}", (), error.what))
    return found


def _head(repo: Handle) -> list[Finding]:
    try:
        state = load(repo)
    except (NotARepository, Unsupported):
        raise
    except WeightvcError as error:
        return [Finding("manifest", "HEAD", (), error.what)]
    return [Finding("recipe", name, (), wrong) for name, wrong in state.unusable().items()]


def _baseless(repo: Handle, manifests: Sequence[tuple[str, Manifest]]) -> list[Finding]:
    """Return the tasks that are stored as deltas from a base that nothing has, so that they cannot be decoded."""
    bases = {manifest.version for _, manifest in manifests if manifest.task is None}
    if repo.git.is_shallow():
        return []  # the commit that had it may be cut off
    return [
        Finding("manifest", owner, (), f"it needs the base {str(manifest.base)[:12]}, which no commit has")
        for owner, manifest in manifests
        if manifest.base is not None and manifest.base not in bases
    ]


def _object(repo: Handle, oid: ObjectId, users: list[tuple[str, Place]], full: bool) -> tuple[int, Finding | None]:
    """Return an object's size, 0 if there is none, and what is wrong with it."""
    costs = tuple(dict.fromkeys(user for user, _ in users))
    size = 0
    try:
        size = repo.store.size(oid) or 0
        wrong = [(user, place.size) for user, place in users if place.part is None and place.size != size]
        if full or not size or wrong:
            repo.store.verify(oid)
    except Missing:
        return size, Finding("missing", oid, costs, "not in the store")
    except Corrupt as error:
        return size, Finding("corrupt", oid, costs, error.what.removeprefix(f"object {oid}: "))
    except OSError as error:
        if error.errno not in _TELLING:
            raise
        kind = "corrupt" if error.errno in fsio.FAULTS else "unreadable"
        return size, Finding(kind, oid, costs, f"it cannot be read: {error.strerror}")
    if wrong:  # the object is what its id stands for
        user, said = wrong[0]
        return size, Finding("manifest", user, (), f"it gives object {oid} {said} bytes, which has {size}")
    return size, None


def _lost(base: Manifest, broken: Collection[str]) -> set[tuple[Section, str]]:
    """Return the entries of a base whose objects are ``broken``: what is taken from them cannot be decoded either."""
    found = {(section, entry) for section in SECTIONS for entry in getattr(base, section) if entry.place is not None}
    return {(section, entry.spec.name) for section, entry in found if entry.place.object in broken}


def _decoded(
    repo: Handle, manifests: list[tuple[str, Manifest]], broken: set[str], jobs: int, progress: Progress
) -> list[Finding]:
    """Decode every entry once and compare digests; what needs a ``broken`` object has been reported already.

    That is an entry whose own object is broken, or that of the base's tensor that it is taken from.
    """
    bases = {manifest.version: manifest for _, manifest in manifests if manifest.task is None}
    readers = {version: Reader(repo.store, base) for version, base in bases.items()}
    lost = {(version, *at) for version, base in bases.items() for at in _lost(base, broken)}
    work: dict[tuple[str, Entry], tuple[str, Section, Reader]] = {}
    for owner, manifest in manifests:
        version = manifest.base or manifest.version
        for section in SECTIONS if version in readers else ():
            for entry in getattr(manifest, section):
                if (version, section, entry.of) in lost or (entry.place and entry.place.object in broken):
                    continue
                work.setdefault((section + version, entry), (owner, section, readers[version]))

    def job(item: tuple[tuple[str, Entry], tuple[str, Section, Reader]]) -> Finding | None:
        (_, entry), (owner, section, reader) = item
        hasher = TensorHasher(entry.spec.dtype, entry.spec.shape)
        detail = ""
        try:
            decoder = reader.open(entry, section)
            for _, span in decoder.spans():
                hasher.update(span)
        except (WeightvcError, OSError) as error:
            detail = error.what if isinstance(error, WeightvcError) else f"it cannot be read: {error.strerror}"
        progress.advance(entry.spec.nbytes)
        if not detail and hasher.digest() != entry.digest:
            detail = "its bytes do not have the digest that its manifest states"
        what = f"{owner}: {entry.spec.name}"
        return Finding("corrupt", what, (what,), detail) if detail else None

    items = list(work.items())
    with blas.one_thread(), progress.stage("Decoding", sum(item[0][1].spec.nbytes for item in items)):
        return [found for found in parallel.run(job, items, jobs) if found is not None]
