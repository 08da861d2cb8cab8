"""Status: what is committed, what is staged, and what checkout wrote."""

from dataclasses import dataclass

from weightvc.objects.manifest import Manifest
from weightvc.repo import stage, stale
from weightvc.repo.repository import Handle
from weightvc.repo.stale import Output
from weightvc.repo.state import load


@dataclass(frozen=True)
class TaskLine:
    """One task: its version, when it was first added, and its sizes in bytes."""

    task: str
    version: str
    added: str
    bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Status:
    """``staged`` maps a tracked path to ``new``, ``changed`` or ``removed``; ``tasks`` are in the default order.

    ``outputs`` are the directories that checkout wrote and that are still there; ``directories`` says what they hold.
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


def line(manifest: Manifest) -> TaskLine:
    """Return what status and show say of a task in one line."""
    stored = sum(manifest.objects().values())
    return TaskLine(str(manifest.task), manifest.version, str(manifest.added), manifest.nbytes, stored)


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
        elif repo.git.read(state.commit, path) != data:
            staged[path] = "changed"
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
    )
