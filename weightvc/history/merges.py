"""What a merge decided: files that its sides had changed in different ways, or that it has as no side had them."""

from collections.abc import Callable, Mapping, Sequence

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
    paths = [path for path in set(result).union(*sides) if any(result.get(path) != side.get(path) for side in sides)]
    if not paths:
        return False
    forks = [files_of(fork) for fork in _forks(git, entry.parents)] or [{}]
    for path in paths:
        before = {fork.get(path) for fork in forks}
        changed = {side.get(path) for side in sides} - (before if len(before) == 1 else set())
        if changed != {result.get(path)}:  # both sides changed it, or it is not as the one that did has it
            return True
    return False


def _forks(git: GitDir, commits: Sequence[str]) -> list[str]:
    """Return the newest commits that all of some commits come from: several, where these have merged one another."""
    try:
        return process.line(git.work_tree, "merge-base", "--octopus", "--all", *commits).split()
    except GitFailed as error:
        if error.status == 1:
            return []
        raise
