"""Show: one task, or one revision."""

from collections import Counter
from dataclasses import dataclass

from weightvc.objects.ids import is_task_name
from weightvc.repo import log, loss, scores, stage
from weightvc.repo.log import LogLine
from weightvc.repo.loss import Lossy
from weightvc.repo.repository import Handle
from weightvc.repo.scores import ScoreLine
from weightvc.repo.state import State, load
from weightvc.repo.status import TaskLine, line
from weightvc.util.errors import NotFound


@dataclass(frozen=True)
class ShownTask:
    """A task's manifest in figures. ``tensors`` counts by state, ``dtypes`` by dtype, ``codecs`` by codec.

    ``updates`` counts the tensors of the base that an adapter updates, by rank. ``lossy`` says how far what comes back
    is from what was added, if it is another thing; ``scores`` what an evaluator said of both, and of the base.
    """

    task: str
    uuid: str
    version: str
    added: str
    base: str
    source: str
    lineage: tuple[str, ...]
    tensors: dict[str, int]
    dtypes: dict[str, int]
    codecs: dict[str, int]
    files: tuple[str, ...]
    renamed: int
    new: tuple[str, ...]
    nonfinite: int
    bytes: int
    stored_bytes: int
    lossy: Lossy | None
    updates: dict[str, int]
    scores: dict[str, ScoreLine]


@dataclass(frozen=True)
class ShownRevision:
    """A revision: its commit and all tasks that it has."""

    commit: LogLine
    base: str
    method: str
    tasks: tuple[TaskLine, ...]
    recipes: tuple[str, ...]


def show(repo: Handle, name: str) -> ShownTask | ShownRevision:
    """Return what is known of a task at HEAD, or else of the revision ``name``.

    Raises:
        NotFound: neither a task nor a revision; a recipe, and what is only staged, is said to be so.
    """
    state = load(repo)
    if name in state.tasks:
        return _task(state, name)
    try:
        state = load(repo, name)
    except NotFound:
        if name in state.recipes or name in state.broken:
            raise NotFound(f"{name} is a recipe, not a task or a revision", f"run `wvc recipe show {name}`") from None
        stage.refuse(repo, name)
        if is_task_name(name):
            state.task(name)
        raise
    commit = log.show(repo, state.commit)
    tasks = tuple(line(task) for task in state.tasks.values())
    return ShownRevision(commit, state.base.version, state.config.method, tasks, tuple(sorted(state.recipes)))


def _task(state: State, name: str) -> ShownTask:
    task = state.task(name)
    head = line(task)
    return ShownTask(
        task=name,
        uuid=str(task.uuid),
        version=task.version,
        added=str(task.added),
        base=str(task.base),
        source=task.source,
        lineage=tuple(parent.task for parent in task.lineage),
        tensors=dict(Counter(entry.state for entry in task.tensors)),
        dtypes=dict(Counter(entry.spec.dtype for entry in task.tensors)),
        codecs=dict(Counter(entry.place.codec for entry in task.tensors if entry.place is not None)),
        files=tuple(entry.spec.name for entry in task.files),
        renamed=sum(entry.of is not None and entry.of != entry.spec.name for entry in task.tensors),
        new=tuple(entry.spec.name for entry in task.heads),
        nonfinite=task.nonfinite,
        bytes=head.bytes,
        stored_bytes=head.stored_bytes,
        lossy=loss.total(task),
        updates=dict(Counter(str(task.by_name[update.a].spec.shape[0]) for update in task.updates)),
        scores=scores.lines(task.scores),
    )
