"""Staged changes: tracked files that the next `wvc commit` will write or delete.

A change is a file under the stage directory at the path it will have below `.wvc`; a deletion is an empty file
with the suffix `.removed`.
"""

from collections.abc import Mapping

from weightvc.repo.repository import TRACKED, Handle
from weightvc.util import fsio

_REMOVED = ".removed"


def put(repo: Handle, path: str, data: bytes) -> None:
    """Stage new contents for a tracked path."""
    target = repo.stage_dir / path.removeprefix(f"{TRACKED}/")
    fsio.make_dirs(target.parent)
    fsio.write_file(target, data)
    fsio.remove_file(target.with_name(target.name + _REMOVED))


def delete(repo: Handle, path: str) -> None:
    """Stage the deletion of a tracked path."""
    target = repo.stage_dir / path.removeprefix(f"{TRACKED}/")
    fsio.make_dirs(target.parent)
    fsio.write_file(target.with_name(target.name + _REMOVED), b"")
    fsio.remove_file(target)


def forget(repo: Handle, path: str) -> None:
    """Drop what is staged for a tracked path."""
    target = repo.stage_dir / path.removeprefix(f"{TRACKED}/")
    for name in (target.name, target.name + _REMOVED):
        fsio.remove_file(target.with_name(name))


def changes(repo: Handle) -> dict[str, bytes | None]:
    """Return what is staged, by tracked path; ``None`` for a deletion."""
    found: dict[str, bytes | None] = {}
    for file in sorted(repo.stage_dir.glob("*/*")):
        if not fsio.is_regular(file) or file.name.startswith("tmp-"):
            continue
        path = f"{TRACKED}/{file.parent.name}/{file.name}"
        if path.endswith(_REMOVED):
            found[path.removesuffix(_REMOVED)] = None
        else:
            found[path] = file.read_bytes()
    return found


def settle(repo: Handle, committed: Mapping[str, bytes | None]) -> None:
    """Drop the staged changes that a commit has carried out; one staged meanwhile anew stays."""
    now = changes(repo)
    for path, data in committed.items():
        if path in now and now[path] == data:
            forget(repo, path)
