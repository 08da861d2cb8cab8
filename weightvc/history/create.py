"""Making a repository, durably."""

import errno
import os
from pathlib import Path

from weightvc.history import process
from weightvc.history.git import GitDir, discover, locate
from weightvc.history.process import GitFailed
from weightvc.util import fsio, scratch
from weightvc.util.errors import Conflict


def init(path: Path) -> GitDir:
    """Make a repository, durably, whose top is ``path``, and return it; one around it is no matter.

    The first branch has the name that the user's own git settings give, else ``main``. `.git` appears whole: a killed
    process or a power cut leaves a scratch directory beside it at most, for :func:`weightvc.util.scratch.sweep`.

    Raises:
        Conflict: there is a `.git` already.
        NotARepository: ``path`` is in a repository without a work tree.
    """
    fsio.make_dirs(path)
    locate(path)
    try:
        process.run(path, "config", "--get", "init.defaultBranch")
        branch = []
    except GitFailed:
        branch = ["--initial-branch=main"]
    made = scratch.beside(path / ".git", "wvc")
    try:
        with scratch.directory(made):
            process.run(made, "init", "--quiet", *branch)
            _publish(made / ".git", path / ".git")
    finally:
        fsio.remove_tree(made)
    fsio.sync_dir(path)
    return discover(path)


def _publish(made: Path, final: Path) -> None:
    for directory, _, names in os.walk(made, topdown=False):
        for name in filter(fsio.is_regular, (Path(directory, name) for name in names)):
            fsio.sync_file(name)
        fsio.sync_dir(Path(directory))
    try:
        fsio.ops.rename(made, final)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        what = f"another process makes a repository at {final.parent}"
        raise Conflict(what, "look at it with `wvc status`") from None
