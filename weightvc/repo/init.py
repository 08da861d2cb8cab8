"""Init: a base checkpoint → a new repository, committed."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from weightvc.checkpoint.reader import Checkpoint, open_checkpoint
from weightvc.history import commit as commits
from weightvc.history.git import GitDir, discover
from weightvc.history.git import init as git_init
from weightvc.objects.config import Config
from weightvc.objects.ids import Version
from weightvc.objects.manifest import Manifest
from weightvc.repo import snapshot
from weightvc.repo.repository import BASE, CONFIG, handle
from weightvc.util import fsio
from weightvc.util.errors import Conflict, NotARepository
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

    Nothing is left behind when it fails.

    Raises:
        BadInput: ``base`` is no usable checkpoint.
        Conflict: the repository has a base already.
    """
    directory = directory.absolute()
    with open_checkpoint(base) as checkpoint, ExitStack() as undo:
        found = _find(directory)
        if found is not None:
            _refuse_second(found)
        if dry_run:
            return _planned(directory, checkpoint, options)
        git = found or _make(directory, undo)
        repo = handle(git)
        shot = snapshot.take(checkpoint, repo.store, base=None, names={}, options=options, progress=progress)
        manifest = Manifest(shot.tensors, shot.files, shot.headers, checkpoint.kind, nonfinite=shot.nonfinite)
        committed = commits.commit(
            git, lambda _: {CONFIG: Config().to_bytes(), BASE: manifest.to_bytes()}, f"wvc init: base {base.name}"
        )
        undo.pop_all()
    stored = sum(manifest.objects().values())
    done = Base(manifest.version, len(manifest.tensors), manifest.nbytes, stored)
    return Initialized(str(git.work_tree), done, committed.commit, tuple(committed.warnings))


def _planned(directory: Path, checkpoint: Checkpoint, options: snapshot.Options) -> Initialized:
    total = sum(spec.nbytes for spec in checkpoint.tensors.values())
    base = Base(Version(""), len(checkpoint.tensors), total, 0)
    return Initialized(str(directory), base, None, peak_bytes=snapshot.peak_bytes(checkpoint, options))


def _find(directory: Path) -> GitDir | None:
    try:
        return discover(directory)
    except NotARepository:
        return None


def _make(directory: Path, undo: ExitStack) -> GitDir:
    """Make a git repository at ``directory``, noting on ``undo`` what to remove if init fails."""
    made = next((p for p in [*reversed(directory.parents), directory] if not p.exists()), directory / ".git")
    undo.callback(fsio.remove_tree, made)
    fsio.make_dirs(directory)
    return git_init(directory)


def _refuse_second(git: GitDir) -> None:
    head = git.head()
    if head is not None and CONFIG in git.read_tree(head):
        raise Conflict(
            f"{git.work_tree} is a weightvc repository already", "add fine-tunes with `wvc add PATH --task NAME`"
        )
