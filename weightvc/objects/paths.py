"""Paths of files in a model directory: which of them can stand beside each other on every file system."""

from collections.abc import Iterable, Iterator


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
