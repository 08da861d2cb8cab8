"""Evaluate: what a fine-tune scores, and what of that a lossy codec leaves, before the task is staged.

Three directories are scored: a checkout of the base, the fine-tune as it was given, and what `wvc checkout` will give
back of it, less the lock. Checkouts lie in the repository's scratch space while they are scored. A fine-tune that is
one file is put into a directory there, as a checkout would, and an adapter is merged into the base. Without a lossy
tensor what comes back is what was added, and is not scored again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from weightvc.checkpoint.reader import Checkpoint
from weightvc.checkpoint.writer import Layout, Writer
from weightvc.delta.codec import codec_named
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import OWN, Recipe, Weighted
from weightvc.objects.scores import Score
from weightvc.repo import pieces, resolve, scores, snapshot
from weightvc.repo.build import DEFAULT_SHARD, Builder
from weightvc.repo.checkout import RUNTIME, SPANS
from weightvc.repo.evaluator import Evaluation, Evaluator
from weightvc.repo.repository import Handle
from weightvc.repo.scores import Fallback, Take, Verdict
from weightvc.repo.state import State
from weightvc.repo.twin import adopt, keep, twin
from weightvc.util import fsio, scratch
from weightvc.util.errors import BadInput
from weightvc.util.progress import Progress
from weightvc.util.text import listed

_BASE, _TUNED, _STORED = "the base", "the fine-tune", "what comes back"


def peak_bytes(jobs: int) -> int:
    """Estimate the peak private memory of a checkout to be scored; the evaluator's own is not counted."""
    return RUNTIME + jobs * SPANS


def judge(  # noqa: PLR0917 -- all that it joins
    repo: Handle,
    state: State,
    checkpoint: Checkpoint,
    take: Take,
    evaluation: Evaluation,
    store: snapshot.Options,
    progress: Progress,
) -> Verdict:
    """Score the base and the fine-tune, store it, score what comes back, and store it losslessly if that lost much.

    The evaluator runs on the base and on the fine-tune first, and a lossy encoding is tried in a scratch store: one
    that fails, or loses too much, leaves nothing in the repository's.

    Raises:
        BadInput: the evaluator cannot be run, fails, or does not give the same scores each time.
    """
    work = _Work(repo, state, evaluation.evaluator, store.jobs, progress)
    base = work.base()
    tuned = work.tuned(checkpoint) if checkpoint.adapter is None else work.merged(take, store)
    checkpoint.refuse_changed()
    _compare(base, tuned, _TUNED)
    tried = None
    if codec_named(store.codec).lossy:
        with twin(repo) as made:
            adopt(made, repo, [state.base])
            manifest, measured = take(store, made.store)
            stored = work.stored(made, manifest) if manifest.lossy else tuned
            _compare(base, stored, _STORED)
            manifest = _with(manifest, base, tuned, stored)
            if not (dropped := evaluation.dropped(manifest.scores)):
                keep(made, repo, manifest)
                return Verdict(manifest, measured, store.codec)
        size, found = sum(manifest.objects().values()), scores.lines(manifest.scores)
        tried = Fallback(store.codec, float(evaluation.max_drop or 0), size, found, dropped)
        store = replace(store, codec=pieces.LOSSLESS)
    manifest, measured = take(store, repo.store)
    return Verdict(_with(manifest, base, tuned, tuned), measured, store.codec, tried)


class _Work:
    """Makes the directories, one at a time, and scores them."""

    def __init__(self, repo: Handle, state: State, evaluator: Evaluator, jobs: int, progress: Progress) -> None:
        self._repo = repo
        self._state = state
        self._evaluator = evaluator
        self._jobs = jobs
        self._progress = progress

    def base(self) -> dict[str, float]:
        """Score the base, as it is checked out."""
        with self._checkout(self._repo, self._state, Recipe(())) as directory:
            return self._score(directory, _BASE)

    def tuned(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Score a fine-tune where it lies; a single file in a directory of its own."""
        if checkpoint.path.is_dir():
            return self._score(checkpoint.path.absolute(), _TUNED)
        specs = list(checkpoint.tensors.values())
        layout = Layout.verbatim(checkpoint.headers) if checkpoint.headers else Layout.pack(specs, DEFAULT_SHARD)
        with self._directory() as directory:
            with Writer(directory, layout) as writer:
                for spec in specs:
                    writer.write(spec.name, checkpoint.read(spec.name))
                writer.finish()
            return self._score(directory, _TUNED)

    def merged(self, take: Take, store: snapshot.Options) -> dict[str, float]:
        """Score an adapter, merged into the base."""
        with twin(self._repo) as made:
            adopt(made, self._repo, [self._state.base])
            manifest, _ = take(replace(store, codec=pieces.LOSSLESS), made.store)
            return self.stored(made, manifest, _TUNED)

    def stored(self, made: Handle, manifest: Manifest, what: str = _STORED) -> dict[str, float]:
        """Score what comes back of a task that is not staged yet, and whose objects are in another store."""
        name = str(manifest.task)
        state = replace(self._state, tasks={**self._state.tasks, name: manifest})
        recipe = Recipe((Weighted(name),), dtype=OWN if manifest.updates else None)
        with self._checkout(made, state, recipe) as directory:
            return self._score(directory, what)

    @contextmanager
    def _checkout(self, repo: Handle, state: State, recipe: Recipe) -> Iterator[Path]:
        resolved = resolve.pin(repo, state, recipe)
        with self._directory() as directory:
            Builder(repo, resolved, device="cpu", jobs=self._jobs).write(directory, self._progress)
            yield directory

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        """Give an empty directory called ``model``, which goes with all that the evaluator leaves there."""
        with scratch.inside(self._repo.tmp) as root:
            directory = root / "model"
            fsio.make_dirs(directory)
            yield directory.absolute()

    def _score(self, directory: Path, what: str) -> dict[str, float]:
        with self._progress.stage(f"Scoring {what}", 0):
            return self._evaluator.score(directory, what)


def _with(
    manifest: Manifest, base: Mapping[str, float], tuned: Mapping[str, float], stored: Mapping[str, float]
) -> Manifest:
    return replace(manifest, scores=tuple(Score(name, base[name], tuned[name], stored[name]) for name in base))


def _compare(base: Mapping[str, float], other: Mapping[str, float], what: str) -> None:
    if base.keys() != other.keys():
        raise BadInput(
            f"the evaluator gave {listed(list(base))} for {_BASE}, but {listed(list(other))} for {what}",
            "have it print the same names for every model",
        )
