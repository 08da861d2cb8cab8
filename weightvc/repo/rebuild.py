"""Rebuilding what contained removed tasks, with proof.

The proof: every rebuilt model is built once more from a twin store, into which only the objects of the base and
of the remaining tasks were linked. A tensor that still depended on a removed task could not come out equal there.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weightvc.objects import lock as locks
from weightvc.objects.ids import Version
from weightvc.objects.lock import Lock
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import Recipe
from weightvc.repo import output, resolve
from weightvc.repo.build import DEFAULT_SHARD, Builder
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Resolved
from weightvc.repo.state import State
from weightvc.store.local import LocalStore
from weightvc.util import fsio
from weightvc.util.errors import Corrupt, NotFound, RequestError, UsageError, WeightvcError
from weightvc.util.progress import Progress


@dataclass(frozen=True)
class Rebuilt:
    """One model without the task. ``before`` is known where an output directory held the model.

    ``tasks`` are those that are left; with none, the model is the base.

    ``proved`` says that a build from the twin store, which has nothing of the task, gave the same digest.
    """

    recipe: str
    tasks: tuple[str, ...]
    before: str | None
    after: str
    output: str | None
    proved: bool


@dataclass(frozen=True)
class _Target:
    """A model to rebuild: a recipe at HEAD, or the one of a directory's lock."""

    label: str
    recipe: Recipe
    directory: Path | None = None
    lock: Lock | None = None


class Rebuild:
    """Rebuilds, at the state after a removal, every model that contained the removed tasks.

    A directory is rebuilt from the task versions that its lock pins, whatever HEAD has by now. ``warnings`` collects
    what could not be rebuilt: directories that hold files of somebody else's or whose task versions history lost,
    and recipes that no longer make a model. The removal stands all the same.
    """

    def __init__(self, repo: Handle, state: State, removed: Sequence[Manifest], device: str, jobs: int) -> None:
        self._repo = repo
        self._state = state
        self._names = [str(task.task) for task in removed]
        self._uuids = {task.uuid for task in removed}
        self._device = device
        self._jobs = jobs
        self._proved: dict[tuple[str, ...], Version] = {}
        self.warnings: list[str] = []

    def run(self, recipes: Mapping[str, Recipe], default: Recipe, progress: Progress) -> Iterator[Rebuilt]:
        """Rebuild recorded output directories in place, and named recipes and the default one for their digests."""
        targets = [*self._directories(), *(_Target(name, recipe) for name, recipe in recipes.items())]
        with self._twin() as twin:
            for target in [*targets, _Target("default", default)]:
                was = None if target.lock is None else target.lock.digest
                where = None if target.directory is None else str(target.directory)
                try:
                    after = self._rebuild(target, twin, progress)
                except (RequestError, UsageError) as error:
                    left = (
                        f"recipe {target.label} was not rebuilt" if where is None else f"{where} still holds the task"
                    )
                    self.warnings.append(f"{left}: {error.what}")
                else:
                    tasks = tuple(map(str, target.recipe.without(self._names).tasks))
                    yield Rebuilt(target.label, tasks, was, after, where, proved=True)

    def _directories(self) -> Iterator[_Target]:
        for directory in output.recorded(self._repo):
            fsio.sweep(directory)
            fsio.sweep(directory)
            try:
                lock = output.read_lock(directory)
            except NotFound:
                continue
            except WeightvcError as error:
                self.warnings.append(f"{directory} may still hold the task: {error.what}")
                continue
            if any(task.uuid in self._uuids for task in lock.tasks):
                yield _Target(directory.name, lock.recipe, directory, lock)

    def _rebuild(self, target: _Target, twin: Handle, progress: Progress) -> Version:
        """Build one model and return its digest, which a build from the twin store has given too."""
        resolved = self._resolve(target)
        key = resolved.recipe.digest, *(task.version for task in resolved.tasks)
        if target.directory is None and key in self._proved:
            return self._proved[key]
        made = self._build(self._builder(self._repo, resolved, target), target.directory, progress)
        if key not in self._proved:
            self._adopt(twin, resolved)
            self._proved[key] = self._builder(twin, resolved, target).digests(progress).digest
        if self._proved[key] != made.digest:
            raise Corrupt(
                f"{target.label}: the rebuild differs from a build that never saw {self._names}",
                "keep the repository as it is and report this",
            )
        return made.digest

    def _resolve(self, target: _Target) -> Resolved:
        if target.lock is not None:
            return resolve.pinned(self._repo, target.lock, self._names)
        return resolve.pin(self._repo, self._state, target.recipe.without(self._names))

    def _builder(self, repo: Handle, resolved: Resolved, target: _Target) -> Builder:
        shard = DEFAULT_SHARD if target.lock is None else target.lock.max_shard_size
        return Builder(repo, resolved, device=self._device, jobs=self._jobs, max_shard_size=shard)

    def _build(self, builder: Builder, directory: Path | None, progress: Progress) -> Lock:
        if directory is None:
            return builder.digests(progress)
        replaces = output.check_free(directory, force=False, jobs=self._jobs, progress=progress)
        with output.building(directory, replaces) as made:
            lock = builder.write(made, progress)
            fsio.write_file(made / locks.NAME, lock.to_bytes())
        return lock

    @contextmanager
    def _twin(self) -> Iterator[Handle]:
        """Give a handle on an empty scratch store."""
        fsio.make_dirs(self._repo.tmp)
        root = self._repo.tmp / f"twin-{secrets.token_hex(4)}"
        store = LocalStore(root / "objects", root / "tmp")
        try:
            yield Handle(self._repo.git, store)
        finally:
            fsio.remove_tree(root)

    def _adopt(self, twin: Handle, resolved: Resolved) -> None:
        """Link the objects of the base and of the remaining tasks into the twin store."""
        wanted = {oid for manifest in (resolved.state.base, *resolved.tasks) for oid in manifest.objects()}
        for oid in sorted(wanted):
            if twin.store.size(oid) is None:
                twin.store.adopt(self._repo.store, oid)
