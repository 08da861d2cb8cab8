"""The files of wvc in git's trees, one directory at a time.

git lists a tree with all that is below it. A few kilobytes of trees, each with many entries that are the next one, are
billions of files then; so only the directories that are asked for are looked into.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from weightvc.history import contents, process
from weightvc.history.contents import Content

DIRECTORIES = (".wvc", ".wvc/tasks", ".wvc/recipes", ".wvc/removals")
"""Where wvc keeps files."""

_TREE, _SUBMODULE = b"40000", b"160000"


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


def blobs(work_tree: Path, objects: Path, roots: Iterable[str], paths: Collection[str]) -> dict[str, set[str]]:
    """Return path → the ids of all files at ``paths``, and of those in them that are directories, over many trees.

    Args:
        work_tree: The work tree of the repository.
        objects: Where its loose objects are.
        roots: Ids of trees or commits.
        paths: Files, and directories that are looked into, but not into what is below them.

    Raises:
        Corrupt: a tree on the way is damaged.
        Missing: git does not have one, as in a partial clone.
    """
    ways = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."} | {""}
    found: dict[str, set[str]] = defaultdict(set)
    trees: dict[str, set[str]] = {"": {f"{root}^{{tree}}" for root in roots}}
    while trees:
        below: dict[str, set[str]] = defaultdict(set)
        for directory, ids in trees.items():
            for mode, name, oid in _entries(work_tree, objects, ids):
                path = f"{directory}/{name}" if directory else name
                if mode == _TREE and (path in ways or path in paths):
                    below[path].add(oid)
                elif mode not in (_TREE, _SUBMODULE) and (path in paths or directory in paths):
                    found[path].add(oid)
        trees = below
    return found


def present(work_tree: Path, tips: Iterable[str], path: str) -> set[str]:
    """Return the ids of what revisions have at a path."""
    found: Mapping[str, int] = dict(filter(None, contents.sizes(work_tree, [f"{tip}:{path}" for tip in tips])))
    return set(found)


def _entries(work_tree: Path, objects: Path, ids: Collection[str]) -> Iterator[tuple[bytes, str, str]]:
    """Return mode, name and id of every entry of some trees."""
    names = sorted(ids)
    for name, tree in zip(names, contents.checked(work_tree, objects, names), strict=True):
        if tree is None:
            raise process.missing(name)
        yield from _parsed(tree)


def _parsed(tree: Content) -> Iterator[tuple[bytes, str, str]]:
    """Parse a tree: `MODE NAME`, a null byte and the id's own bytes for each entry."""
    size, start = len(tree.id) // 2, 0
    while start < len(tree.data):
        end = tree.data.index(b"\0", start)
        mode, _, name = tree.data[start:end].partition(b" ")
        start = end + 1 + size
        yield mode, os.fsdecode(name), tree.data[end + 1 : start].hex()
