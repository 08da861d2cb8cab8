"""What a task was trained from: tasks that are named, or those in the lock that lies beside its checkpoint."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from weightvc.objects.lock import NAME, Lock
from weightvc.objects.manifest import Manifest, Parent
from weightvc.repo.output import read_lock
from weightvc.repo.state import State
from weightvc.util.errors import NotFound, UsageError, WeightvcError
from weightvc.util.text import listed, printable


def named(state: State, sources: Sequence[str], task: str) -> tuple[Parent, ...]:
    """Return the task versions behind the tasks and recipes that ``task`` was trained from, less its own.

    Raises:
        NotFound: one is neither.
        UsageError: one is the task itself.
    """
    names: list[str] = []
    for source in sources:
        if source == task:
            raise UsageError(f"--derived-from {task}: no task derives from itself", "leave it out")
        if source in state.tasks:
            names.append(source)
        elif recipe := state.recipe(source):
            names += [weighted.task for weighted in recipe.tasks]
        else:
            raise NotFound(
                f"--derived-from {printable(source)}: no task or recipe of that name is committed",
                "run `wvc status` to see the tasks, `wvc recipe list` the recipes",
            )
    manifests = [state.task(name) for name in dict.fromkeys(names) if name != task]
    return tuple(Parent(str(m.task), str(m.uuid), m.version) for m in manifests)


def found(path: Path, name: str) -> tuple[tuple[Parent, ...], list[str]]:
    """Return the tasks in the lock of the directory that a checkpoint lies in, but for ``name``, and notes on them.

    wvc writes a lock into every directory that it checks out, and training often goes on in a copy of one.
    """
    directory = path if path.is_dir() else path.parent
    try:
        lock: Lock = read_lock(directory)
    except NotFound:
        return (), []
    except WeightvcError as error:
        return (), [f"what it was trained from is not recorded: {error.what}"]
    parents = tuple(task for task in lock.tasks if task.task != name)
    names = listed([parent.task for parent in parents])
    return parents, [f"recorded as derived from {names}, which {NAME} beside it names"] if parents else []


def union(parents: Iterable[Parent]) -> tuple[Parent, ...]:
    """Return each parent once, in the order given."""
    return tuple({parent.uuid: parent for parent in parents}.values())


def notes(state: State, parents: Sequence[Parent], manifest: Manifest | None) -> list[str]:
    """Return a sentence for each way in which a task brings back, or doubles, weights that the repository knows.

    Args:
        state: The repository at HEAD.
        parents: What the task was trained from.
        manifest: The task, ``None`` as long as its tensors have not been read.
    """
    living = {task.uuid for task in state.tasks.values()}
    gone = [removal for removal in state.removals.values() if removal.uuid not in living]
    found = [(parent.task, r.removed[:10]) for parent in parents for r in gone if r.uuid == parent.uuid]
    told = dict.fromkeys(f"{task} (taken out on {day})" for task, day in found)
    said = [f"it derives from what was removed: {listed(list(told))}"] if told else []
    if manifest is None or manifest.version == state.base.version:
        return said
    twins = [name for name, task in state.tasks.items() if task.version == manifest.version and name != manifest.task]
    held = f"tasks {listed(twins)} have" if len(twins) > 1 else f"task {listed(twins)} has"
    said += [f"{held} the same weights"] if twins else []
    back = dict.fromkeys(f"{r.task} (taken out on {r.removed[:10]})" for r in gone if r.version == manifest.version)
    return said + ([f"these are the weights of {listed(list(back))}"] if back else [])
