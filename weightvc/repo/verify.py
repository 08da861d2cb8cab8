"""Verify: a checkout directory against its lock, and the lock against a replay from sources."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from weightvc.checkpoint.files import map_file
from weightvc.merge import table
from weightvc.objects import lock as locks
from weightvc.objects.lock import Lock
from weightvc.objects.recipe import KEEP, Recipe
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import compare, near, output, resolve
from weightvc.repo import device as devices
from weightvc.repo.build import Builder
from weightvc.repo.others import CARD
from weightvc.repo.repository import Handle, open_handle
from weightvc.repo.state import load
from weightvc.util import fsio
from weightvc.util.errors import NotARepository, NotFound
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import counted, listed

_ELSEWHERE = " (built in another environment; bytes are promised for equal ones only)"

K = TypeVar("K", bound=str | tuple[str, str])


@dataclass(frozen=True)
class Check:
    """One thing that was checked: whether it held, and what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verified:
    """The outcome of a verification; ``ok`` only if every check held."""

    path: str
    digest: str
    ok: bool
    checks: tuple[Check, ...]


def verify(
    path: Path,
    repo: Handle | None,
    *,
    replay: bool = False,
    device: str = "auto",
    jobs: int = 1,
    progress: Progress = SILENT,
) -> Verified:
    """Compare a directory with its lock, byte by byte, and on request the lock with a new replay.

    Raises:
        NotFound: no checkout directory; or ``replay`` outside the repository that has its tasks.
        Corrupt: the lock itself was changed.
    """
    lock = output.read_lock(path)
    checks = [_files(path, lock)]
    for found in compare.weight_files(path, lock, jobs, progress):
        detail = listed(found.wrong) or f"{counted(found.tensors, 'tensor')} as locked"
        checks.append(Check(found.file, ok=not found.wrong, detail=detail))
    if replay:
        if repo is None:
            raise NotFound("a replay needs the repository", "run it inside the repository, or with `wvc -C DIR`")
        resolved = resolve.pinned(repo, lock, revs=(None, "HEAD"))
        shard = lock.max_shard_size
        builder = Builder(repo, resolved, device=devices.find(device), jobs=jobs, max_shard_size=shard)
        checks.append(_replay(builder, path, lock, progress))
    return Verified(str(path), lock.digest, all(check.ok for check in checks), tuple(checks))


def find_repository(path: Path, here: Path) -> Handle:
    """Return the repository to replay a directory from: the one around ``here``, or the one around ``path``.

    The second if there is no first, or if only it has the commit that the directory's lock names.

    Raises:
        NotARepository: neither is in one.
        NotFound: no checkout directory.
    """
    commit = output.read_lock(path).commit
    found = []
    for place in (here, path.resolve()):
        with suppress(NotARepository):
            repo, _ = open_handle(place)
            load(repo)
            found.append(repo)
            with suppress(NotFound):
                repo.git.resolve(commit)
                return repo
    if not found:
        raise NotARepository(f"neither {here} nor {path} is in a repository", "name the repository with `wvc -C DIR`")
    return found[0]


def _files(path: Path, lock: Lock) -> Check:
    weights = {line.file for line in lock.tensors}
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir() or p.is_symlink()}
    wrong = [f"{name} is missing" for name in sorted(lock.files.keys() - present)]
    wrong += [f"{name} was added" for name in sorted(present - lock.files.keys() - {locks.NAME})]
    for name in sorted((lock.files.keys() & present) - weights):
        file = path / name
        if not fsio.is_regular(file) or _digest(file) != lock.files[name]:
            wrong.append(f"{name} differs")
    return Check("files", not wrong, listed(wrong) or f"{counted(len(lock.files), 'file')} as locked")


def _digest(file: Path) -> str:
    data = map_file(file)
    return tensor_digest("U8", [len(data)], data)


def _replay(builder: Builder, path: Path, lock: Lock, progress: Progress) -> Check:
    """Build everything anew, without writing it, and compare it with the lock.

    Bytes, the card, the layout and how each tensor came about are promised for equal environments only, and other files
    for the commit that the lock names: elsewhere a task may have the same tensors with other files.
    """
    again = builder.digests(progress)
    same = (again.wvc, again.environment) == (lock.wvc, lock.environment)
    where = "" if same else _ELSEWHERE
    locked, lines = ({(line.file, line.name): line for line in one.tensors} for one in (lock, again))
    tensors = _apart({at: t.digest for at, t in locked.items()}, {at: t.digest for at, t in lines.items()})
    tolerance = 0.0 if same or locked.keys() != lines.keys() else _tolerance(lock.recipe)
    far = tensors
    if tensors and tolerance:
        beyond = near.far(builder, path, [locked[at] for at in tensors], tolerance, progress)
        far = [(line.file, line.name) for line in beyond]
    if far:
        by = f" by more than {tolerance:g}" if tolerance else ""
        what = f"{counted(len(far), 'tensor')} built otherwise{by}{where}"
        return Check("replay", ok=False, detail=f"{what}: {_listed(far)}")
    if same and (rules := _apart(locked, lines)):
        what = f"{counted(len(rules), 'tensor')} came about otherwise"
        return Check("replay", ok=False, detail=f"{what}: {_listed(rules)}")
    done = f"{counted(len(lock.tensors), 'tensor')} rebuilt from sources, byte for byte"
    if tensors:
        done += f" but for {len(tensors)} within {tolerance:g} of their task vectors{where}"
    return _replayed_files(lock, again, done, where)


def _replayed_files(lock: Lock, again: Lock, done: str, where: str) -> Check:
    """Compare the other files of a replay whose tensors are right."""
    if again.commit == lock.commit and again.tasks != lock.tasks:
        others = listed([line.task for line, other in zip(lock.tasks, again.tasks, strict=True) if line != other])
        return Check("replay", ok=False, detail=f"the lock names other tasks than its commit has: {others}")
    if again.commit != lock.commit:
        return Check("replay", ok=True, detail=f"{done}; other files not compared: no commit {lock.commit[:12]} here")
    files = _apart(lock.files, again.files)
    if where:
        files = [path for path in files if path != CARD]
    if files:
        what = f"{counted(len(files), 'file')} built otherwise{where}"
        return Check("replay", ok=False, detail=f"{what}: {listed(files)}")
    return Check("replay", ok=True, detail=done)


def _tolerance(recipe: Recipe) -> float:
    """Return how far apart another environment may take a merge; 0 if one of its methods promises bytes only."""
    methods = [(rule.method, rule.params) for rule in recipe.rules if rule.method != KEEP]
    found = [table.tolerance(*one, len(recipe.tasks)) for one in [(recipe.method, recipe.params), *methods]]
    return max(found) if all(found) else 0.0


def _apart(locked: Mapping[K, object], again: Mapping[K, object]) -> list[K]:
    """Return the keys whose values differ, or that only one side has."""
    return [key for key in sorted({*locked, *again}) if locked.get(key) != again.get(key)]


def _listed(keys: Sequence[tuple[str, str]]) -> str:
    """Name tensors, those of heads with their file."""
    return listed([f"{file} {name}" if file.startswith("heads/") else name for file, name in keys])
