"""Which of git's commands waits in a work tree to be continued."""

import os
from contextlib import suppress

from weightvc.history.git import GitDir
from weightvc.util.errors import Corrupt
from weightvc.util.reading import read_file

_SEQUENCE = "sequence"
_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": _SEQUENCE,
}


def under_way(git: GitDir) -> str:
    """Return the git command that waits in this work tree for ``--continue``, such as ``merge``; empty if none."""
    doing = next((doing for name, doing in _UNDER_WAY.items() if os.path.lexists(git.git_dir / name)), "")
    return _sequence(git) if doing == _SEQUENCE else doing


def _sequence(git: GitDir) -> str:
    """Return which command goes through a list of commits, by what it has still to do."""
    with suppress(OSError, Corrupt):
        if read_file(git.git_dir / "sequencer" / "todo", "").startswith(b"revert "):
            return "revert"
    return "cherry-pick"
