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
from weightvc.objects.lock import Lock
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import Recipe
from weightvc.repo import device as devices
from weightvc.repo import output, resolve
from weightvc.repo.build import DEFAULT_SHARD, Builder
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Resolved
from weightvc.repo.state import State
from weightvc.store.local import LocalStore
from weightvc.util import fsio
from weightvc.util.errors import Conflict, Corrupt, WeightvcError
from weightvc.util.progress import Progress


@dataclass(frozen=True)
class Rebuilt:
    """One model without the task. ``before`` is known where an output directory held the model.

    ``proved`` says that a build from the twin store, which has nothing of the task, gave the same digest.
    """

    recipe: str
    before: str | None
    after: str
    output: str | None
    proved: bool


@dataclass(frozen=True)
class _Target:
    """A model to rebuild: its recipe without the tasks, and the directory and lock of what there was."""

    label: str
    recipe: Recipe
    directory: Path | None = None
    lock: Lock | None = None


class Rebuild:
    """Rebuilds, at the state after a removal, every model that contained the removed tasks.

    ``warnings`` collects the directories that could not be rebuilt because they hold files of somebody else's.
    """

    def __init__(self, repo: Handle, state: State, removed: Sequence[Manifest], device: str, jobs: int) -> None:
        self._repo = repo
        self._state = state
        self._names = [str(task.task) for task in removed]
        self._uuids = {task.uuid for task in removed}
        self._device = devices.find(device)
        self._jobs = jobs
        self.warnings: list[str] = []

    def run(self, recipes: Mapping[str, Recipe], default: Recipe, progress: Progress) -> Iterator[Rebuilt]:
        """Rebuild recorded output directories in place, and named recipes and the default one for their digests."""
        targets = [*self._directories()]
        targets += [_Target(name, recipe.without(self._names)) for name, recipe in recipes.items()]
        targets.append(_Target("default", default.without(self._names)))
        proved: dict[str, str] = {}
        with self._twin() as twin:
            for target in targets:
                resolved = resolve.pin(self._repo, self._state, target.recipe)
                key = resolved.recipe.digest
                if target.directory is not None or key not in proved:
                    lock = self._build(resolved, target, progress)
                    if lock is None:
                        continue
                    if key not in proved:
                        proved[key] = self._builder(twin, resolved, target).digests(progress).digest
                    if proved[key] != lock.digest:
                        raise Corrupt(
                            f"{target.label}: the rebuild differs from a build that never saw {self._names}",
                            "keep the repository as it is and report this",
                        )
                was = None if target.lock is None else target.lock.digest
                where = None if target.directory is None else str(target.directory)
                yield Rebuilt(target.label, was, proved[key], where, proved=True)

    def _directories(self) -> Iterator[_Target]:
        for directory in output.recorded(self._repo):
            try:
                lock = output.read_lock(directory)
            except WeightvcError:
                continue
            if any(task.uuid in self._uuids for task in lock.tasks):
                yield _Target(directory.name, lock.recipe.without(self._names), directory, lock)

    def _builder(self, repo: Handle, resolved: Resolved, target: _Target) -> Builder:
        shard = DEFAULT_SHARD if target.lock is None else target.lock.max_shard_size
        return Builder(repo, resolved, device=self._device, jobs=self._jobs, max_shard_size=shard)

    def _build(self, resolved: Resolved, target: _Target, progress: Progress) -> Lock | None:
        builder = self._builder(self._repo, resolved, target)
        if target.directory is None:
            return builder.digests(progress)
        try:
            output.check_free(target.directory, force=False)
        except Conflict as error:
            self.warnings.append(f"{target.directory} still holds the task: {error.what}")
            return None
        with output.building(target.directory) as made:
            lock = builder.write(made, progress)
            fsio.write_file(made / locks.NAME, lock.to_bytes())
        return lock

    @contextmanager
    def _twin(self) -> Iterator[Handle]:
        """Give a handle on a store that physically holds nothing but the objects of the state."""
        fsio.make_dirs(self._repo.tmp)
        root = self._repo.tmp / f"twin-{secrets.token_hex(4)}"
        store = LocalStore(root / "objects", root / "tmp")
        try:
            for oid in {oid for m in (self._state.base, *self._state.tasks.values()) for oid in m.objects()}:
                store.adopt(self._repo.store, oid)
            yield Handle(self._repo.git, store)
        finally:
            fsio.remove_tree(root)
