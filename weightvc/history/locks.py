"""Lock files of git's that a power cut left behind a commit of wvc's.

git takes a lock by making a file, so one of a process that died stays, and says nothing of whose it was. After a power
cut nobody holds it: it is older than the last start of the machine. That alone is not enough where another machine
shares the disk, so the note of an interrupted commit has to be there as well, as it is whenever the cut came while wvc
had git move a ref or write the index.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from weightvc.history import process
from weightvc.history.git import GitDir
from weightvc.history.process import GitFailed
from weightvc.util import fsio


def drop_stale(git: GitDir, note: Path) -> None:
    """Remove the locks on the index, ``HEAD`` and its branch that are older than the last start of this machine.

    Args:
        git: The repository; the caller holds the lock of :func:`weightvc.history.refresh.refs_locked`.
        note: What an interrupted commit left. Nothing is removed without it, nor where the system does not say when
            it was started (all but Linux).
    """
    if not note.exists():
        return
    started = _started()
    for lock in _locks(git):
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.lstat(lock).st_mtime < started:
                fsio.remove_file(lock)
                fsio.sync_dir(lock.parent)  # or the next power cut brings it back, and the note is gone by then


def _started() -> float:
    """Return when this machine was started, in seconds of :func:`time.time`; never, where that is not known."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else 0.0


def _locks(git: GitDir) -> list[Path]:
    found = [git.git_dir / "index.lock", git.git_dir / "HEAD.lock", git.common_dir / "reftable" / "tables.list.lock"]
    with suppress(GitFailed):
        branch = process.line(git.work_tree, "symbolic-ref", "--quiet", "HEAD")
        found.append(git.common_dir / f"{branch}.lock")
    return found
