"""Verify: a checkout directory against its lock, and the lock against a replay from sources."""

from dataclasses import dataclass
from pathlib import Path

from weightvc.checkpoint.files import map_file
from weightvc.merge.fingerprint import fingerprint
from weightvc.objects import lock as locks
from weightvc.objects.ids import Digest
from weightvc.objects.lock import Lock
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import compare, output, resolve
from weightvc.repo import device as devices
from weightvc.repo import plan as plans
from weightvc.repo.build import Builder
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Resolved
from weightvc.util import fsio
from weightvc.util.errors import NotFound
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import listed


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
        detail = listed(found.wrong) or f"{found.tensors} tensors as locked"
        checks.append(Check(found.file, ok=not found.wrong, detail=detail))
    if replay:
        if repo is None:
            raise NotFound("a replay needs the repository", "run it inside the repository, or with `wvc -C DIR`")
        checks.append(_replay(repo, lock, devices.find(device), jobs, progress))
    return Verified(str(path), lock.digest, all(check.ok for check in checks), tuple(checks))


def _files(path: Path, lock: Lock) -> Check:
    weights = {line.file for line in lock.tensors}
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir() or p.is_symlink()}
    wrong = [f"{name} is missing" for name in sorted(lock.files.keys() - present)]
    wrong += [f"{name} was added" for name in sorted(present - lock.files.keys() - {locks.NAME})]
    for name in sorted((lock.files.keys() & present) - weights):
        file = path / name
        if not fsio.is_regular(file) or _digest(file) != lock.files[name]:
            wrong.append(f"{name} differs")
    return Check("files", not wrong, listed(wrong) or f"{len(lock.files)} files as locked")


def _digest(file: Path) -> str:
    data = map_file(file)
    return tensor_digest("U8", [len(data)], data)


def _replay(repo: Handle, lock: Lock, device: str, jobs: int, progress: Progress) -> Check:
    resolved = resolve.pinned(repo, lock)
    builder = Builder(repo, resolved, device=device, jobs=jobs)
    again = {line.name: line.digest for line in builder.digests(progress).tensors}
    again |= {f"{task} {name}": digest for task, name, digest in _heads(resolved, builder)}
    locked = {}
    for line in lock.tensors:
        head = line.file.startswith("heads/")
        task = line.file.removeprefix("heads/").removesuffix(".safetensors")
        locked[f"{task} {line.name}" if head else line.name] = line.digest
    wrong = sorted(name for name in locked.keys() | again.keys() if locked.get(name) != again.get(name))
    same = fingerprint(device) == dict(lock.environment)
    where = "" if same else " (built in another environment; bytes are promised for equal ones only)"
    if wrong:
        return Check("replay", ok=False, detail=f"{len(wrong)} tensors come out otherwise{where}: {listed(wrong)}")
    return Check("replay", ok=True, detail=f"{len(locked)} tensors rebuilt from sources, byte for byte")


def _heads(resolved: Resolved, builder: Builder) -> list[tuple[str, str, Digest]]:
    plan: plans.Plan = builder.plan
    return [
        (resolved.recipe.tasks[at].task, entry.spec.name, entry.digest)
        for at, entries in plan.heads.items()
        for entry in entries
    ]
