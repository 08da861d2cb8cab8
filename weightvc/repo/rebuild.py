"""Rebuilding what contained removed tasks, with proof.

The proof: every rebuilt model is built once more from a twin store, into which only the objects of the base and
of the remaining tasks were linked. A tensor that still depended on a removed task could not come out equal there.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from weightvc.history import branch
from weightvc.objects import lock as locks
from weightvc.objects.ids import Version, is_task_name
from weightvc.objects.lock import Lock
from weightvc.objects.recipe import Recipe, parse_tasks
from weightvc.repo import asked, checkouts, output, resolve
from weightvc.repo import twin as twins
from weightvc.repo.build import DEFAULT_SHARD, Builder
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Request, Resolved
from weightvc.repo.state import State
from weightvc.repo.takeout import Gone
from weightvc.util import fsio, scratch
from weightvc.util.errors import Conflict, Corrupt, NotFound, UsageError, WeightvcError
from weightvc.util.progress import Progress
from weightvc.util.text import listed


@dataclass(frozen=True)
class Rebuilt:
    """One model without the task. ``before`` is known where an output directory held the model.

    ``recipe`` is the named recipe that is followed, ``None`` for all tasks and for a choice of tasks of one's own.

    ``tasks`` are those that are left; with none, the model is the base.

    ``proved`` says that a build from the twin store, which has nothing of the task, gave the same digest.
    """

    recipe: str | None
    tasks: tuple[str, ...]
    before: str | None
    after: str
    output: str | None
    proved: bool


@dataclass(frozen=True)
class Target:
    """A model to rebuild: a recipe at HEAD, named or of all tasks, or the one of a directory's lock.

    ``known`` says that one of the directories holds this very model, so that there is nothing to compute.
    """

    name: str | None
    recipe: Recipe
    directory: Path | None = None
    lock: Lock | None = None
    request: Request | None = None
    known: bool = False

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.directory or (f"recipe {self.name}" if self.name else "all tasks"))


class Rebuild:
    """Rebuilds, at the state after a removal, every model that contained the removed tasks.

    A directory is rebuilt from the task versions that its lock pins, whatever HEAD has by now, and replaced only by
    a model that is proved. ``warnings`` collects what could not be rebuilt: directories that hold files of somebody
    else's or whose task versions history lost, recipes that no longer make a model, models whose objects are missing
    or damaged, and whatever else stopped one of them; ``unproved`` names those directories and recipes. The removal
    stands all the same. ``notes`` says if there is nothing at all to compare.

    Args:
        repo: The repository.
        name: The task that the caller named, for advice.
        gone: The removed tasks.
        device: Where matrices are computed.
        jobs: Threads.
    """

    def __init__(self, repo: Handle, name: str, gone: Gone, device: str, jobs: int) -> None:
        self._repo = repo
        self._name = name
        self._gone = gone
        self._device = device
        self._jobs = jobs
        self._proved: dict[tuple[object, ...], Lock] = {}
        self._missing: list[Path] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.unproved: list[str] = []

    def targets(self, state: State, recipes: Collection[str]) -> list[Target]:
        """Return the recorded directories that hold the tasks, those of ``recipes`` that are left, and all tasks."""
        named = [Target(name, state.recipes[name]) for name in recipes if name in state.recipes]
        others = [*self._directories(), *named]
        return [*others, *self._all(state, alone=not others)]

    def plan(self, state: State, recipes: Collection[str], progress: Progress) -> list[Target]:
        """Return what :meth:`run` would rebuild; directories that hold what was added or changed are unproved."""
        planned: list[Target] = []
        models: set[tuple[object, ...]] = set()
        for target in self.targets(state, recipes):
            model = self._model(target, state)
            try:
                if target.directory is not None:
                    output.check_free(target.directory, force=False, jobs=self._jobs, progress=progress)
            except (WeightvcError, OSError) as error:
                self.unproved.append(str(target.directory))
                self.warnings.append(f"{target.directory} would not be rebuilt: {_why(target, error)}")
            else:
                planned.append(replace(target, known=target.directory is None and model in models))
                models |= {model} if model and target.directory else set()
        return planned

    def _model(self, target: Target, state: State) -> tuple[object, ...]:
        """Return what decides a model before its task is taken out; empty if that will show."""
        try:
            left = replace(target, recipe=target.recipe.without(self._gone.names))
            return _key(self._resolve(left, state), DEFAULT_SHARD)
        except WeightvcError:
            return ()

    def run(self, state: State, recipes: Collection[str], progress: Progress) -> Iterator[Rebuilt]:
        """Rebuild directories in place, and recipes, as ``state`` has them after the removal, for their digests."""
        for directory in checkouts.recorded(self._repo):
            scratch.sweep(directory)
        with twins.twin(self._repo) as twin:
            for target in self.targets(state, recipes):
                was = None if target.lock is None else target.lock.digest
                where = None if target.directory is None else str(target.directory)
                try:
                    after = self._rebuild(target, self._resolve(target, state), twin, progress)
                except Exception as error:  # noqa: BLE001 -- the removal is committed: whatever stops one stops no other
                    self.unproved.append(where or target.name or target.label)
                    self.warnings.append(self._failure(target, error))
                else:
                    tasks = tuple(map(str, target.recipe.without(self._names(target)).tasks))
                    yield Rebuilt(target.name, tasks, was, after, where, proved=True)
        for directory in self._missing:
            if directory.parent.is_dir():  # removed or moved away, and not on a disk that is not mounted now
                checkouts.forget(self._repo, directory)

    def _all(self, state: State, *, alone: bool) -> Iterator[Target]:
        """Return the model of all tasks that are left, if they make one: some need rules, or another method.

        That they make none is said where they are all that could be compared.
        """
        target = Target(None, state.default_recipe().without(self._gone.names))
        try:
            _ = self._builder(self._repo, self._resolve(target, state), target).plan
        except (Conflict, UsageError) as error:
            if alone:
                self.notes.append(f"all tasks together make no model, so that there is none to compare: {error.what}")
        else:
            yield target

    def _failure(self, target: Target, error: Exception) -> str:
        why = _why(target, error)
        if target.directory is None:
            return f"{target.label} {'was' if target.name else 'were'} not rebuilt: {why}"
        still = f"{target.directory} still holds the task: "
        if not isinstance(error, Conflict):
            return still + why
        again = f"`wvc revert {self._name}` again, or replace it with `{self._anew(target, target.directory)} --force`"
        return f"{still}{why}; move them away and run {again}"

    def _anew(self, target: Target, directory: Path) -> str:
        """Return the command that asks for what is left of what was asked for in a directory."""
        gone = self._names(target)
        left = target.recipe.without(gone)
        request = asked.remains(target.request, left, target.recipe, gone) if target.request else Request()
        return asked.command(self._repo, request, directory, [weighted.task for weighted in left.tasks])

    def _directories(self) -> Iterator[Target]:
        elsewhere: dict[Path, list[str]] = {}
        for directory, request in checkouts.recorded(self._repo).items():
            try:
                lock = output.read_lock(directory)
            except NotFound:
                self._missing += [directory] if self._may_be_moved(directory, request) else []
                continue
            except WeightvcError as error:
                self.unproved.append(str(directory))
                self.warnings.append(f"{directory} may still hold the task: {error.what}")
                continue
            if twins := [task.task for task in lock.tasks if self._gone.is_twin(task)]:
                self.warnings.append(f"{directory} still holds those weights, as task {listed(twins)}")
            if not any(map(self._gone.holds, lock.tasks)):
                continue
            if top := checkouts.elsewhere(self._repo, directory):
                elsewhere.setdefault(top, []).append(str(directory))
            else:
                yield Target(_recipe(request), lock.recipe, directory, lock, request)
        self.warnings += [self._for_another(top, paths) for top, paths in elsewhere.items()]
        if self._missing:
            gone = listed(list(map(str, self._missing)))
            self.warnings.append(f"not found: {gone}; a model that was moved from there may still hold the task")

    def _for_another(self, top: Path, paths: list[str]) -> str:
        """Return how a removal gets to another work tree: as this branch has it, for another of its own conflicts."""
        here = branch.current(self._repo.git) or "this commit"
        bring = f"bring the removal to its branch with `git merge {here}` or `git rebase {here}` there"
        holds = f"the branch of the work tree {top} decides whether these hold the task: {listed(paths)}"
        return f"{holds}; {bring}, then run `wvc revert {self._name}` there, which rebuilds them"

    def _may_be_moved(self, directory: Path, request: Request | None) -> bool:
        """Tell whether a directory is gone that may have held the tasks."""
        asked_for = None if request is None or request.tasks is None else parse_tasks(request.tasks)
        held = asked_for is None or any(weighted.task in {self._name, *self._gone.names} for weighted in asked_for)
        return held and not os.path.lexists(directory)

    def _names(self, target: Target) -> list[str]:
        """Return the names that the removed tasks have in a lock; recipes after the removal name none of them."""
        tasks = () if target.lock is None else target.lock.tasks
        return [task.task for task in tasks if self._gone.holds(task)]

    def _rebuild(self, target: Target, resolved: Resolved, twin: Handle, progress: Progress) -> Version:
        """Build one model and return its digest, which a build from the twin store has given too."""
        builder = self._builder(self._repo, resolved, target)
        if target.directory is None:
            known = self._proved.get(_key(resolved, DEFAULT_SHARD))
            return known.digest if known else self._prove(builder.digests(progress), target, resolved, twin, progress)
        replaces = output.check_free(target.directory, force=False, jobs=self._jobs, progress=progress)
        with output.building(target.directory, replaces) as made:
            lock = builder.write(made, progress)
            fsio.write_file(made / locks.NAME, lock.to_bytes())
            digest = self._prove(lock, target, resolved, twin, progress)
        if target.request is not None:
            kept = asked.remains(target.request, lock.recipe, target.recipe, self._names(target))
            checkouts.note(self._repo, target.directory, kept)
        return digest

    def _prove(self, made: Lock, target: Target, resolved: Resolved, twin: Handle, progress: Progress) -> Version:
        """Compare all that a lock lists, tensors, heads and other files, with a build from the twin store."""
        key = _key(resolved, made.max_shard_size)
        if key not in self._proved:
            twins.adopt(twin, self._repo, (resolved.state.base, *resolved.tasks))
            self._proved[key] = self._builder(twin, resolved, target).digests(progress)
        never = self._proved[key]
        if (never.files, set(never.tensors)) != (made.files, set(made.tensors)):
            raise Corrupt(
                "the rebuild differs from a build that never saw the task; keep the repository as it is and report this"
            )
        return made.digest

    def _resolve(self, target: Target, state: State) -> Resolved:
        if target.lock is not None:
            return resolve.pinned(self._repo, target.lock, self._names(target))
        return resolve.pin(self._repo, state, state.model(target.recipe))

    def _builder(self, repo: Handle, resolved: Resolved, target: Target) -> Builder:
        shard = DEFAULT_SHARD if target.lock is None else target.lock.max_shard_size
        resumed = repo is self._repo  # the proof reads the twin store and nothing else
        return Builder(repo, resolved, device=self._device, jobs=self._jobs, max_shard_size=shard, resumed=resumed)


def _why(target: Target, error: Exception) -> str:
    """Return why a model was not rebuilt, for a sentence that begins with its directory."""
    what = error.what if isinstance(error, WeightvcError) else _said(error)
    start = f"{target.directory} "
    return f"it {what.removeprefix(start)}" if what.startswith(start) else what


def _recipe(request: Request | None) -> str | None:
    """Return the named recipe that was asked for; a recipe file is none."""
    named = request is not None and request.recipe is not None and is_task_name(request.recipe)
    return request.recipe if request is not None and named else None


def _said(error: Exception) -> str:
    """Return what stopped a rebuild that nobody foresaw."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    return str(error) if isinstance(error, OSError) else f"this is a bug in wvc: {error!r}"


def _key(resolved: Resolved, max_shard_size: int) -> tuple[object, ...]:
    """Return what decides the bytes of a model."""
    return resolved.state.commit, resolved.recipe.digest, max_shard_size, *(task.version for task in resolved.tasks)
