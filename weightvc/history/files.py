"""The files of wvc in git's trees, one directory at a time.

git lists a tree with all that is below it. A few kilobytes of trees, each with many entries that are the next one, are
billions of files then; so only the directories that are asked for are looked into.
"""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from weightvc.history import contents, process
from weightvc.util.errors import Corrupt

DIRECTORIES = (".wvc", ".wvc/tasks", ".wvc/recipes", ".wvc/removals")
"""Where wvc keeps files."""

_FILES = {stat.S_IFREG, stat.S_IFLNK}
"""Kinds that git takes for files; all else that is no directory is a submodule to it, however its mode is written."""

_ENTRY = rb"([0-7]{1,7}) ([^\0]+)\0([\0-\xff]{%d})"
_TREES = {
    digits: (re.compile(b"(?:%s)*+" % (_ENTRY % (digits // 2))), re.compile(_ENTRY % (digits // 2)))
    for digits in (40, 64)
}
"""A tree and an entry of one: a mode, a name and the id's own bytes, in a repository with ids of so many digits."""


def listing(work_tree: Path, commit: str, prefix: str) -> dict[str, dict[str, str]]:
    """Return kind → path → id of what a commit has in :data:`DIRECTORIES`, or at another path, and on the way there."""
    where = [f"{directory}/" for directory in DIRECTORIES] if prefix == ".wvc/" else [prefix]
    listed = process.run(work_tree, "ls-tree", "-t", "-z", "--full-tree", commit, "--", *where)
    found: dict[str, dict[str, str]] = {"blob": {}, "tree": {}, "commit": {}}
    for entry in listed.split(b"\0")[:-1]:
        meta, path = entry.split(b"\t", 1)
        _, kind, oid = meta.decode().split(" ")
        found[kind][os.fsdecode(path)] = oid
    return found


def blobs(work_tree: Path, objects: Path, commits: Sequence[str], paths: Collection[str]) -> dict[str, set[str]]:
    """Return path → the ids of all files at ``paths``, and of those in them that are directories, over many commits.

    Args:
        work_tree: The work tree of the repository.
        objects: Where its loose objects are.
        commits: Ids of commits or trees.
        paths: Files, and directories that are looked into, but not into what is below them.

    Raises:
        Corrupt: a tree on the way is damaged.
        Missing: git does not have one, as in a partial clone.
    """
    ways = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}
    found: dict[str, set[str]] = defaultdict(set)
    trees = _tops(work_tree, commits, {path.partition("/")[0] for path in paths} & {*ways, *paths})
    while trees:
        below: dict[str, set[str]] = defaultdict(set)
        for directory, ids in trees.items():
            for kind, name, oid in _entries(work_tree, objects, ids):
                path = f"{directory}/{name}" if directory else name
                if kind == stat.S_IFDIR and (path in ways or path in paths):
                    below[path].add(oid)
                elif kind in _FILES and (path in paths or directory in paths):
                    found[path].add(oid)
        trees = below
    return found


def _tops(work_tree: Path, commits: Sequence[str], tops: Collection[str]) -> dict[str, set[str]]:
    """Return where to begin: the trees at the top's directories, which git finds quicker than we do in large ones.

    What it does not find there may be a file, or a tree that it lacks: such a commit's own tree is looked into.
    """
    trees: dict[str, set[str]] = defaultdict(set)
    for top in sorted(tops):
        asked = "".join(f"{commit}:{top}\n" for commit in commits).encode()
        lines = process.run(
            work_tree, "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked
        ).splitlines()
        for commit, line in zip(commits, lines, strict=True):
            oid, _, kind = line.decode().rpartition(" ")
            trees[top if kind == "tree" else ""].add(oid if kind == "tree" else f"{commit}^{{tree}}")
    return trees or {"": {f"{commit}^{{tree}}" for commit in commits}}


def present(work_tree: Path, tips: Iterable[str], path: str) -> set[str]:
    """Return the ids of what revisions have at a path."""
    found: Mapping[str, int] = dict(filter(None, contents.sizes(work_tree, [f"{tip}:{path}" for tip in tips])))
    return set(found)


def _entries(work_tree: Path, objects: Path, ids: Collection[str]) -> Iterator[tuple[int, str, str]]:
    """Return what kind of thing, its name and its id, of every entry of some trees, each once."""
    names = sorted(ids)
    seen: set[tuple[bytes, bytes, bytes]] = set()
    for name, tree in zip(names, contents.checked(work_tree, objects, names), strict=True):
        if tree is None:
            raise process.missing(name)
        whole, entry = _TREES[len(tree.id)]
        if tree.kind != "tree" or not whole.fullmatch(tree.data):
            raise Corrupt(f"git's {tree.kind} {tree.id} is no tree", "`git fsck` shows what else is wrong")
        seen.update(entry.findall(tree.data))
    for mode, path, oid in sorted(seen):
        yield stat.S_IFMT(int(mode, 8)), os.fsdecode(path), oid.hex()
