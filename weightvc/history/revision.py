"""From what a user calls a revision to the id of its commit."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from weightvc.history import process
from weightvc.history.process import GitFailed
from weightvc.util.errors import Corrupt, NotFound
from weightvc.util.reading import read_file
from weightvc.util.text import printable

_FULL_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"(?:@\{[^{}]*\}|[^~^:])+", re.ASCII)
_STEP = re.compile(r"~([0-9]*)|\^(?:\{([^{}]*)\}|[0-9]*)", re.ASCII)
"""How a revision is named by one that comes from it: `~n`, `^{/text}` or another `^{...}`, `^n`."""

_FARTHEST = 10**9
SYMBOLIC = b"ref:"
"""What the file of a ref that stands for another one begins with."""

LONGEST = 5
"""How many such refs git follows."""


def resolve(work_tree: Path, rev: str) -> str:
    """Return the full id of the commit that ``rev`` names.

    Raises:
        NotFound: ``rev`` names no commit, or starts with ``-`` or ``^``.
    """
    return _asked_once(work_tree, rev) if _FULL_ID.fullmatch(rev) else _ask(work_tree, rev)


def passed(work_tree: Path, rev: str) -> Iterator[list[str]]:
    """Return the commits on the way to one that is named by another, as by ``HEAD~2^2``: git believes what these say.

    Raises:
        NotFound: one of the steps leads nowhere, or is none.
        Corrupt: git itself finds one damaged.
    """
    name = _NAME.match(rev)
    at = name.end() if name else 0
    while at < len(rev):
        step = _STEP.match(rev, at) if at else None
        if step is None:
            raise _unknown(rev)
        walk = [_ask(work_tree, rev[:at])]
        if not (step[2] or "").startswith("/"):
            far = (step[1] or "1").lstrip("0") if step[1] is not None else "1"
            if len(far) > len(str(_FARTHEST)):
                raise _unknown(rev)
            walk += ["--first-parent", f"--max-count={far or 1}"]
        yield process.run(work_tree, "rev-list", *walk, strict=True).decode().split()
        at = step.end()


def head(work_tree: Path, git_dir: Path, common_dir: Path) -> str | None:
    """Return the full id of the commit at ``HEAD``, or ``None`` on a branch without commits.

    Raises:
        Corrupt: the file of ``HEAD`` or its branch holds no id, or that of a commit that git does not have.
    """
    try:
        return process.line(work_tree, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitFailed as error:
        if error.status != 1:
            raise
    undo = "`git reflog` shows where it was; `git fsck` what else is damaged"
    with suppress(GitFailed):
        found = process.line(work_tree, "rev-parse", "--verify", "--quiet", "HEAD")
        raise Corrupt(f"HEAD names {found}, and git has no such commit, or cannot read it", undo)
    if (file := _last(git_dir, common_dir)) is not None:
        raise Corrupt(f"{printable(str(file))} does not hold the id of a commit", undo)
    return None


def _last(git_dir: Path, common_dir: Path) -> Path | None:
    """Return the file that ``HEAD``, and what it stands for, lead to; ``None`` where there is none yet."""
    file = git_dir / "HEAD"
    for _ in range(LONGEST):
        try:
            if file.is_symlink():
                file = file.parent / os.readlink(file)
            if file.is_dir():  # which git removes when it is empty
                return None
            text = read_file(file, "")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, Corrupt):
            return file
        if not text.startswith(SYMBOLIC):
            return file
        file = common_dir / os.fsdecode(text.removeprefix(SYMBOLIC).strip())
    return file


def _ask(work_tree: Path, rev: str) -> str:
    if rev and not rev.startswith(("-", "^")) and "\0" not in rev:
        try:
            return process.line(work_tree, "rev-parse", "--verify", "--end-of-options", f"{rev}^{{commit}}")
        except GitFailed:
            pass
    raise _unknown(rev)


def _unknown(rev: str) -> NotFound:
    return NotFound(f"no revision {printable(rev)!r}", "`git log --all --oneline` shows the revisions")


@lru_cache(maxsize=1024)
def _asked_once(work_tree: Path, rev: str) -> str:
    """Ask git once about a full id: what it names never changes, and every process costs milliseconds."""
    return _ask(work_tree, rev)
