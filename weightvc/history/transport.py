"""What git itself sends and fetches: the user's own git, with the user's settings, credentials and hooks."""

import os
import subprocess

from weightvc.history import process
from weightvc.history.git import GitDir
from weightvc.history.process import GitFailed
from weightvc.util.errors import RemoteError, RequestError
from weightvc.util.text import printable

_STANDARD_ERROR = 2
_PROTOCOLS = "file:git:http:https:ssh"
"""What git may use. A clone can allow the others, some of which run commands, in its own configuration."""


def remotes(git: GitDir) -> list[str]:
    """Return the names of git's remotes."""
    return process.line(git.work_tree, "remote").split()


def upstream(git: GitDir, branch: str) -> str | None:
    """Return the name of the remote that a branch follows, if it follows one."""
    try:
        return process.line(git.work_tree, "config", "--get", f"branch.{branch}.remote")
    except GitFailed:
        return None


def tips(git: GitDir, remote: str) -> list[str]:
    """Return the ids of the commits that a remote's branches were at when it was last fetched."""
    shown = process.line(git.work_tree, "for-each-ref", "--format=%(objectname)", f"refs/remotes/{remote}/")
    return list(dict.fromkeys(shown.split()))


def push(git: GitDir, remote: str, branch: str) -> None:
    """Push a branch; git's own refusal of what is no fast-forward is the error.

    Raises:
        RemoteError: git could not.
    """
    _run(git, "push", "--", remote, f"refs/heads/{branch}:refs/heads/{branch}")


def fetch(git: GitDir, remote: str) -> None:
    """Fetch all branches of a remote.

    Raises:
        RemoteError: git could not.
    """
    _run(git, "fetch", "--", remote)


def _run(git: GitDir, *arguments: str) -> None:
    if arguments[2].startswith("-"):
        raise RequestError(f"{printable(arguments[2])!r} is no name of a remote", "`git remote` lists them")
    environment = {"GIT_ALLOW_PROTOCOL": _PROTOCOLS, **os.environ}
    command = ["git", "-C", str(git.work_tree), *arguments]
    try:
        # What git prints belongs beside our own messages; its questions go to the terminal.
        code = subprocess.run(command, check=False, env=environment, stdout=_STANDARD_ERROR).returncode
    except FileNotFoundError:
        raise RequestError("git is not installed", "install git 2.36 or newer and try again") from None
    if code:
        hint = "git says above why; a push that is refused since others have pushed needs `git pull` first"
        raise RemoteError(f"git {arguments[0]} of remote {printable(arguments[2])} failed ({code})", hint)
