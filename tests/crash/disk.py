"""What a disk may hold after a power cut, from the files before and the changes that were made since.

The method is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014) and CrashMonkey (Mohan
et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI 2018). What is assumed of the file
system is what ext4 and its like promise, and no more:

- Bytes of a file, and its length, are there for certain after a sync of that file. Before, each write may be there,
  missing or torn, whichever came later or earlier.
- A name (made, linked, renamed, removed) is there, or gone, for certain after a sync of its directory. Before, each
  change may be there or not, whichever came later or earlier. A sync of the file promises nothing about its name.
- A rename is one change: there is no moment at which neither name, or half of one, is there. A sync of either of its
  directories makes it certain.
- Nothing else changes: a sync that returned has done its work, and sectors do not rot.

All subsets of the uncertain changes would be too many. Of each moment these are taken: none of them; all; all names and
no bytes, as files of no length or of zeros; each one missing alone; and the last write torn.
"""

import hashlib
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from recorder import Operation

DIRECTORY = None
"""Stands for a directory where others have bytes."""

Tree = dict[str, bytes | None]
"""What is below a directory: the bytes of each file by its path; a symbolic link is the text ``-> target``."""

ALONE = 12
"""How many changes at most are left out alone at one moment."""

_LINK = b"-> "


def scan(root: Path) -> tuple[Tree, dict[int, str]]:
    """Return what is below a directory, and the path that has each inode."""
    tree: Tree = {}
    inodes = {root.stat().st_ino: "."}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        inodes[path.lstat().st_ino] = name
        if path.is_symlink():
            tree[name] = _LINK + os.fsencode(os.readlink(path))
        else:
            tree[name] = path.read_bytes() if path.is_file() else DIRECTORY
    return tree, inodes


def write(tree: Tree, root: Path) -> None:
    """Write a tree below a new directory."""
    root.mkdir()
    for name, data in sorted(tree.items()):
        if data is DIRECTORY:
            (root / name).mkdir()
        elif data.startswith(_LINK):
            os.symlink(data.removeprefix(_LINK), os.fsencode(root / name))
        else:
            (root / name).write_bytes(data)


def digest(tree: Tree) -> str:
    """Return a digest of a tree."""
    return hashlib.sha256(repr(sorted(tree.items(), key=lambda item: item[0])).encode()).hexdigest()


@dataclass(frozen=True)
class Crash:
    """One thing that the disk may hold.

    ``after`` counts the changes before the cut; ``what`` says which of the uncertain ones are there. ``ended`` tells
    whether the command may have ended by then.
    """

    after: int
    what: str
    tree: Tree
    ended: bool = False

    def __str__(self) -> str:
        return f"after {self.after} changes, {self.what}"


@dataclass(frozen=True)
class _Change:
    """What one operation does to nodes, which are files and directories by number.

    It gives names in directories to nodes, or takes them away (``None``), all at once; or it writes ``data`` at
    ``offset`` of the file ``node``, or cuts that to ``offset`` bytes if there are none (``None``). A sync of one of the
    nodes ``about`` makes it certain. A change that is only a sync has that node in ``synced``.
    """

    about: frozenset[int] = frozenset()
    names: tuple[tuple[int, str, int | None], ...] = ()
    node: int | None = None
    offset: int = 0
    data: bytes | None = None
    synced: int | None = None

    def apply(self, names: dict[int, dict[str, int]], contents: dict[int, bytes]) -> None:
        """Make the change."""
        for directory, name, node in self.names:
            if node is None:
                names[directory].pop(name, None)
            else:
                names[directory][name] = node
        if self.node is not None:
            old, end = contents[self.node], self.offset + len(self.data or b"")
            head = old[: self.offset].ljust(self.offset, b"\0")
            contents[self.node] = head if self.data is None else head + self.data + old[end:]


class Disk:
    """A disk that held ``tree``, all of it certain, and then got ``operations``.

    Args:
        tree: What was there before.
        inodes: The path of each inode of it.
        operations: What was done since.
    """

    def __init__(self, tree: Tree, inodes: dict[int, str], operations: Sequence[Operation]) -> None:
        nodes = {path: node for node, path in enumerate([".", *sorted(tree)])}
        self._contents = {nodes[path]: data for path, data in tree.items() if data is not DIRECTORY}
        self._names: dict[int, dict[str, int]] = {node: {} for p, node in nodes.items() if tree.get(p) is DIRECTORY}
        for path in tree:
            parent, name = os.path.split(path)
            self._names[nodes[parent or "."]][name] = nodes[path]
        self._inodes = {inode: nodes[path] for inode, path in inodes.items()}
        self.operations = operations
        self._changes = self._resolved(operations)
        self._certain = [
            next(
                (k for k in range(i + 1, len(self._changes)) if self._changes[k].synced in change.about),
                len(operations),
            )
            for i, change in enumerate(self._changes)
        ]

    def __len__(self) -> int:
        return len(self._changes)

    def tree(
        self,
        after: int | None = None,
        absent: Collection[int] = (),
        instead: Mapping[int, bytes | None] = MappingProxyType({}),
    ) -> Tree:
        """Return what is there after so many changes (all by default), but for those ``absent``.

        ``instead`` has other bytes for some of the writes.
        """
        names = {node: dict(held) for node, held in self._names.items()}
        contents = dict(self._contents)
        for i, change in enumerate(self._changes[:after]):
            if i not in absent:
                (replace(change, data=instead[i]) if i in instead else change).apply(names, contents)
        return self._walk(names, contents)

    def crashes(self, after: int) -> Iterator[Crash]:
        """Return what may be there when the power goes after so many changes."""
        uncertain = [i for i, change in enumerate(self._changes[:after]) if self._certain[i] >= after and change.about]
        writes = {i: self._changes[i].data for i in uncertain if self._changes[i].node is not None}
        yield Crash(after, "all that is uncertain is missing", self.tree(after, uncertain))
        yield Crash(after, "everything is there", self.tree(after))
        if writes:
            zeros = {i: data and bytes(len(data)) for i, data in writes.items()}
            yield Crash(after, "names without bytes", self.tree(after, writes))
            yield Crash(after, "zeros for bytes", self.tree(after, (), zeros))
            last = max(writes)
            torn = {last: writes[last] and writes[last][: len(writes[last]) // 2]}
            yield Crash(after, "the last write is torn", self.tree(after, (), torn))
        chosen = random.Random(after).sample(uncertain, min(ALONE, len(uncertain)))
        for i in sorted(chosen):
            yield Crash(after, f"{self.operations[i]} is missing", self.tree(after, {i}))

    def _resolved(self, operations: Sequence[Operation]) -> list[_Change]:
        names = {node: dict(held) for node, held in self._names.items()}
        contents: dict[int, bytes] = dict(self._contents)
        changes = []
        for operation in operations:
            change = self._resolve(operation, names)
            assert all(None not in place[:1] for place in change.names), f"no such directory: {operation}"
            assert operation.kind not in "lr" or change.names[-1][2] is not None, f"no such file: {operation}"
            contents |= {node: self._contents[node] for node in self._contents.keys() - contents.keys()}
            names |= {node: {} for node in self._names.keys() - names.keys()}
            change.apply(names, contents)
            changes.append(change)
        return changes

    def _resolve(self, operation: Operation, names: dict[int, dict[str, int]]) -> _Change:
        """Say what an operation does where directories hold ``names``; what it makes becomes a node of this disk."""

        def find(path: str) -> int | None:
            node: int | None = 0
            for name in path.split("/") if path != "." else ():
                node = names.get(node, {}).get(name)
            return node

        def naming(*changed: tuple[str, int | None]) -> _Change:
            places = [(find(os.path.dirname(path) or "."), os.path.basename(path), node) for path, node in changed]
            return _Change(frozenset(place[0] for place in places), tuple(places))

        match operation.kind:
            case "w" | "t":
                node = self._inodes[operation.inode]
                data = operation.data if operation.kind == "w" else None
                return _Change(frozenset({node}), (), node, operation.offset, data)
            case "s":
                return _Change(synced=self._inodes[operation.inode])
            case "c" if find(operation.path) is not None:
                return _Change()
            case "c" | "m" | "y":
                return naming((operation.path, self._new(operation)))
            case "l":
                return naming((operation.other, find(operation.path)))
            case "r":
                return naming((operation.path, None), (operation.other, find(operation.path)))
            case "u" | "d":
                return naming((operation.path, None))
        raise AssertionError(operation)

    def _new(self, operation: Operation) -> int:
        node = self._inodes[operation.inode] = len(self._names) + len(self._contents)
        if operation.kind == "m":
            self._names[node] = {}
        else:
            self._contents[node] = _LINK + os.fsencode(operation.other) if operation.kind == "y" else b""
        return node

    @staticmethod
    def _walk(names: dict[int, dict[str, int]], contents: dict[int, bytes]) -> Tree:
        tree: Tree = {}
        left = [("", 0)]
        while left:
            above, directory = left.pop()
            for name, node in names[directory].items():
                tree[above + name] = DIRECTORY if node in names else contents[node]
                if node in names:
                    left.append((f"{above}{name}/", node))
        return tree


def distinct(disk: Disk, unread: Callable[[str], object] = lambda _: False) -> list[Crash]:
    """Return what ``disk`` may hold at any moment, each tree once, in order.

    Trees that differ only in the bytes of files whose paths are ``unread``, because nothing ever reads them, are one.
    """
    found: dict[str, Crash] = {}
    for after in range(len(disk) + 1):
        for crash in disk.crashes(after):
            key = digest({path: b"" if data and unread(path) else data for path, data in crash.tree.items()})
            first = found.setdefault(key, crash)
            if after == len(disk):
                found[key] = replace(first, ended=True)
    return list(found.values())


def spread(crashes: Sequence[Crash], most: int) -> list[Crash]:
    """Return at most ``most`` of them, evenly spread, and all that there may be when the command has ended."""
    step = max(1, -(-len(crashes) // most))
    return [crash for n, crash in enumerate(crashes) if n % step == 0 or crash.ended]
