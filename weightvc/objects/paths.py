"""Paths of files in a model directory: which may be written, and which can stand beside each other.

Manifests come from other people's repositories, so their paths are checked when they are read: none leads out of the
directory, makes a git repository in it (whose settings name programs that git runs), or takes another's place.
"""

from collections.abc import Iterable, Iterator

from weightvc.util.errors import BadInput
from weightvc.util.text import printable

LOCK = "wvc.lock.json"
"""Where the lock of a checkout directory is."""

_LONGEST = 255
"""Bytes of a file name, on the usual file systems."""


def is_plain(name: str) -> bool:
    """Tell whether ``name`` is one file name and no path."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def check(paths: Iterable[str], where: str) -> None:
    """Refuse paths, relative and with ``/``, that cannot all be files of one model directory.

    Raises:
        BadInput: one is not such a path, is or lies in ``.git``, or is that of the lock; or two of them clash (see
            :func:`clashing`).
    """
    files: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if not all(map(is_plain, parts)) or any(len(part.encode()) > _LONGEST for part in parts):
            raise BadInput(f"{where}: {_shown(path)} is not the path of a file in a model directory", "rename it")
        folded = path.casefold()
        if folded == LOCK or ".git" in folded.split("/"):
            raise BadInput(f"{where}: {_shown(path)} is a name that wvc or git keeps for itself", "rename it")
        if folded in files:
            raise _clash(files[folded], path, where)
        files[folded] = path
    for folded, path in files.items():
        for parent in _parents(folded):
            if parent in files:
                raise _clash(files[parent], path, where)


def clashing(paths: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return those of ``paths`` that cannot be files of one directory together with ``taken``.

    Two paths clash when they differ in the case of letters at most, or when one is a directory of the other.
    """
    files = {path.casefold() for path in taken}
    held = files | {parent for path in files for parent in _parents(path)}
    return [
        path
        for path in paths
        if (folded := path.casefold()) in held or any(parent in files for parent in _parents(folded))
    ]


def _parents(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _clash(one: str, other: str, where: str) -> BadInput:
    return BadInput(
        f"{where}: {_shown(one)} and {_shown(other)} cannot both be files of one directory on every file system",
        "rename or remove one of them",
    )


def _shown(path: str) -> str:
    return repr(printable(path)[:80])
