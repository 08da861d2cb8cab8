"""Runs git so that neither the environment nor the repository can redirect it or make it execute anything.

Only plumbing runs here. A hostile ``.git/config`` can name programs for file monitoring, hooks, filters, signing,
paging and transports. The first two are switched off below; filters by :func:`no_filters` where git would look at
files; signing by our callers' arguments; pagers by the lack of a terminal; and transports (a partial clone fetches
when an object is missing) by allowing no protocol at all. Nor can grafts and replacements show another history than the
one that is there: objects are kept by what commits really hold.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from git.cmd import Git
from git.exc import GitCommandNotFound

from weightvc.util.errors import Corrupt, Missing, RequestError
from weightvc.util.text import printable

# What a surrounding hook or script exports (GIT_DIR, GIT_INDEX_FILE, quarantine …) is about another repository.
_KEPT = re.compile(
    r"GIT_(AUTHOR_|COMMITTER_|CONFIG_(?!PARAM)|SSL_|EXEC_PATH|TEMPLATE_DIR|CEILING_|DISCOVERY_|TRACE|DEFAULT_HASH)"
)
_VARIABLES = (
    "GIT_ALLOW_PROTOCOL=none",
    "GIT_GRAFT_FILE=/dev/null",
    "GIT_LITERAL_PATHSPECS=1",
    "GIT_NO_LAZY_FETCH=1",
    "GIT_NO_REPLACE_OBJECTS=1",
    "GIT_OPTIONAL_LOCKS=0",
    "GIT_TERMINAL_PROMPT=0",
)
_SETTINGS = {
    "diff.orderFile": "/dev/null",
    "log.follow": "false",
    "log.mailmap": "false",
    "log.showSignature": "false",
    "core.commitGraph": "false",
    "core.multiPackIndex": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.fsync": "all",
    "core.fsyncMethod": "fsync",
    "gc.auto": "0",
    "i18n.commitEncoding": "UTF-8",
    "user.useConfigOnly": "true",
}
_DAMAGED = re.compile(
    r"(?:hash mismatch|unable to unpack|unable to stream|loose object|packed object) '?([0-9a-f]{40,64})\b"
)
"""What git says of an object that is not what its id stands for, or nothing that can be unpacked."""

_MENTIONED = re.compile(r"^(?:error|fatal):", re.MULTILINE)

_NOT_FETCHED = re.compile(r"could not fetch ([0-9a-f]{40,64}) from promisor remote")
"""What git says in a partial clone of an object that it may not fetch."""

_NOT_FOUND = 127
_FULL = ("No space left on device", "Out of diskspace")
"""What git says on a full disk, in whatever language it says the rest."""


class GitFailed(RequestError):
    """A git command ended with an error.

    Args:
        command: The git subcommand.
        status: Its exit status.
        stderr: What it said.
    """

    def __init__(self, command: str, status: int, stderr: str) -> None:
        said = next((line for line in stderr.splitlines() if line.startswith(("fatal:", "error:"))), stderr)
        full = any(words in stderr for words in _FULL)
        hint = "free some space and run it again" if full else ""
        super().__init__(f"git {command} failed ({status}): {printable(said.strip())[:500]}", hint)
        self.status = status
        self.stderr = stderr


def run(
    directory: Path,
    *arguments: str,
    stdin: bytes = b"",
    index: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
    strict: bool = False,
) -> bytes:
    """Run ``git arguments…`` in ``directory`` and return its output.

    Args:
        directory: The work tree or a directory in it.
        arguments: The subcommand and its arguments.
        stdin: What the command reads.
        index: The index file to use in place of the user's own.
        settings: Further git settings that override all others.
        strict: What git mentions as an error is one, even if it went on: a walk passes over what it cannot read.

    Raises:
        Corrupt: the file of one of git's objects is damaged.
        GitFailed: the command ended with an error.
        Missing: this is a partial clone, and git lacks an object.
        RequestError: git is not installed.
    """
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        try:
            status, out, err = Git().execute(
                [*_environment(index, settings), "git", "-C", str(directory), *arguments],
                istream=source,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
        except GitCommandNotFound:
            status, out, err = _NOT_FOUND, b"", ""
    if status == _NOT_FOUND:
        raise RequestError("git is not installed", "install git 2.36 or newer and try again")
    status = status or int(strict and _MENTIONED.search(err) is not None)
    if status and (found := _DAMAGED.search(err)):
        raise damaged(Path(line(directory, "rev-parse", "--path-format=absolute", "--git-path", "objects")), found[1])
    if status and (found := _NOT_FETCHED.search(err)):
        raise missing(found[1])
    if status:
        raise GitFailed(arguments[0], status, err)
    return bytes(out)


def line(directory: Path, *arguments: str, stdin: bytes = b"", index: Path | None = None) -> str:
    """Run git as :func:`run` does and return the one line that it prints."""
    return os.fsdecode(run(directory, *arguments, stdin=stdin, index=index)).removesuffix("\n")


def damaged(objects: Path, oid: str, kind: str = "object") -> Corrupt:
    """Return the error for one of git's objects that does not have the contents that its id stands for.

    Args:
        objects: Where git's loose objects are.
        oid: The full id.
        kind: ``blob``, ``tree``, ``commit`` or ``tag``, if that is known.
    """
    file = loose(objects, oid)
    what = f"git's {'file' if kind == 'blob' else kind} {printable(oid)} is damaged: its contents have another id"
    if not file.is_file():
        return Corrupt(what, "`git fsck` shows what else is; clone again from where it is whole")
    again = "then run `git fetch --refetch`, or copy that file from another clone"
    return Corrupt(what, f"move {file} away, {again}")


def missing(oid: str) -> Missing:
    """Return the error for a file that git does not have."""
    partial = "in a partial clone, after `git config --unset remote.NAME.partialclonefilter`"
    return Missing(f"git has no file contents {printable(oid)}", f"run `git fetch --refetch`; {partial}")


def loose(objects: Path, oid: str) -> Path:
    """Return where an object is while it has a file of its own."""
    return objects / oid[:2] / oid[2:]


def no_filters(directory: Path) -> dict[str, str]:
    """Return settings that disable every filter driver that the repository or the user has configured.

    git runs ``clean`` filters on files that changed as recently as the index itself, whenever it writes the index.
    """
    try:
        listed = run(directory, "config", "--null", "--name-only", "--get-regexp", r"^filter\..")
    except GitFailed:  # none
        return {}
    drivers = {os.fsdecode(key).rpartition(".")[0] for key in listed.split(b"\0")[:-1]}
    # An empty process command takes precedence over a clean command and means: no filter.
    return {f"{driver}.{key}": value for driver in drivers for key, value in (("process", ""), ("required", "false"))}


def _environment(index: Path | None, settings: Mapping[str, str]) -> list[str]:
    """Return the start of a command line that changes the environment of the rest.

    GitPython can add to the environment but not take away, hence ``env``. It also falls back to the current
    directory where it cannot enter the one it was given, hence ``git -C`` above. Settings go into numbered
    variables, after those that the user's own environment has: ``git -c`` would misread a name that holds ``=``.
    """
    unset = [part for name in os.environ if name.startswith("GIT_") and not _KEPT.match(name) for part in ("-u", name)]
    private = {} if index is None else {"core.splitIndex": "false"}
    chosen = {**_SETTINGS, **private, **settings}
    count = os.environ.get("GIT_CONFIG_COUNT") or "0"
    if not (count.isdecimal() and len(count) < 6):
        raise RequestError(f"GIT_CONFIG_COUNT is {printable(count)[:40]!r}, which is no number", "unset it")
    first = int(count)
    numbered = [f"GIT_CONFIG_COUNT={first + len(chosen)}"]
    for n, (key, value) in enumerate(chosen.items(), first):
        numbered += [f"GIT_CONFIG_KEY_{n}={key}", f"GIT_CONFIG_VALUE_{n}={value}"]
    return ["env", *unset, *_VARIABLES, *numbered, *([f"GIT_INDEX_FILE={index}"] if index else [])]
