"""The façade: an open repository whose methods are the commands. Each loads what it needs on first use."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from weightvc import repo
from weightvc.objects.recipe import Mismatch, NameRule, Scalar
from weightvc.repo.repository import Handle, open_handle
from weightvc.util import parallel
from weightvc.util.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

    from weightvc.delta.codec import Level
    from weightvc.repo.add import Added
    from weightvc.repo.checkout import CheckedOut
    from weightvc.repo.commit import Committed
    from weightvc.repo.diff import Difference
    from weightvc.repo.du import Used
    from weightvc.repo.estimate import Estimated
    from weightvc.repo.fsck import Checked
    from weightvc.repo.gc import Collected
    from weightvc.repo.init import Initialized
    from weightvc.repo.log import LogLine
    from weightvc.repo.recipe import NamedRecipe
    from weightvc.repo.repack import Repacked
    from weightvc.repo.revert import Reverted
    from weightvc.repo.show import ShownRevision, ShownTask
    from weightvc.repo.status import Status
    from weightvc.repo.unstage import Unstaged
    from weightvc.repo.verify import Verified


def initialize(
    path: str | Path,
    base: str | Path,
    *,
    codec: str = "intdelta",
    jobs: int | None = None,
    progress: Progress = SILENT,
) -> "Initialized":
    """Make ``path`` a repository over the checkpoint ``base``; see :func:`weightvc.repo.init.init`."""
    options = repo.snapshot.Options(codec, jobs=parallel.workers(jobs))
    return repo.init.init(Path(path), Path(base), options, progress)


class Repository(Handle):
    """A weightvc repository.

    Every method does what the command of its name does, takes the same options, and returns the dataclass whose
    JSON the command prints. ``jobs`` is a number of threads, all cores by default.

    Example:
        >>> import weightvc
        >>> repo = weightvc.open("models")  # doctest: +SKIP
        >>> repo.add("tuned", task="support")  # doctest: +SKIP
        >>> repo.commit("Add the support model")  # doctest: +SKIP
        >>> dict(repo.materialize(["support", "sales=0.7"]))  # doctest: +SKIP
    """

    @classmethod
    def open(cls, path: str | Path = ".") -> Self:
        """Open the repository that ``path`` lies in.

        Raises:
            NotARepository: there is none, or git alone.
        """
        found, _ = open_handle(Path(path))
        repo.state.load(found)
        return cls(found.git, found.store)

    def add(
        self,
        path: str | Path,
        task: str,
        *,
        codec: str = "intdelta",
        level: "Level" = "default",
        derived_from: Sequence[str] = (),
        force_base: bool = False,
        allow_nonfinite: bool = False,
        evaluator: str | None = None,
        max_drop: float | None = None,
        jobs: int | None = None,
        dry_run: bool = False,
        progress: Progress = SILENT,
    ) -> "Added":
        """Store a fine-tune and stage its manifest; see :func:`weightvc.repo.add.add`.

        ``evaluator`` is the command of `--eval`; see :mod:`weightvc.repo.evaluator`.
        """
        store = repo.snapshot.Options(codec, level, parallel.workers(jobs), allow_nonfinite)
        evaluation = repo.evaluator.asked(evaluator, max_drop)
        options = repo.add.Options(store, derived_from, force_base, dry_run, evaluation)
        return repo.add.add(self, Path(path), task, options, progress)

    def estimate(
        self,
        path: str | Path,
        task: str,
        *,
        codec: str = "intdelta",
        force_base: bool = False,
        jobs: int | None = None,
        progress: Progress = SILENT,
    ) -> "Estimated":
        """Say what :meth:`add` would store by each codec and level; see :func:`weightvc.repo.estimate.estimate`."""
        options = repo.estimate.Options(codec, parallel.workers(jobs), force_base)
        return repo.estimate.estimate(self, Path(path), task, options, progress)

    def commit(self, message: str) -> "Committed":
        """Commit what is staged; see :func:`weightvc.repo.commit.commit`."""
        return repo.commit.commit(self, message)

    def unstage(self, names: Sequence[str] = (), *, dry_run: bool = False) -> "Unstaged":
        """Drop what is staged, all of it by default; see :func:`weightvc.repo.unstage.unstage`."""
        return repo.unstage.unstage(self, names, dry_run=dry_run)

    def status(self) -> "Status":
        """Return what is committed and what is staged; see :func:`weightvc.repo.status.status`."""
        return repo.status.status(self)

    def log(self, task: str | None = None, rev: str = "HEAD", limit: int | None = None) -> "Iterator[LogLine]":
        """Return commits, newest first; see :func:`weightvc.repo.log.log`."""
        return repo.log.log(self, task, rev, limit)

    def show(self, name: str) -> "ShownTask | ShownRevision":
        """Return what is known of a task or revision; see :func:`weightvc.repo.show.show`."""
        return repo.show.show(self, name)

    def diff(self, a: str, b: str | None = None, *, layers: bool = False, progress: Progress = SILENT) -> "Difference":
        """Compare two models as task vectors; see :func:`weightvc.repo.diff.diff`."""
        return repo.diff.diff(self, a, b, layers=layers, progress=progress)

    def checkout(
        self,
        tasks: Sequence[str] | None = None,
        *,
        rev: str = "HEAD",
        recipe: str | None = None,
        method: str | None = None,
        params: Mapping[str, Scalar] | None = None,
        dtype: str | None = None,
        on_int_mismatch: Mismatch | None = None,
        rules: Sequence[str] | None = None,
        output: str | Path | None = None,
        progress: Progress = SILENT,
        **options: Any,
    ) -> "CheckedOut":
        """Build a model directory; see :func:`weightvc.repo.checkout.checkout`.

        Args:
            tasks: ``name`` or ``name=coefficient``; all tasks by default.
            rev: The revision to take tasks from.
            recipe: A recipe's name or file, instead of ``tasks``.
            method: A merge method; the recipe's or repository's by default.
            params: Its parameters.
            dtype: Casts floating-point tensors of the result: ``F64``, ``F32``, ``F16`` or ``BF16``.
            on_int_mismatch: ``error`` or ``base``, for integer tensors that tasks changed in different ways.
            rules: ``pattern=method[:key=value,…]``, other methods for tensors by name.
            output: The directory; ``model`` in the work tree by default.
            progress: Told of bytes done.
            options: Other fields of :class:`weightvc.repo.checkout.Options`: ``device``, ``jobs``,
                ``max_shard_size``, ``force``, ``dry_run``.
        """
        request = repo.resolve.Request(rev, tasks, recipe, method, params, dtype, on_int_mismatch, _rules(rules))
        options["jobs"] = parallel.workers(options.get("jobs"))
        where = repo.checkout.Options(None if output is None else Path(output), **options)
        return repo.checkout.checkout(self, request, where, progress)

    def materialize(
        self,
        tasks: Sequence[str] | None = None,
        *,
        rev: str = "HEAD",
        method: str | None = None,
        params: Mapping[str, Scalar] | None = None,
        dtype: str | None = None,
        rules: Sequence[str] | None = None,
        device: str = "cpu",
        jobs: int | None = None,
        progress: Progress = SILENT,
    ) -> "Iterator[tuple[str, Tensor]]":
        """Yield the tensors that a checkout would write as (name, tensor on ``device``), sorted by name.

        Memory holds one tensor at a time, besides what the method itself needs.
        """
        request = repo.resolve.Request(rev, tasks, None, method, params, dtype, rules=_rules(rules))
        return repo.build.tensors(self, request, device, parallel.workers(jobs), progress)

    def revert(self, target: str, *, progress: Progress = SILENT, **options: Any) -> "Reverted":
        """Take a task out and rebuild what contained it; see :func:`weightvc.repo.revert.revert`.

        Args:
            target: A task, or a revision that added tasks.
            progress: Told of bytes done.
            options: Fields of :class:`weightvc.repo.revert.Options`.
        """
        options["jobs"] = parallel.workers(options.get("jobs"))
        return repo.revert.revert(self, target, repo.revert.Options(**options), progress)

    def verify(
        self,
        path: str | Path,
        *,
        replay: bool = False,
        device: str = "auto",
        jobs: int | None = None,
        progress: Progress = SILENT,
    ) -> "Verified":
        """Compare a checkout directory with its lock; see :func:`weightvc.repo.verify.verify`."""
        return repo.verify.verify(
            Path(path), self, replay=replay, device=device, jobs=parallel.workers(jobs), progress=progress
        )

    def fsck(self, *, full: bool = False, jobs: int | None = None, progress: Progress = SILENT) -> "Checked":
        """Check that all stored data is here and whole; see :func:`weightvc.repo.fsck.fsck`."""
        return repo.fsck.fsck(self, full=full, jobs=parallel.workers(jobs), progress=progress)

    def repair(
        self,
        sources: Sequence[str | Path] = (),
        *,
        dry_run: bool = False,
        jobs: int | None = None,
        progress: Progress = SILENT,
    ) -> "Checked":
        """Put aside what is damaged and bring back what ``sources`` have; see :func:`weightvc.repo.repair.repair`."""
        paths = [Path(source) for source in sources]
        return repo.repair.repair(self, paths, dry_run=dry_run, jobs=parallel.workers(jobs), progress=progress)

    def gc(self, *, grace_days: float = 14, dry_run: bool = False, progress: Progress = SILENT) -> "Collected":
        """Delete objects that nothing refers to; see :func:`weightvc.repo.gc.gc`."""
        return repo.gc.gc(self, repo.gc.Options(grace_days, dry_run), progress)

    def du(self) -> "Used":
        """Say what the base and each task take in the store; see :func:`weightvc.repo.du.du`."""
        return repo.du.du(self)

    def repack(
        self,
        tasks: Sequence[str] = (),
        *,
        codec: str | None = None,
        level: "Level | None" = None,
        jobs: int | None = None,
        dry_run: bool = False,
        progress: Progress = SILENT,
    ) -> "Repacked":
        """Store tasks, all by default, in another encoding; see :func:`weightvc.repo.repack.repack`."""
        options = repo.repack.Options(codec, level, parallel.workers(jobs), dry_run)
        return repo.repack.repack(self, tasks, options, progress)

    def recipes(self) -> "tuple[NamedRecipe, ...]":
        """Return the named recipes; see :func:`weightvc.repo.recipe.listing`."""
        return repo.recipe.listing(self)

    def save_recipe(
        self, name: str, tasks: Sequence[str], *, rules: Sequence[str] | None = None, **request: Any
    ) -> "NamedRecipe":
        """Stage a recipe; see :func:`weightvc.repo.recipe.save`.

        ``rules`` are as those of :meth:`checkout`; ``request`` holds other fields of
        :class:`weightvc.repo.resolve.Request`.
        """
        return repo.recipe.save(self, name, repo.resolve.Request(tasks=tasks, rules=_rules(rules), **request))

    def remove_recipe(self, name: str) -> "NamedRecipe":
        """Stage a recipe's removal; see :func:`weightvc.repo.recipe.remove`."""
        return repo.recipe.remove(self, name)


def _rules(texts: Sequence[str] | None) -> tuple[NameRule, ...] | None:
    return None if texts is None else tuple(map(NameRule.parse, texts))
