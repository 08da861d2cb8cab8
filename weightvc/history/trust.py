"""Whose files a clone's own are: what strangers can write may be anything, whatever the history says.

git refuses a repository that belongs to somebody else, for its settings name programs. What is beside them is bytes,
and the same holds: whoever can write into a store can give a model other weights. Both are accepted by whoever has
said so to git, by its setting ``safe.directory`` outside of the repository.
"""

import os
import stat
from pathlib import Path

from weightvc.history import process
from weightvc.history.git import GitDir
from weightvc.history.process import GitFailed
from weightvc.util.errors import RequestError
from weightvc.util.text import printable

_OUTSIDE = frozenset({"system", "global", "command"})
"""Scopes of settings that a repository cannot choose for itself."""


def refuse_strangers(git: GitDir, *directories: Path) -> None:
    """Refuse directories that every user can write to, or that are not ours, the owner's of ``.git`` or root's.

    Raises:
        RequestError: one is such a directory, and git was not told to trust the repository. One that is not there, or
            that cannot be examined, is no matter.
    """
    for directory in directories:
        try:
            found, owner = os.lstat(directory), os.stat(git.common_dir).st_uid
        except OSError:
            continue
        if found.st_uid not in (0, os.geteuid(), owner):  # root can do anything anyway
            wrong, mend = "belongs to somebody else than its repository", f"chown -R {os.geteuid()}"
        elif stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH:
            wrong, mend = "can be written to by every user of this machine", "chmod -R o-w"
        else:
            continue
        if not _trusted(git.work_tree):
            place, top = printable(str(directory)), printable(str(git.work_tree))
            raise RequestError(
                f"{place} {wrong}",
                f"`{mend} {place}`, or accept it with `git config --global --add safe.directory {top}`",
            )


def _trusted(work_tree: Path) -> bool:
    """Tell whether the last word of ``safe.directory`` is that a work tree is to be trusted."""
    try:
        listed = process.run(
            work_tree, "config", "--null", "--show-scope", "--type=path", "--get-all", "safe.directory"
        )
    except GitFailed:  # none
        return False
    fields = iter(os.fsdecode(listed).split("\0")[:-1])
    trusted = False
    for scope, value in zip(fields, fields, strict=True):
        if scope not in _OUTSIDE:
            continue
        around = value.endswith("/*") and Path(value[:-1]) in work_tree.parents
        trusted = bool(value) and (trusted or around or value == "*" or Path(value) == work_tree)
    return trusted
