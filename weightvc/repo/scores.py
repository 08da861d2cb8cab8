"""A task's scores: asked of an evaluator or known already, and as they are shown."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from weightvc import repo as cases
from weightvc.checkpoint.reader import Checkpoint
from weightvc.objects.manifest import Manifest
from weightvc.objects.scores import Score
from weightvc.repo import snapshot, stage
from weightvc.repo.evaluator import Evaluation
from weightvc.repo.loss import Measured
from weightvc.repo.repository import Handle, task_path
from weightvc.repo.state import State
from weightvc.store.local import LocalStore
from weightvc.util.progress import Progress

Taken: TypeAlias = tuple[Manifest, tuple[Measured, ...]]
"""The manifest of a fine-tune that was stored, and what its lossy tensors lost."""

Take: TypeAlias = Callable[[snapshot.Options, LocalStore], Taken]
"""Stores the fine-tune in some way, somewhere."""


@dataclass(frozen=True)
class ScoreLine:
    """One score of the base, of the fine-tune that was added, and of what comes back.

    ``kept`` is the share of the gain over the base that is kept, ``None`` where there is no gain.
    """

    base: float
    tuned: float
    stored: float
    kept: float | None

    def __str__(self) -> str:
        """Return the figures as people read them."""
        return str(Score("", self.base, self.tuned, self.stored))


@dataclass(frozen=True)
class Fallback:
    """A lossy codec that was tried and not taken: what it would have stored, and the scores of what would come back.

    ``dropped`` names the scores that fell by more than ``max_drop``.
    """

    codec: str
    max_drop: float
    stored_bytes: int
    scores: dict[str, ScoreLine]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """A task with its scores, and the codec that it is stored by; ``fallback`` is the one that lost too much."""

    manifest: Manifest
    measured: tuple[Measured, ...]
    codec: str
    fallback: Fallback | None = None


def lines(scores: Iterable[Score]) -> dict[str, ScoreLine]:
    """Return the scores by name."""
    return {score.name: ScoreLine(score.base, score.tuned, score.stored, score.kept) for score in scores}


def judge(  # noqa: PLR0917 -- all that an evaluation joins
    repo: Handle,
    state: State,
    checkpoint: Checkpoint,
    take: Take,
    evaluation: Evaluation | None,
    store: snapshot.Options,
    progress: Progress,
) -> Verdict:
    """Store a fine-tune, with scores if an evaluation is asked for: :func:`weightvc.repo.evaluate.judge`."""
    if evaluation is not None:
        return cases.evaluate.judge(repo, state, checkpoint, take, evaluation, store, progress)  # loads torch
    manifest, measured = take(store, repo.store)
    path = task_path(str(manifest.task))
    staged = stage.changes(repo).get(path)
    known = (Manifest.from_bytes(staged, path) if staged else None, state.tasks.get(str(manifest.task)))
    return Verdict(_carried(manifest, known), measured, store.codec)


def _carried(manifest: Manifest, known: Iterable[Manifest | None]) -> Manifest:
    """Return a manifest with the scores of the first ``known`` one of the same fine-tune that gives back the same.

    Files count, too: an evaluator sees them.
    """
    content = _content(manifest)
    same = next((one for one in known if one is not None and one.scores and _content(one) == content), None)
    return manifest if same is None else replace(manifest, scores=same.scores)


def _content(manifest: Manifest) -> list[object]:
    return [(entry.spec, entry.digest, entry.lossy) for entry in manifest.entries()]
