"""What git would still give back though no ref or reflog names it.

Where a reset or a fetch came from, what a rebase that has stopped put aside, refs that only one of the work trees sees,
and trees that a tag names. git's own ``prune`` keeps most of this, too.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from weightvc.history import contents, process
from weightvc.history.git import GitDir
from weightvc.history.process import GitFailed
from weightvc.util import canon, fsio
from weightvc.util.errors import Corrupt, RequestError
from weightvc.util.reading import read_file
from weightvc.util.text import printable

_FILES = (
    "*HEAD", "AUTO_MERGE", "BISECT_START", "MERGE_AUTOSTASH", "rebase-merge/*", "rebase-apply/*", "sequencer/*",
    "refs/worktree/**/*", "refs/bisect/**/*", "refs/rewritten/**/*",
)  # fmt: skip
"""Below a work tree's git directory: files whose texts hold ids."""

_LONGEST = 2**26
_KINDS = {b"commit", b"tree"}
_ID = re.compile(rb"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{40})(?![0-9a-f])")
_SHORT = re.compile(rb"^[ \t]*[a-z]+[ \t]+(?:-[a-zA-Z][ \t]+)?([0-9a-f]{4,63})(?![0-9a-f])", re.MULTILINE)
"""A line of a list of commits to be picked, reverted or the like."""

_AT_ONCE = 1024


def objects(git: GitDir) -> tuple[list[str], list[str]]:
    """Return the ids of such commits and of such trees, sorted: those that git has."""
    notes = [text for tree in git.trees() for text in _texts(tree.git_dir)]
    noted = {name for text in notes for name in _ID.findall(text)} | set(_expanded(git, notes))
    refs = process.run(git.work_tree, "for-each-ref", "--format=%(objectname)").split()
    answers = _asked(git, sorted(noted))
    # git says that it lacks what it cannot read, and does not look whether a file is the commit that it stands for.
    sure = {name for name, kind, size in answers if kind in _KINDS or size > canon.MAX_BYTES}
    doubtful = [name.decode() for name in sorted(noted - sure)]
    for _ in contents.checked(git.work_tree, git.common_dir / "objects", doubtful):
        pass
    peeled = _asked(git, [b"%s^{}" % name for name in sorted(noted)])
    tagged = _asked(git, [b"%s^{}" % name for name in sorted(set(refs))])  # whose commits are looked at anyway
    commits = {name for name, kind, _ in peeled if kind == b"commit"}
    trees = {name for name, kind, _ in peeled + tagged if kind == b"tree"}
    return sorted(map(bytes.decode, commits)), sorted(map(bytes.decode, trees))


def _asked(git: GitDir, names: Sequence[bytes]) -> list[tuple[bytes, bytes, int]]:
    """Return id, kind and size of what names stand for; of what git lacks, the name, `missing` and 0."""
    shape = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    asked = b"".join(name + b"\n" for name in names)
    lines = (line.split(b" ") for line in process.run(git.work_tree, "cat-file", shape, stdin=asked).splitlines())
    return [(name, kind, int(size[0]) if size else 0) for name, kind, *size in lines]


def _expanded(git: GitDir, notes: Sequence[bytes]) -> Iterator[bytes]:
    """Return the ids that the short ones in lists of what is still to be done may stand for."""
    short = sorted({name.decode() for text in notes for name in _SHORT.findall(text)})
    for start in range(0, len(short), _AT_ONCE):
        asked = [f"--disambiguate={name}" for name in short[start : start + _AT_ONCE]]
        yield from process.run(git.work_tree, "rev-parse", *asked).split()


def work_trees(git: GitDir) -> list[Path]:
    """Return where the files of the repository's work trees are, as far as git's own notes say."""
    linked = []
    for note in git.common_dir.glob("worktrees/*/gitdir"):
        with suppress(OSError, Corrupt):
            linked.append((note.parent / os.fsdecode(read_file(note, "", _LONGEST).rstrip(b"\n"))).parent)
    return sorted({git.work_tree, *_main(git), *linked})


def refuse_hidden(git: GitDir) -> None:
    """Raise :class:`RequestError` if files of a work tree cannot be looked at.

    Nothing here says where the main one is, or another is away, and locked so that git keeps it.
    """
    for lock in git.common_dir.glob("worktrees/*/locked"):
        with suppress(OSError, Corrupt):
            file = Path(os.fsdecode(read_file(lock.with_name("gitdir"), "", _LONGEST).rstrip(b"\n")))
            if not (lock.parent / file).exists():
                what = f"the work tree {printable(str(file.parent))} is locked, and not there"
                raise RequestError(what, "mount the disk that it is on, or `git worktree unlock` and `prune` it")
    if _setting(git, "--type=bool", "core.bare") != "true" and not _main(git):
        raise RequestError(f"{git.common_dir} does not say where its main work tree is", "run it in that one")


def _main(git: GitDir) -> list[Path]:
    """Return where the files of the main work tree are, if that is known."""
    if git.git_dir == git.common_dir:
        return [git.work_tree]
    if (told := _setting(git, "core.worktree")) is not None:  # of a submodule, say
        return [git.common_dir / told]
    return [git.common_dir.parent] if git.common_dir.name == ".git" else []


def _setting(git: GitDir, *asked: str) -> str | None:
    """Return a setting that the main work tree has; ``None`` if it has not."""
    try:  # named, or `safe.bareRepository` would have git look into no directory without a work tree
        return process.line(git.work_tree, f"--git-dir={git.common_dir}", "config", "--get", *asked)
    except GitFailed:
        return None


def _texts(git_dir: Path) -> Iterator[bytes]:
    for path in (path for pattern in _FILES for path in git_dir.glob(pattern)):
        if fsio.is_regular(path):
            with suppress(FileNotFoundError):
                yield read_file(path, "finish or abort what git has under way", _LONGEST)
