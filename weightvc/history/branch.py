"""Which branch a work tree is on."""

from weightvc.history import process
from weightvc.history.git import GitDir
from weightvc.history.process import GitFailed


def current(git: GitDir) -> str | None:
    """Return the name of the branch at ``HEAD``, as git shortens it; ``None`` if ``HEAD`` is detached."""
    try:
        return process.line(git.work_tree, "symbolic-ref", "--quiet", "--short", "HEAD")
    except GitFailed as error:
        if error.status == 1:
            return None
        raise
