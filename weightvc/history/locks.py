"""Lock files of git's that a power cut left behind a commit of wvc's.

git takes a lock by making a file, so one of a process that died stays, and says nothing of whose it was. After a power
cut nobody holds it: it is older than the last start of the machine. That alone is not enough where another machine
shares the disk, or where the clock was set, so the note of an interrupted commit has to be there as well, as old itself
and from before another start, as it is whenever the cut came while wvc had git move a ref or write the index.
"""

import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

from weightvc.history.git import GitDir
from weightvc.history.revision import LONGEST, SYMBOLIC
from weightvc.util import fsio
from weightvc.util.errors import Corrupt
from weightvc.util.reading import read_file

_TABLES = "reftable/tables.list.lock"
_OWN = ("refs/worktree/", "refs/bisect/", "refs/rewritten/")
"""Refs that each work tree has for itself."""

_BYTES = 4096
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Return a name for the last start of this machine, which no other start has; empty where there is none."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def drop_stale(git: GitDir, note: Path, noted: str) -> None:
    """Remove the locks on the index, ``HEAD`` and its branch that are older than the last start of this machine.

    Only regular files that lie in the git directory itself are removed, whatever links a hostile one may hold.

    Args:
        git: The repository; the caller holds the lock of :func:`weightvc.history.refresh.refs_locked`.
        note: What an interrupted commit left. Nothing is removed if that is not as old itself, nor where the system
            does not say when it was started (all but Linux).
        noted: The :func:`boot` that it names. Nothing is removed if that is this one: then only the clock was set.
    """
    started = _started()
    if noted in ("", boot()) or not _is_older(note, started):
        return
    for top, name in _locks(git):
        lock = top / name
        if _is_plain(top, lock) and _is_older(lock, started):
            fsio.remove_file(lock)
            fsio.sync_dir(lock.parent)  # or the next power cut brings it back, and the note is gone by then


def _is_older(path: Path, started: float) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime < started


def _is_plain(top: Path, lock: Path) -> bool:
    """Tell whether a lock is below ``top``, and no directory from there down to it is a symbolic link."""
    below = [parent for parent in lock.parents if parent != top and parent.is_relative_to(top)]
    return lock.is_relative_to(top) and ".." not in lock.parts and not any(parent.is_symlink() for parent in below)


def _started() -> float:
    """Return when this machine was started, in seconds of :func:`time.time`; never, where that is not known."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else 0.0


def _locks(git: GitDir) -> list[tuple[Path, str]]:
    """Return the git directory and the name below it of each lock that a commit of wvc's may have left."""
    own, shared = ["index.lock", "HEAD.lock", _TABLES], [_TABLES]
    for name in _branches(git):
        (own if name.startswith(_OWN) else shared).append(f"{name}.lock")
    return [*((git.git_dir, name) for name in own), *((git.common_dir, name) for name in shared)]


def _branches(git: GitDir) -> list[str]:
    """Return what ``HEAD`` stands for, and what that stands for in turn, as far as it is below ``refs``."""
    found: list[str] = []
    file = git.git_dir / "HEAD"
    with suppress(OSError, Corrupt):
        while len(found) < LONGEST and (text := read_file(file, "", _BYTES)).startswith(SYMBOLIC):
            name = os.fsdecode(text.removeprefix(SYMBOLIC).strip())
            top = git.git_dir if name.startswith(_OWN) else git.common_dir
            if not name.startswith("refs/") or "\0" in name or not _is_plain(top, top / name):
                break
            found.append(name)
            file = top / name
    return found
