"""What a merge decided: files that its sides had changed in different ways, or that it has as no side had them."""

from collections.abc import Callable, Mapping

from weightvc.history import process
from weightvc.history.git import GitDir, LogEntry
from weightvc.history.process import GitFailed

Files = Mapping[str, str]
"""Path → blob id."""


def decides(git: GitDir, entry: LogEntry, files_of: Callable[[str], Files]) -> bool:
    """Tell whether a merge did more than to bring together what its sides had changed each for itself.

    Args:
        git: The repository.
        entry: The merge.
        files_of: From a commit to the files that count.
    """
    result, sides = files_of(entry.commit), [files_of(parent) for parent in entry.parents]
    paths = set(result).union(*sides)
    if any(all(result.get(path) != side.get(path) for side in sides) for path in paths):
        return True
    first = sides[0]
    for parent, side in zip(entry.parents[1:], sides[1:], strict=True):
        apart = [path for path in paths if first.get(path) != side.get(path)]
        if apart:
            fork = _fork(git, entry.parents[0], parent)
            before = files_of(fork) if fork else {}
            if any(before.get(path) not in (first.get(path), side.get(path)) for path in apart):
                return True
    return False


def _fork(git: GitDir, one: str, other: str) -> str | None:
    """Return the newest commit that both commits come from; ``None`` if they have none in common."""
    try:
        return process.line(git.work_tree, "merge-base", one, other)
    except GitFailed as error:
        if error.status == 1:
            return None
        raise
