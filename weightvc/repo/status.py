"""Status: what is committed, what is staged, what somebody edited by hand, and what checkout wrote."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weightvc.history import branch
from weightvc.history.operation import under_way
from weightvc.objects.manifest import Manifest
from weightvc.repo import anew, stage, stale
from weightvc.repo.repository import TRACKED, Handle
from weightvc.repo.stale import Output
from weightvc.repo.state import load
from weightvc.util import fsio
from weightvc.util.errors import Corrupt
from weightvc.util.reading import read_file


@dataclass(frozen=True)
class TaskLine:
    """One task: its version, when it was first added, its sizes in bytes, and how many tensors are stored lossily."""

    task: str
    version: str
    added: str
    bytes: int
    stored_bytes: int
    lossy: int


@dataclass(frozen=True)
class Status:
    """``staged`` maps a tracked path to what happens to it; ``tasks`` are in the default order.

    What happens is ``new``, ``changed``, ``removed``, or ``stored`` for a task of which only the encoding changes.

    ``outputs`` are the directories that checkout wrote and that are still there; ``directories`` says what they hold.
    ``edited`` are files below `.wvc` that are not in the work tree as they are at HEAD: nothing reads them. Those in
    ``conflicts`` wait for somebody to choose a side, and ``under_way`` is the git command that waits for it, if any.
    ``branch`` is ``None`` if ``HEAD`` is detached.
    ``unusable`` are recipes that make no model, with the reason; those in ``empty`` have no tasks and make the base.
    """

    repository: str
    commit: str
    base: str
    method: str
    tasks: tuple[TaskLine, ...]
    recipes: tuple[str, ...]
    staged: dict[str, str]
    outputs: tuple[str, ...]
    directories: tuple[Output, ...]
    edited: tuple[str, ...]
    unusable: Mapping[str, str]
    conflicts: tuple[str, ...]
    under_way: str
    empty: tuple[str, ...]
    branch: str | None


def line(manifest: Manifest) -> TaskLine:
    """Return what status and show say of a task in one line."""
    stored = sum(manifest.objects().values())
    return TaskLine(
        str(manifest.task), manifest.version, str(manifest.added), manifest.nbytes, stored, len(manifest.lossy)
    )


def status(repo: Handle) -> Status:
    """Return the state of the repository at HEAD with what is staged. Reads no tensors."""
    state = load(repo)
    tree = repo.git.read_tree(state.commit)
    staged = {}
    for path, data in stage.changes(repo).items():
        if data is None:
            staged[path] = "removed"
        elif path not in tree:
            staged[path] = "new"
        elif (committed := repo.git.read(state.commit, path)) != data:
            staged[path] = "stored" if anew.only_stored(committed, data) else "changed"
    conflicts = repo.git.unmerged()
    directories = tuple(stale.outputs(repo, state))
    return Status(
        repository=str(repo.git.work_tree),
        commit=state.commit,
        base=state.base.version,
        method=state.config.method,
        tasks=tuple(line(task) for task in state.tasks.values()),
        recipes=tuple(sorted(state.recipes)),
        staged=staged,
        outputs=tuple(directory.path for directory in directories),
        directories=directories,
        edited=tuple(path for path in edited(repo, state.commit) if path not in conflicts),
        unusable=state.unusable(),
        conflicts=conflicts,
        under_way=under_way(repo.git),
        empty=tuple(sorted(name for name, recipe in state.recipes.items() if not recipe.tasks)),
        branch=branch.current(repo.git),
    )


def edited(repo: Handle, commit: str) -> tuple[str, ...]:
    """Return the paths below `.wvc` whose files in the work tree are not those of ``commit``; none without `.wvc`."""
    top = repo.git.work_tree
    if (top / TRACKED).is_symlink() or not (top / TRACKED).is_dir():
        return ()
    tree = repo.git.read_tree(commit)
    there = {path.relative_to(top).as_posix() for path in (top / TRACKED).rglob("*") if fsio.is_regular(path)}
    same = {path for path in there & tree.keys() if _holds(top / path, tree[path])}
    return tuple(sorted((tree.keys() | there) - same))


def _holds(file: Path, blob: str) -> bool:
    """Tell whether a file is that of a blob; one that is gone meanwhile or too large for any of wvc's is not."""
    try:
        return blob in _blob_ids(read_file(file, ""), blob)
    except (FileNotFoundError, Corrupt):
        return False


def _blob_ids(data: bytes, like: str) -> set[str]:
    """Return git's ids of a file's bytes, as they are and with the line ends that ``core.autocrlf`` would give git.

    An id is a hash, with a header, by the algorithm that gave the id ``like``.
    """
    kind = "sha1" if len(like) == 40 else "sha256"
    texts = (data, data.replace(b"\r\n", b"\n"))
    return {hashlib.new(kind, b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest() for text in texts}
