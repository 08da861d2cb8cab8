"""Log: the commits that changed wvc's files, and what each did to tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from itertools import islice

from weightvc.history import merges
from weightvc.history.git import LogEntry
from weightvc.objects.ids import task_name
from weightvc.repo import anew, stage
from weightvc.repo.repository import TRACKED, Handle, task_path
from weightvc.repo.state import load
from weightvc.util.errors import Missing

_LAST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
"""Git holds times that no calendar does; they are shown as this one."""


@dataclass(frozen=True)
class LogLine:
    """One commit. The tuples name the tasks that it added, changed and removed, against its first parent.

    ``stored`` names the tasks of which it changed nothing but how they are stored; they are not among the changed.
    ``recipes`` maps a named recipe to ``new``, ``changed`` or ``removed``.
    """

    commit: str
    time: str
    author: str
    subject: str
    parents: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    recipes: dict[str, str]
    stored: tuple[str, ...]


def log(repo: Handle, task: str | None = None, rev: str = "HEAD", limit: int | None = None) -> Iterator[LogLine]:
    """Return the commits that touched wvc's files, or one task's manifest, newest first.

    A merge is one of them if it chose between the sides, or has something that no side had; one that only brings
    together what each side had changed for itself is not.

    Raises:
        NotFound: no commit ever had a task of that name.
    """
    state = load(repo, rev)
    paths = [f"{TRACKED}/"] if task is None else [task_path(task_name(task))]
    files_of = cache(partial(_files, repo))  # a commit is most often the parent of another
    entries = _entries(repo, rev, paths, limit, files_of)
    if task is not None and not entries:
        stage.refuse(repo, task)
        state.task(task)
    return (_line(repo, entry, files_of) for entry in entries)


def _entries(
    repo: Handle, rev: str, paths: Sequence[str], limit: int | None, files_of: Callable[[str], dict[str, str]]
) -> list[LogEntry]:
    """Return at most ``limit`` commits that changed ``paths``; git is asked for more while it lists mere merges."""

    def below(commit: str) -> dict[str, str]:
        return {path: blob for path, blob in files_of(commit).items() if path.startswith(tuple(paths))}

    @cache
    def counts(entry: LogEntry) -> bool:
        return len(entry.parents) < 2 or merges.decides(repo.git, entry, below)

    asked = limit
    while True:
        entries = list(repo.git.log(rev, paths, asked))
        found = list(islice(filter(counts, entries), limit))
        if limit is None or asked is None or len(found) == limit or len(entries) < asked:
            return found
        asked *= 4


def show(repo: Handle, commit: str) -> LogLine:
    """Return what one commit, given by its full id, did to tasks."""
    return _line(repo, next(repo.git.log(commit, max_count=1)), partial(_files, repo))


def _line(repo: Handle, entry: LogEntry, files_of: Callable[[str], dict[str, str]]) -> LogLine:
    after = files_of(entry.commit)
    before = files_of(entry.parents[0]) if entry.parents else {}
    tasks = _changes(before, after, f"{TRACKED}/tasks/", ".json")
    stored = _stored(repo, before, after, [name for name, what in tasks.items() if what == "changed"])
    return LogLine(
        commit=entry.commit,
        time=datetime.fromtimestamp(min(entry.time, _LAST), UTC).isoformat(),
        author=entry.author,
        subject=entry.subject,
        parents=entry.parents,
        added=tuple(name for name, what in tasks.items() if what == "new"),
        changed=tuple(name for name, what in tasks.items() if what == "changed" and name not in stored),
        removed=tuple(name for name, what in tasks.items() if what == "removed"),
        recipes=_changes(before, after, f"{TRACKED}/recipes/", ".toml"),
        stored=stored,
    )


def _stored(repo: Handle, before: dict[str, str], after: dict[str, str], changed: list[str]) -> tuple[str, ...]:
    """Return those of the changed tasks of which only the encoding changed, as far as git has their manifests."""
    try:
        blobs = repo.git.read_blobs([files[task_path(name)] for name in changed for files in (before, after)])
    except Missing:
        return ()
    pairs = {name: [blobs[files[task_path(name)]] for files in (before, after)] for name in changed}
    return tuple(name for name, (old, new) in pairs.items() if anew.only_stored(old, new))


def _changes(before: dict[str, str], after: dict[str, str], prefix: str, suffix: str) -> dict[str, str]:
    """Return what happened to each file below ``prefix`` that is not the same, by its name there."""
    found = {}
    for path in sorted(before.keys() | after.keys()):
        if path.startswith(prefix) and before.get(path) != after.get(path):
            what = "new" if path not in before else "changed" if path in after else "removed"
            found[path.removeprefix(prefix).removesuffix(suffix)] = what
    return found


def lineage(repo: Handle, rev: str = "HEAD") -> dict[str, tuple[str, ...]]:
    """Return, for each task in the default order, the tasks that it was trained from."""
    return {name: tuple(p.task for p in task.lineage) for name, task in load(repo, rev).tasks.items()}


def _files(repo: Handle, commit: str) -> dict[str, str]:
    return repo.git.read_tree(commit, f"{TRACKED}/", checked=False)
