"""What refers to objects: every manifest that git could still give back, or that is staged in some worktree."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from weightvc.history import integrity, remembered
from weightvc.history.files import blobs as in_trees
from weightvc.history.git import GitDir
from weightvc.objects.ids import ObjectId
from weightvc.objects.manifest import Manifest
from weightvc.repo import stage
from weightvc.repo.repository import BASE, RECIPES, REMOVALS, TRACKED, Handle
from weightvc.util.errors import Corrupt, Missing, Unsupported, WeightvcError
from weightvc.util.reading import read_file
from weightvc.util.text import printable

_TASKS = f"{TRACKED}/tasks"
_PATHS = (BASE, _TASKS)
_DIRECTORIES = (TRACKED, _TASKS, RECIPES, REMOVALS)
_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class Unreadable:
    """A file that should be a manifest, what is wrong with it, and git's id of it if that has it."""

    path: str
    data: bytes
    error: WeightvcError
    blob: str = ""


@dataclass
class Found:
    """The manifests, those that are ``staged`` among them, and the files that cannot be read."""

    manifests: list[Manifest] = field(default_factory=list)
    staged: list[Manifest] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def take(self, where: str, data: bytes, blob: str, *, is_staged: bool = False) -> None:
        """Parse one more file; raise :class:`Unsupported` if it is in a newer format."""
        try:
            manifest = Manifest.from_bytes(data, where)
            self.manifests.append(manifest)
            self.staged += [manifest] if is_staged else []
        except Unsupported:
            raise
        except WeightvcError as error:
            self.unreadable.append(Unreadable(where, data, error, blob))

    def objects(self) -> set[ObjectId]:
        """Return the ids of all objects that these refer to, or may: unreadable ones count for every id in their text.

        Such a file is that of a merge with its conflict markers, say, in a commit that another one mended.
        """
        known = {oid for manifest in self.manifests for oid in manifest.objects()}
        return known | {ObjectId(text.decode()) for one in self.unreadable for text in _ID.findall(one.data)}


def manifests(repo: Handle, *, reflogs: bool = False, checked: bool = False) -> Found:
    """Return every version of every manifest: of all refs and worktrees, in git's indexes, and staged.

    Args:
        repo: The repository.
        reflogs: Also what branches were before they were moved, and whatever else git remembers; and the files of all
            work trees, whether git knows them or not.
        checked: Compare all of history with its ids first, so that no damage there can hide a manifest.

    Raises:
        Corrupt: a commit, tree or file of git's is damaged.
        Unsupported: one is in a newer format, so that nobody here can tell what it refers to.
        Missing: git does not have a file's contents, as in a partial clone.
    """
    found = Found()
    for where, data, is_staged, blob in _files(repo, reflogs, checked):
        found.take(where, data, blob, is_staged=is_staged)
    return found


def of_history(repo: Handle, tips: Sequence[str]) -> Found:
    """Return every version of every manifest in the history of some commits.

    Args:
        repo: The repository.
        tips: Full ids.

    Raises:
        Corrupt, Missing, Unsupported: see :func:`manifests`.
    """
    found = Found()
    for path, blobs in sorted(repo.git.all_blobs(_PATHS, tips=tips).items()) if tips else ():
        for blob, data in repo.git.read_blobs(sorted(blobs)).items():
            found.take(path, data, blob)
    return found


def _files(repo: Handle, reflogs: bool, checked: bool) -> Iterator[tuple[str, bytes, bool, str]]:
    """Return the path and the contents of every manifest, whether it is staged, and git's id of it, if any."""
    for path, blobs in sorted(_blobs(repo.git, reflogs, checked).items()):
        try:
            read = repo.git.read_blobs(sorted(blobs))
        except (Corrupt, Missing) as error:
            raise type(error)(f"{printable(path)}: {error.what}", error.hint) from None
        for blob, data in read.items():
            yield path, data, False, blob
    for tree in repo.git.trees():
        for path, new in staged(repo, tree).items():
            if new and path.startswith(_TASKS):
                yield f"staged {path}", new, True, ""
    for top in remembered.work_trees(repo.git) if reflogs else ():
        for file in (top / BASE, *sorted((top / _TASKS).glob("*.json"))):
            with suppress(FileNotFoundError, NotADirectoryError, Corrupt):
                yield str(file), read_file(file, ""), False, ""


def _blobs(git: GitDir, reflogs: bool, checked: bool) -> dict[str, set[str]]:
    """Return path → the ids of all contents that git has of it."""
    commits, trees = remembered.objects(git) if reflogs else ([], [])
    if checked:
        integrity.check(git, _DIRECTORIES, reflogs=reflogs, also=commits, trees=trees)
    seen: dict[str, set[str]] = defaultdict(set)
    for path, blobs in git.all_blobs(_PATHS, reflogs=reflogs, also=commits).items():
        seen[path] |= blobs
    for path, blobs in in_trees(git.work_tree, git.common_dir / "objects", trees, _PATHS).items():
        seen[path] |= blobs
    for linked in git.trees():
        for undo in (False, True) if reflogs else (False,):
            for path, blobs in linked.indexed(_PATHS, undo=undo).items():
                seen[path] |= blobs
    return seen


def staged(repo: Handle, tree: GitDir) -> dict[str, bytes | None]:
    """Return what is staged in one of the repository's worktrees."""
    return stage.changes(replace(repo, git=tree))
