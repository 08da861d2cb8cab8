"""What git itself sends and fetches: the user's own git, with the user's settings, credentials and hooks."""

import os
import subprocess

from weightvc.history import process
from weightvc.history.git import GitDir
from weightvc.history.process import GitFailed
from weightvc.util.errors import RemoteError, RequestError
from weightvc.util.text import printable

_WHY = {
    "push": "git says above why; if others have pushed, `git pull`, `wvc fetch` and push again",
    "fetch": "git says above why; `git remote -v` shows the address",
}
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


def push(git: GitDir, remote: str, branch: str, *, quiet: bool) -> None:
    """Push a branch, which follows the remote's if it followed none; git's refusal of a rewritten one is the error.

    Raises:
        RemoteError: git could not.
    """
    follow = [] if upstream(git, branch) else ["--set-upstream"]
    _run(git, "push", remote, *follow, *(["--quiet"] if quiet else []), f"refs/heads/{branch}:refs/heads/{branch}")


def fetch(git: GitDir, remote: str, *, quiet: bool) -> None:
    """Fetch all branches of a remote.

    Raises:
        RemoteError: git could not.
    """
    _run(git, "fetch", remote, *(["--quiet"] if quiet else []))


def _run(git: GitDir, command: str, remote: str, *arguments: str) -> None:
    """Run git for people: what it prints belongs beside our own messages, and its questions go to the terminal."""
    if remote.startswith("-"):
        raise RequestError(f"{printable(remote)!r} is no name of a remote", "`git remote` lists them")
    words = ["git", "-C", str(git.work_tree), command, *(a for a in arguments if a.startswith("-")), "--", remote]
    words += [argument for argument in arguments if not argument.startswith("-")]
    environment = {"GIT_ALLOW_PROTOCOL": _PROTOCOLS, **os.environ}
    try:
        code = subprocess.run(words, check=False, env=environment, stdout=_STANDARD_ERROR).returncode
    except FileNotFoundError:
        raise RequestError("git is not installed", "install git 2.36 or newer and try again") from None
    if code:
        raise RemoteError(f"git {command} of remote {printable(remote)} failed ({code})", _WHY[command])
