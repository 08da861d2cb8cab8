"""The handle that use cases share: where a repository's rooms are. No behaviour."""

from dataclasses import dataclass
from pathlib import Path

from weightvc.history import refresh, trust
from weightvc.history.git import GitDir, discover
from weightvc.store.local import LocalStore

TRACKED = ".wvc"
CONFIG = f"{TRACKED}/config.toml"
BASE = f"{TRACKED}/base.json"
RECIPES = f"{TRACKED}/recipes"
REMOVALS = f"{TRACKED}/removals"
DEFAULT_OUTPUT = "model"


def task_path(name: str) -> str:
    """Return the tracked path of a task's manifest."""
    return f"{TRACKED}/tasks/{name}.json"


def recipe_path(name: str) -> str:
    """Return the tracked path of a named recipe."""
    return f"{RECIPES}/{name}.toml"


def removal_path(uuid: str) -> str:
    """Return the tracked path of a removal record."""
    return f"{REMOVALS}/{uuid}.json"


@dataclass(frozen=True)
class Handle:
    """An open repository: its git directory and its object store."""

    git: GitDir
    store: LocalStore

    @property
    def local(self) -> Path:
        """Untracked state that all worktrees share."""
        return self.git.common_dir / "wvc"

    @property
    def tmp(self) -> Path:
        """Scratch space on the store's own file system."""
        return self.local / "tmp"

    @property
    def stage_dir(self) -> Path:
        """Staged changes of this worktree."""
        return self.git.git_dir / "wvc" / "stage"

    @property
    def lock(self) -> Path:
        """What is locked while objects are written, read or deleted; see :mod:`weightvc.repo.guard`."""
        return self.local / "lock"

    @property
    def outputs(self) -> Path:
        """The list of every directory that checkout wrote."""
        return self.local / "outputs"


def handle(git: GitDir) -> Handle:
    """Return the handle of a git directory; makes nothing."""
    local = git.common_dir / "wvc"
    return Handle(git, LocalStore(local / "objects", local / "tmp"))


def open_handle(path: Path) -> tuple[Handle, tuple[str, ...]]:
    """Open the repository that ``path`` lies in, after finishing what a killed commit may have left.

    Returns:
        The handle, and warnings if something could not be finished.

    Raises:
        NotARepository: there is none.
        RequestError: strangers can write to its objects, or own them.
    """
    git = discover(path)
    found = handle(git)
    trust.refuse_strangers(git, found.local, found.store.root, found.stage_dir.parent)
    return found, refresh.recover(git)
