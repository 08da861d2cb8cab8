"""Directories that hold the base because a removal took every task out of them: for as long as the removal stands."""

from collections.abc import Sequence

from weightvc.objects.lock import Lock
from weightvc.objects.recipe import parse_tasks
from weightvc.objects.removal import Removal
from weightvc.repo.repository import Handle, removal_path
from weightvc.repo.resolve import Request
from weightvc.repo.state import State
from weightvc.util.text import listed


def tasks(lock: Lock, request: Request | None) -> tuple[str, ...]:
    """Return the tasks that were in a directory before it was emptied; none if it was not."""
    if lock.tasks or request is None or request.tasks is None:
        return ()
    return tuple(weighted.task for weighted in parse_tasks(request.tasks))


def back(head: State, there: State, names: Sequence[str]) -> list[str]:
    """Return those of the tasks ``names`` of the revision asked for that are not taken out any more."""
    removed = {removal.uuid for removal in head.removals.values()} - {task.uuid for task in head.tasks.values()}
    return [name for name in names if name in there.tasks and there.tasks[name].uuid not in removed]


def said(repo: Handle, head: State, names: Sequence[str]) -> str:
    """Return what emptied a directory, with the commits that did."""
    records = [record for record in head.removals.values() if record.task in names]
    commits = sorted({commit for record in records if (commit := _commit(repo, head, record))})
    where = f" in {listed([commit[:12] for commit in commits])}" if commits else ""
    return f"emptied when {listed(names)} {'were' if len(names) > 1 else 'was'} taken out{where}"


def _commit(repo: Handle, head: State, record: Removal) -> str | None:
    """Return the commit that made a record; ``None`` if history does not go back so far."""
    entries = repo.git.log(head.commit, [removal_path(record.uuid)])
    return next((entry.commit for entry in entries if entry.parents[:1] == (record.parent,)), None)
