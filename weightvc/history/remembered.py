"""What git would still give back though no ref or reflog names it.

Where a reset or a fetch came from, what a rebase that has stopped put aside, refs that only one of the work trees sees,
and trees that a tag names. git's own ``prune`` keeps most of this, too.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from weightvc.history import contents, process
from weightvc.history.git import GitDir
from weightvc.util import canon
from weightvc.util.errors import Corrupt
from weightvc.util.reading import read_file

_FILES = (
    "*HEAD", "AUTO_MERGE", "MERGE_AUTOSTASH", "rebase-merge/*", "rebase-apply/*", "sequencer/*",
    "refs/worktree/**/*", "refs/bisect/**/*", "refs/rewritten/**/*",
)  # fmt: skip
"""Below a work tree's git directory: files whose texts hold ids."""

_LONGEST = 2**26
_KINDS = {b"commit", b"tree"}
_ID = re.compile(rb"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{40})(?![0-9a-f])")


def objects(git: GitDir) -> tuple[list[str], list[str]]:
    """Return the ids of such commits and of such trees, sorted: those that git has."""
    noted = {name for tree in git.trees() for name in _named(tree.git_dir)}
    tagged = {b"%s^{}" % name for name in process.run(git.work_tree, "for-each-ref", "--format=%(objectname)").split()}
    asked = b"".join(name + b"\n" for name in sorted(noted | tagged))
    shape = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    answers = [line.split(b" ") for line in process.run(git.work_tree, "cat-file", shape, stdin=asked).splitlines()]
    kinds = {name: kind for name, kind, *_ in answers}
    # git says that it lacks what it cannot read, and does not look whether a file is the commit that it stands for.
    sure = {name for name, kind, *size in answers if kind in _KINDS or (size and int(size[0]) > canon.MAX_BYTES)}
    doubtful = [name.decode() for name in sorted(noted - sure)]
    for _ in contents.checked(git.work_tree, git.common_dir / "objects", doubtful):
        pass
    commits = sorted(name.decode() for name in noted if kinds.get(name) == b"commit")  # refs' own are looked at anyway
    return commits, sorted(name.decode() for name, kind in kinds.items() if kind == b"tree")


def files(git: GitDir, tree: str, paths: Sequence[str]) -> dict[str, str]:
    """Return path → blob id of the files of a tree that are at or below ``paths``."""
    listed = process.run(git.work_tree, "ls-tree", "-r", "-z", "--full-tree", tree, "--", *paths)
    entries = (entry.split(b"\t", 1) for entry in listed.split(b"\0")[:-1])
    return {os.fsdecode(path): meta.decode().split(" ")[2] for meta, path in entries if b" blob " in meta}


def work_trees(git: GitDir) -> list[Path]:
    """Return where the files of the repository's work trees are, as far as git's own notes say."""
    linked = []
    for note in git.common_dir.glob("worktrees/*/gitdir"):
        with suppress(OSError, Corrupt):
            linked.append((note.parent / os.fsdecode(read_file(note, "", _LONGEST).rstrip(b"\n"))).parent)
    main = [git.common_dir.parent] if git.common_dir.name == ".git" else []
    return sorted({git.work_tree, *main, *linked})


def _named(git_dir: Path) -> set[bytes]:
    found = set()
    for path in (path for pattern in _FILES for path in git_dir.glob(pattern)):
        with suppress(OSError):
            found |= set(_ID.findall(read_file(path, f"move {path} away, or make it shorter", _LONGEST)))
    return found
