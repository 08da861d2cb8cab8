"""Making a commit of wvc's own tracked files, durably and without touching anything else.

git never syncs directories, and ``git mktree`` and GitPython's own commits are not synced at all, so that a power
cut after they had returned lost commits. The order here lost none: objects, their directories, the ref, its
directories. ``docs/format/history.md`` tells what every interruption leaves.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from weightvc.history import branch, process, refresh
from weightvc.history.git import GitDir
from weightvc.history.operation import under_way
from weightvc.history.process import GitFailed
from weightvc.util import fsio
from weightvc.util.errors import Conflict, RequestError, UsageError
from weightvc.util.text import encodable

PATIENCE = 10.0
"""Seconds for which a commit is tried again while other git processes keep moving the branch."""

_LOOSE = "HEAD is detached, so that no branch has the commit"

Plan = Callable[[str | None], Mapping[str, bytes | None]]
"""From the commit at ``HEAD`` (``None`` before the first) to the changes: path → new bytes, ``None`` to delete."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that is made and durable.

    Args:
        commit: Its full id.
        warnings: Sentences for the user about what could not be done afterwards; normally none.
    """

    commit: str
    warnings: tuple[str, ...] = ()


def commit(git: GitDir, plan: Plan, message: str) -> Committed:
    """Commit the changes that ``plan`` gives on top of ``HEAD``, and nothing else.

    Neither the user's staged changes nor hooks, filters or signing have a part in it. Afterwards exactly the
    changed paths are brought up to date in the user's index and work tree, overwriting what is there: the files
    are wvc's own.

    Args:
        git: The repository.
        plan: A pure function of the commit at ``HEAD``; called again when another process moved the branch.
        message: The commit message.

    Raises:
        RequestError: there is nothing to commit, or git does not know who commits.
        Conflict: a merge, rebase or the like is under way; a symbolic link stands where a directory of ours
            should be; or other processes kept moving or locking the branch for :data:`PATIENCE` seconds.
        UsageError: the message is empty.
        OSError: the disk is full or failing. The commit then may or may not be in the history, but never in part.
    """
    _refuse(git, message)
    deadline = time.monotonic() + PATIENCE
    while True:
        with refresh.refs_locked(git):
            done = _attempt(git, plan, message)
        if isinstance(done, Committed):
            return done
        if time.monotonic() > deadline:
            raise Conflict(
                f"other git processes kept the branch from moving for {PATIENCE:g} s: {done}",
                "try again; if a lock file is named and no git process runs, remove that file",
            )
        time.sleep((10 + secrets.randbelow(90)) / 1000)


def _refuse(git: GitDir, message: str) -> None:
    if doing := under_way(git):
        raise Conflict(
            f"a git {doing} is under way in {git.work_tree}",
            f"finish it with `git {doing} --continue` or undo it with `git {doing} --abort`, then try again",
        )
    if not message.strip() or "\0" in message:
        raise UsageError("a commit needs a message", "give one with -m")
    encodable(message, "the message")
    try:
        for role in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
            process.run(git.work_tree, "var", role)
    except GitFailed:
        raise RequestError(
            "git does not know who you are",
            'run `git config --global user.name "Your Name"` and `git config --global user.email you@example.com`',
        ) from None


def _attempt(git: GitDir, plan: Plan, message: str) -> Committed | str:
    """Try once, under the lock; return what git said if the branch was moved or locked by somebody else."""
    behind = refresh.behind(git)
    earlier = "nothing was committed now: an earlier commit is made"
    if behind and (left := refresh.settle(git, behind, refresh.INDEX_PATIENCE, done=earlier)):
        raise Conflict(left[0], "end the git command that holds the index, then try again")
    scratch = refresh.scratch(git)
    fsio.remove_tree(scratch)
    tip = git.head()
    changes = plan(tip)
    for path in changes:
        refresh.target(git, path)
    fsio.make_dirs(scratch)
    try:
        made = _build(git, tip, changes, message, scratch / "index")
        _sync_objects(git, made, tip)
        refresh.note(git, made, changes)
        subject = message.strip().splitlines()[0]
        process.run(git.work_tree, "update-ref", "-m", f"wvc: {subject}", "HEAD", made, tip or "0" * len(made))
    except GitFailed as error:
        if git.head() == tip and "File exists" not in error.stderr:  # neither moved nor locked by somebody else
            raise
        return str(error)
    finally:
        for name in ("index", "index.lock"):
            fsio.remove_file(scratch / name)
    _sync_refs(git)
    loose = () if branch.current(git) else (f"{_LOOSE}: `git switch -c NAME` makes one that has it",)
    stale = refresh.Stale(tuple(changes), tuple(changes))
    return Committed(made, (*refresh.settle(git, stale, refresh.INDEX_PATIENCE), *loose))


def _build(git: GitDir, tip: str | None, changes: Mapping[str, bytes | None], message: str, index: Path) -> str:
    """Write the commit's objects through a private index and return the commit's id."""

    def ask(*arguments: str, stdin: bytes = b"") -> str:
        return process.line(git.work_tree, *arguments, stdin=stdin, index=index)

    blobs = {
        path: None if data is None else ask("hash-object", "-w", "--stdin", "--no-filters", stdin=data)
        for path, data in changes.items()
    }
    before = ask("rev-parse", "--verify", f"{tip}^{{tree}}") if tip else ask("hash-object", "-t", "tree", "--stdin")
    ask("read-tree", tip or "--empty")
    ask("update-index", "-z", "--index-info", stdin=refresh.index_lines(blobs, len(before)))
    tree = ask("write-tree", "--missing-ok")  # in a partial clone the other files may be absent
    if tree == before:
        raise RequestError("nothing to commit", "`wvc add` stages a task")
    parent = ["-p", tip] if tip else []
    return ask("commit-tree", "--no-gpg-sign", tree, *parent, "-F", "-", stdin=f"{message.strip()}\n".encode())


def _sync_objects(git: GitDir, made: str, tip: str | None) -> None:
    """Sync all objects that ``made`` adds to ``tip``: git may have found one there that nobody ever synced."""
    listed = process.line(
        git.work_tree, "rev-list", "--objects", "--no-object-names", made, *([f"^{tip}"] if tip else [])
    )
    objects = git.common_dir / "objects"
    files = [objects / name[:2] / name[2:] for name in listed.split("\n")]
    loose = [file for file in files if fsio.is_regular(file)]
    for file in loose:
        fsio.sync_file(file)
    for directory in sorted({file.parent for file in loose}):
        fsio.sync_dir(directory)
    fsio.sync_dir(objects)


def _sync_refs(git: GitDir) -> None:
    """Sync the branch, or a detached ``HEAD``, and every directory up to the git directory."""
    try:
        ref = process.line(git.work_tree, "symbolic-ref", "--quiet", "HEAD")
    except GitFailed:
        ref = "HEAD"
    file = (git.git_dir if ref == "HEAD" else git.common_dir) / ref
    if fsio.is_regular(file):  # not in a reftable
        fsio.sync_file(file)
    tables = git.common_dir / "reftable"
    above = [parent for parent in file.parents if parent.is_relative_to(git.common_dir)]
    for directory in dict.fromkeys([tables, *above, git.git_dir, git.common_dir]):
        if directory.is_dir():
            fsio.sync_dir(directory)
