"""Staged changes: tracked files that the next `wvc commit` will write or delete.

A change is a file under the stage directory at the path it will have below `.wvc`, with its checksum in a line more:
there is no commit yet whose id would tell damage. A deletion is an empty file with the suffix `.removed`. Whoever
changes the stage holds its lock, so that what is staged while a commit settles is not taken for what was committed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from weightvc.objects.ids import is_task_name
from weightvc.repo.repository import TRACKED, Handle, recipe_path, task_path
from weightvc.util import fsio, scratch
from weightvc.util.errors import Corrupt, NotFound
from weightvc.util.reading import read_file
from weightvc.util.text import printable

_REMOVED = ".removed"
_SUFFIXES = {"tasks": ".json", "recipes": ".toml"}


def put(repo: Handle, path: str, data: bytes) -> None:
    """Stage new contents for a tracked path."""
    target = _target(repo, path)
    with _locked(repo):
        _make(target.parent)
        fsio.write_file(target, data + _sum(data))
        fsio.remove_file(target.with_name(target.name + _REMOVED))


def delete(repo: Handle, path: str) -> None:
    """Stage the deletion of a tracked path."""
    target = _target(repo, path)
    with _locked(repo):
        _make(target.parent)
        fsio.write_file(target.with_name(target.name + _REMOVED), b"")
        fsio.remove_file(target)


def forget(repo: Handle, path: str) -> bool:
    """Drop what is staged for a tracked path, and tell whether there was anything."""
    with _locked(repo):
        there = path in changes(repo)
        _drop(_target(repo, path))
    return there


def changes(repo: Handle) -> dict[str, bytes | None]:
    """Return what is staged, by tracked path; ``None`` for a deletion. What is damaged is neither JSON nor TOML.

    Raises:
        Corrupt: a file there is not one that wvc stages, and must not be committed; or one is too large.
    """
    found: dict[str, bytes | None] = {}
    for file in sorted(repo.stage_dir.glob("*/*")):
        if not fsio.is_regular(file) or fsio.SCRATCH.fullmatch(file.name):
            continue
        name = file.name.removesuffix(_REMOVED)
        suffix = _SUFFIXES.get(file.parent.name, "")
        if not (suffix and name.endswith(suffix) and is_task_name(name.removesuffix(suffix))):
            raise Corrupt(f"{printable(str(file))}: wvc stages no file of that name", "move it away")
        with suppress(FileNotFoundError):  # another process has committed it meanwhile
            found[f"{TRACKED}/{file.parent.name}/{name}"] = None if name != file.name else _read(file)
    return found


def tasks(repo: Handle) -> list[str]:
    """Return the names of the tasks of which a version is staged."""
    prefix = f"{TRACKED}/tasks/"
    found = changes(repo).items()
    return [path.removeprefix(prefix).removesuffix(".json") for path, data in found if data and path.startswith(prefix)]


def refuse(repo: Handle, name: str) -> None:
    """Raise :class:`NotFound` if a task or a recipe ``name`` is staged: it is asked for, and not committed yet."""
    staged = changes(repo)
    for kind, path in (("task", task_path(name)), ("recipe", recipe_path(name))):
        if is_task_name(name) and staged.get(path):
            raise NotFound(f"{kind} {name} is staged but not committed", "run `wvc commit -m MESSAGE` first")


def settle(repo: Handle, committed: Mapping[str, bytes | None]) -> None:
    """Drop the staged changes that a commit has carried out; one staged meanwhile anew stays."""
    with _locked(repo):
        now = changes(repo)
        for path, data in committed.items():
            if path in now and now[path] == data:
                _drop(_target(repo, path))


def _read(file: Path) -> bytes:
    """Return what is staged in a file, without its checksum; what is damaged as something that nobody can parse."""
    data = read_file(file, "delete it, and stage anew what it was for")
    whole, line = data[:-_LENGTH], data[-_LENGTH:]
    return whole if line == _sum(whole) else data + b"\n! its checksum is another\n"


def _sum(data: bytes) -> bytes:
    return b"xxh3-128 %s\n" % xxhash.xxh3_128_hexdigest(data).encode()


_LENGTH = len(_sum(b""))


@contextmanager
def _locked(repo: Handle) -> Iterator[None]:
    fsio.make_dirs(repo.stage_dir.parent)
    with fsio.locked(repo.stage_dir.with_name("stage.lock"), shared=False):
        for directory in repo.stage_dir.glob("*"):
            scratch.sweep_files(directory)
        yield


def _target(repo: Handle, path: str) -> Path:
    return repo.stage_dir / path.removeprefix(f"{TRACKED}/")


def _make(directory: Path) -> None:
    """Make a directory of the stage; no link there leads what is staged elsewhere."""
    fsio.make_plain(directory.parent)
    fsio.make_plain(directory)


def _drop(target: Path) -> None:
    for name in (target.name, target.name + _REMOVED):
        fsio.remove_file(target.with_name(name))
