"""Which tasks a revert takes out, by which marks models are known to hold them, and what of their weights stays."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from weightvc.objects.ids import is_task_name
from weightvc.objects.manifest import Manifest, Parent
from weightvc.objects.removal import Removal
from weightvc.repo import stage
from weightvc.repo.repository import TRACKED, Handle, task_path
from weightvc.repo.state import State, has_wvc, load, load_commit
from weightvc.util.errors import NotFound, RequestError, WeightvcError
from weightvc.util.text import listed

Known: TypeAlias = Manifest | Removal
"""A task as its manifest or its removal record has it: by name, UUID and version."""


@dataclass(frozen=True)
class Gone:
    """Tasks that are taken out, as locks pin them.

    A task that was taken out before and added again is another one of the same name, and a directory may hold any of
    them. ``names`` are those that no task has any more: all that ever had one goes. ``uuids`` are the tasks' own and
    all that history knows of under ``names``; ``living`` are those of the tasks that stay, whatever their name was.
    ``versions`` are the weights that go.
    """

    names: Collection[str]
    uuids: Collection[str]
    living: Collection[str]
    versions: Collection[str]

    def holds(self, task: Parent) -> bool:
        """Tell whether a task that a lock pins is taken out."""
        return task.uuid not in self.living and (task.uuid in self.uuids or task.task in self.names)

    def is_twin(self, task: Parent) -> bool:
        """Tell whether a task that a lock pins stays, but has the very weights of one that is taken out."""
        return task.version in self.versions and not self.holds(task)


def gone(state: State, names: Collection[str], removed: Sequence[Known], seen: Sequence[Known]) -> Gone:
    """Return by what models are known to hold the tasks ``removed``, and all that had ``names`` before them.

    Args:
        state: The state before the removal, or after it.
        names: The names that no task has after the removal.
        removed: The manifests or the removal records of the tasks.
        seen: What :func:`history` has of ``names``.
    """
    records = [record for record in state.removals.values() if record.task in names]
    uuids = {str(task.uuid) for task in (*removed, *records, *seen)}
    living = {str(task.uuid) for name, task in state.tasks.items() if name not in names}
    versions = {task.version for task in (*removed, *records)} - {state.base.version}
    return Gone(names, uuids, living, versions)


def history(repo: Handle, names: Collection[str]) -> list[Known]:
    """Return every manifest and removal record of ``names`` that a commit ever had, on any branch.

    One that is damaged is left out: it is the business of `wvc fsck`, and no reason to keep a task in.
    """
    found: list[Known] = []
    blobs = repo.git.all_blobs((*(task_path(name) for name in sorted(names)), f"{TRACKED}/removals"))
    for path, ids in blobs.items():
        kind: type[Known] = Removal if path.startswith(f"{TRACKED}/removals/") else Manifest
        for data in repo.git.read_blobs(sorted(ids)).values():
            with suppress(WeightvcError):
                found.append(kind.from_bytes(data, path))
    return [item for item in found if item.task in names]


def taken_out(state: State, target: str) -> list[Removal]:
    """Return the records of a removed task, first, and of those that went along with it; none if it lives."""
    if target in state.tasks:
        return []
    living = {task.uuid for task in state.tasks.values()}
    gone = [record for record in state.removals.values() if record.uuid not in living]
    named = sorted((record for record in gone if record.task == target), key=lambda r: r.removed, reverse=True)
    commits_of = {(record.parent, record.removed) for record in named}
    along = [record for record in gone if record.task != target and (record.parent, record.removed) in commits_of]
    return [*named, *sorted(along, key=lambda record: record.task)]


def named(repo: Handle, state: State, target: str) -> list[str]:
    """Return the task ``target``, or the tasks that a revision of that name added and that are still here.

    Raises:
        NotFound: neither a task nor a revision.
        RequestError: the revision added no task that is still here, or history does not go on before it.
    """
    if target in state.tasks:
        return [target]
    try:
        commit = repo.git.resolve(target)
    except NotFound:
        if is_task_name(target):
            state.task(target)
        raise
    after = load(repo, commit).tasks
    if repo.git.is_cut_off(commit):
        raise RequestError(
            f"what {target} added is not known: this clone's history ends there", "run `git fetch --unshallow` first"
        )
    parents = repo.git.parents(commit)
    earlier = load_commit(repo, parents[0]).tasks if parents and has_wvc(repo, parents[0]) else {}
    added = [name for name, task in after.items() if name not in earlier and _same(state, name, task)]
    if not added:
        raise RequestError(
            f"{target} added no task that is still here", "name a task, or undo other commits with `git revert`"
        )
    return added


def _same(state: State, name: str, manifest: Manifest) -> bool:
    return name in state.tasks and state.tasks[name].uuid == manifest.uuid


def derived(state: State, names: list[str]) -> list[str]:
    """Return every task that was trained from one of ``names``, directly or not, in the default order."""
    tainted = {state.tasks[name].uuid for name in names}
    found: list[str] = []
    grown = True
    while grown:
        grown = False
        for name, task in state.tasks.items():
            if task.uuid not in tainted and any(parent.uuid in tainted for parent in task.lineage):
                tainted.add(task.uuid)
                found.append(name)
                grown = True
    return [name for name in state.tasks if name in found]


def staged_derived(repo: Handle, state: State, names: Collection[str]) -> list[str]:
    """Return the staged tasks that were trained from one of the committed ``names``."""
    tainted = {state.tasks[name].uuid for name in names}
    staged = [Manifest.from_bytes(stage.changes(repo)[task_path(name)] or b"", name) for name in stage.tasks(repo)]
    return [
        str(task.task)
        for task in staged
        if task.task not in names and any(parent.uuid in tainted for parent in task.lineage)
    ]


def same_weights(state: State, gone: Collection[str], removed: Sequence[Known]) -> tuple[str, ...]:
    """Return the tasks that stay and have the version of one that goes."""
    versions = {task.version for task in removed}
    return tuple(name for name, task in state.tasks.items() if name not in gone and task.version in versions)


def remaining(state: State, name: str, same: Sequence[str]) -> tuple[str, ...]:
    """Return warnings about what keeps a removed task's weights in models, or may."""
    held = [f"task {listed(same)} has the same weights as {name}: models with it still hold them"] if same else []
    return (*held, *(f"recipe {label} was left as it is: {error}" for label, error in state.broken.items()))


def kept_bytes(repo: Handle, state: State, removed: Sequence[Manifest], seen: Sequence[Known]) -> int:
    """Return the bytes of the store's objects that some version of ``removed`` uses, and nothing that lives does."""
    uuids = {task.uuid for task in removed}
    living = {oid for task in state.tasks.values() if task.uuid not in uuids for oid in task.objects()}
    versions = [*removed, *(item for item in seen if isinstance(item, Manifest))]
    used = {oid for version in versions for oid in version.objects()}
    return sum(repo.store.size(oid) or 0 for oid in used - living - {*state.base.objects()})
