"""Status: what is committed, what is staged, and what checkout wrote."""

from dataclasses import dataclass

from weightvc.objects.manifest import Manifest
from weightvc.repo import output, stage
from weightvc.repo.repository import Handle
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
    """``staged`` maps a tracked path to ``new``, ``changed`` or ``removed``; ``tasks`` are in the default order."""

    repository: str
    commit: str
    base: str
    method: str
    tasks: tuple[TaskLine, ...]
    recipes: tuple[str, ...]
    staged: dict[str, str]
    outputs: tuple[str, ...]


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
    return Status(
        repository=str(repo.git.work_tree),
        commit=state.commit,
        base=state.base.version,
        method=state.config.method,
        tasks=tuple(line(task) for task in state.tasks.values()),
        recipes=tuple(sorted(state.recipes)),
        staged=staged,
        outputs=tuple(str(path) for path in output.recorded(repo) if path.is_dir()),
    )
