"""Checkout directories: what may be overwritten, how a new one appears, and where all of them are."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weightvc.objects import lock as locks
from weightvc.objects.lock import Lock
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import compare
from weightvc.repo.repository import TRACKED, Handle
from weightvc.util import fsio
from weightvc.util.errors import Conflict, NotFound, WeightvcError
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import listed


def read_lock(directory: Path) -> Lock:
    """Return the lock of a checkout directory.

    Raises:
        NotFound: no such directory, or no lock in it.
        Corrupt: the lock was changed.
    """
    path = directory / locks.NAME
    if not fsio.is_regular(path):
        raise NotFound(f"{directory}: no {locks.NAME} here", "name a directory that `wvc checkout` wrote")
    return Lock.from_bytes(path.read_bytes(), str(path))


def check_apart(repo: Handle, directory: Path) -> None:
    """Raise :class:`Conflict` if replacing ``directory`` would replace the repository, or something within it."""
    real = directory.resolve()
    own = (repo.git.git_dir, repo.git.common_dir, repo.git.work_tree / TRACKED)
    if repo.git.work_tree.is_relative_to(real) or any(p.is_relative_to(real) or real.is_relative_to(p) for p in own):
        raise Conflict(f"{directory} holds the repository, or is part of it", "name another one with -o DIR")


def check_free(directory: Path, *, force: bool, jobs: int = 1, progress: Progress = SILENT) -> None:
    """Refuse to replace anything that `wvc checkout` did not write, unless ``force``.

    Reads every file there, weights too: a model that was trained further in place looks like the one checked out.

    Raises:
        Conflict: the path is not a directory, a directory without a lock, or one in which files were added or changed
            since.
    """
    if not directory.exists() and not directory.is_symlink():
        return
    if directory.is_symlink() or not directory.is_dir():
        raise Conflict(f"{directory} exists and is not a directory", "name another one with -o DIR")
    if force or not any(directory.iterdir()):
        return
    try:
        changed = _foreign(directory, read_lock(directory), jobs, progress)
    except WeightvcError:
        raise Conflict(
            f"{directory} is not empty and was not written by wvc",
            "name another one with -o DIR, or pass --force to replace it",
        ) from None
    if changed:
        raise Conflict(
            f"{directory} holds files that were added or changed since the checkout: {listed(changed)}",
            "move them away, or pass --force to replace the directory with all it holds",
        )


def _foreign(directory: Path, lock: Lock, jobs: int, progress: Progress) -> list[str]:
    compared = compare.weight_files(directory, lock, jobs, progress)
    whole = {locks.NAME, *(found.file for found in compared if not found.wrong)}
    changed = []
    for path in sorted(p for p in directory.rglob("*") if not p.is_dir() or p.is_symlink()):
        name = path.relative_to(directory).as_posix()
        if name in whole and fsio.is_regular(path):
            continue
        if (
            name not in lock.files
            or not fsio.is_regular(path)
            or tensor_digest("U8", [path.stat().st_size], path.read_bytes()) != lock.files[name]
        ):
            changed.append(name)
    return changed


@contextmanager
def building(final: Path) -> Iterator[Path]:
    """Give a scratch directory beside ``final`` that takes its place when the block ends well, and goes otherwise."""
    fsio.make_dirs(final.parent)
    made = final.with_name(f".{final.name}.wvc-{secrets.token_hex(4)}")
    fsio.ops.mkdir(made)
    try:
        yield made
        for directory in [made, *sorted(p for p in made.rglob("*") if p.is_dir())]:
            fsio.sync_dir(directory)
        fsio.publish_dir(made, final)
    finally:
        fsio.remove_tree(made)


def record(repo: Handle, directory: Path) -> None:
    """Note that checkout is about to write ``directory``, so that a removal can find it whatever happens."""
    fsio.make_dirs(repo.local)
    with fsio.locked(repo.local / "lock", shared=False):
        known = recorded(repo)
        if directory not in known:
            fsio.write_file(repo.outputs, json.dumps([str(path) for path in [*known, directory]]).encode())


def recorded(repo: Handle) -> list[Path]:
    """Return every directory that checkout wrote, as far as this repository knows."""
    if not repo.outputs.is_file():
        return []
    return [Path(path) for path in json.loads(repo.outputs.read_bytes())]
