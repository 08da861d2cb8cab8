"""From what a user calls a revision to the id of its commit."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from weightvc.history import process
from weightvc.history.process import GitFailed
from weightvc.util.errors import NotFound
from weightvc.util.text import printable

_FULL_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_FROM = re.compile(r"[^~^:]+(?:~[0-9]{0,9}|\^[0-9]{0,9})+", re.ASCII)
_STEP = re.compile(r"([~^])([0-9]*)", re.ASCII)
"""How a revision is named by one that comes from it."""


def resolve(work_tree: Path, rev: str) -> str:
    """Return the full id of the commit that ``rev`` names.

    Raises:
        NotFound: ``rev`` names no commit, or starts with ``-`` or ``^``.
    """
    return _asked_once(work_tree, rev) if _FULL_ID.fullmatch(rev) else _ask(work_tree, rev)


def passed(work_tree: Path, rev: str) -> Iterator[list[str]]:
    """Return the commits on the way to one that is named by another, as by ``HEAD~2^2``: git believes what these say.

    Raises:
        NotFound: one of the steps leads nowhere.
        Corrupt: git itself finds one damaged.
    """
    for step in _STEP.finditer(rev) if _FROM.fullmatch(rev) else ():
        start = _ask(work_tree, rev[: step.start()])
        far = int(step[2] or 1) if step[1] == "~" else 1
        walk = ("--first-parent", f"--max-count={far}", start)
        yield process.run(work_tree, "rev-list", *walk, strict=True).decode().split()


def _ask(work_tree: Path, rev: str) -> str:
    if rev and not rev.startswith(("-", "^")) and "\0" not in rev:
        try:
            return process.line(work_tree, "rev-parse", "--verify", "--end-of-options", f"{rev}^{{commit}}")
        except GitFailed:
            pass
    raise NotFound(f"no revision {printable(rev)!r}", "`git log --all --oneline` shows the revisions")


@lru_cache(maxsize=1024)
def _asked_once(work_tree: Path, rev: str) -> str:
    """Ask git once about a full id: what it names never changes, and every process costs milliseconds."""
    return _ask(work_tree, rev)
