"""Init: a base checkpoint → a new repository, committed."""

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.history import commit as commits
from weightvc.history.create import init as git_init
from weightvc.history.git import GitDir, locate
from weightvc.objects.config import Config
from weightvc.objects.ids import Version
from weightvc.objects.manifest import Manifest
from weightvc.repo import guard, snapshot
from weightvc.repo.repository import BASE, CONFIG, TRACKED, handle
from weightvc.util import fsio, scratch
from weightvc.util.errors import BadInput, Conflict
from weightvc.util.progress import SILENT, Progress


@dataclass(frozen=True)
class Base:
    """The base as it was stored. ``bytes`` counts the tensors, ``stored_bytes`` all new objects' worth."""

    digest: Version
    tensors: int
    bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Initialized:
    """What init did; for a dry run ``commit`` is ``None`` and ``peak_bytes`` what it would need of memory at most."""

    repository: str
    base: Base
    commit: str | None
    warnings: tuple[str, ...] = ()
    peak_bytes: int | None = None


def init(
    directory: Path, base: Path, options: snapshot.Options, progress: Progress = SILENT, *, dry_run: bool = False
) -> Initialized:
    """Make ``directory`` a weightvc repository over the checkpoint ``base``; git is set up if it is not there.

    A directory that exists inside a git work tree stands for that repository; one that does not exist yet becomes a
    repository of its own, wherever it is. Nothing is left behind when it fails.

    Raises:
        BadInput: ``base`` is no usable checkpoint.
        Conflict: the repository has a base already, also if another process made it meanwhile; ``directory`` cannot
            be a directory; or its `.git` is no repository that git can read.
        NotARepository: a git repository around ``directory`` has no work tree, or has it elsewhere.
    """
    directory = directory.absolute()
    with open_checkpoint(base) as checkpoint, ExitStack() as undo:
        if checkpoint.adapter is not None:
            raise BadInput(f"{base}: an adapter is no base", "give the model that it was trained on")
        found = _find(directory)
        if found is not None:
            _refuse_second(found, found.head())
        if dry_run:
            return _planned(directory, checkpoint, options)
        scratch.sweep(directory / ".git")
        git = found or _make(directory, undo)
        repo = handle(git)
        shot = snapshot.take(
            checkpoint, repo.store, base=None, names={}, options=options, progress=progress, what="the base"
        )
        manifest = Manifest(shot.tensors, shot.files, shot.headers, checkpoint.kind, nonfinite=shot.nonfinite)

        def plan(tip: str | None) -> dict[str, bytes | None]:
            _refuse_second(git, tip)
            return {CONFIG: Config().to_bytes(), BASE: manifest.to_bytes()}

        with guard.using(repo):
            committed = commits.commit(git, plan, f"wvc init --base {base.name}")
        undo.pop_all()
    stored = sum(manifest.objects().values())
    done = Base(manifest.version, len(manifest.tensors), manifest.nbytes, stored)
    return Initialized(str(git.work_tree), done, committed.commit, tuple(committed.warnings))


def _planned(directory: Path, checkpoint: Checkpoint, options: snapshot.Options) -> Initialized:
    total = sum(spec.nbytes for spec in checkpoint.tensors.values())
    base = Base(Version(""), len(checkpoint.tensors), total, 0)
    return Initialized(str(directory), base, None, peak_bytes=snapshot.peak_bytes(checkpoint, options))


def _find(directory: Path) -> GitDir | None:
    """Return the repository that an existing directory lies in, ``None`` if one is to be made."""
    there = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise Conflict(f"{there} is not a directory", "name another directory for the repository")
    if there != directory:
        return None
    found = locate(directory)
    own = directory / ".git"
    if os.path.lexists(own) and (found is None or found.work_tree != directory.resolve()):
        raise Conflict(f"{own} exists but git cannot read it", "repair it with git, or move it away")
    return found


def _make(directory: Path, undo: ExitStack) -> GitDir:
    """Make a git repository at ``directory``, noting on ``undo`` what to remove if init fails: what is made here."""
    undo.callback(_remove_empty, [path for path in (directory, *directory.parents) if not os.path.lexists(path)])
    fsio.make_dirs(directory)
    git = git_init(directory)
    undo.callback(fsio.remove_tree, directory / ".git")
    if not os.path.lexists(directory / TRACKED):
        undo.callback(fsio.remove_tree, directory / TRACKED)
    return git


def _remove_empty(directories: list[Path]) -> None:
    """Remove directories, innermost first, as far as nobody has put anything into them."""
    with suppress(OSError):
        for directory in directories:
            fsio.ops.rmdir(directory)


def _refuse_second(git: GitDir, tip: str | None) -> None:
    if tip is not None and CONFIG in git.read_tree(tip):
        raise Conflict(
            f"{git.work_tree} is a weightvc repository already", "add fine-tunes with `wvc add PATH --task NAME`"
        )
