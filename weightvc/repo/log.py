"""Log: the commits that changed wvc's files, and what each did to tasks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

from weightvc.history.git import LogEntry
from weightvc.objects.ids import task_name
from weightvc.repo.repository import TRACKED, Handle, task_path
from weightvc.repo.state import load

_LAST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
"""Git holds times that no calendar does; they are shown as this one."""


@dataclass(frozen=True)
class LogLine:
    """One commit. The tuples name the tasks that it added, changed and removed, against its first parent."""

    commit: str
    time: str
    author: str
    subject: str
    parents: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def log(repo: Handle, task: str | None = None, rev: str = "HEAD", limit: int | None = None) -> Iterator[LogLine]:
    """Return the commits that touched wvc's files, or one task's manifest, newest first.

    Raises:
        NotFound: no commit ever had a task of that name.
    """
    state = load(repo, rev)
    paths = [f"{TRACKED}/"] if task is None else [task_path(task_name(task))]
    entries = list(repo.git.log(rev, paths, limit))
    if task is not None and not entries:
        state.task(task)
    tasks_of = cache(partial(_tasks, repo))  # a commit is most often the parent of another
    return (_line(entry, tasks_of) for entry in entries)


def show(repo: Handle, commit: str) -> LogLine:
    """Return what one commit, given by its full id, did to tasks."""
    return _line(next(repo.git.log(commit, max_count=1)), partial(_tasks, repo))


def _line(entry: LogEntry, tasks_of: Callable[[str], dict[str, str]]) -> LogLine:
    after = tasks_of(entry.commit)
    before = tasks_of(entry.parents[0]) if entry.parents else {}
    return LogLine(
        commit=entry.commit,
        time=datetime.fromtimestamp(min(entry.time, _LAST), UTC).isoformat(),
        author=entry.author,
        subject=entry.subject,
        parents=entry.parents,
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(n for n in after.keys() & before.keys() if after[n] != before[n])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def lineage(repo: Handle, rev: str = "HEAD") -> dict[str, tuple[str, ...]]:
    """Return, for each task in the default order, the tasks that it was trained from."""
    return {name: tuple(p.task for p in task.lineage) for name, task in load(repo, rev).tasks.items()}


def _tasks(repo: Handle, commit: str) -> dict[str, str]:
    prefix = f"{TRACKED}/tasks/"
    tree = repo.git.read_tree(commit, prefix)
    return {path.removeprefix(prefix).removesuffix(".json"): blob for path, blob in tree.items()}
