"""Verify: a checkout directory against its lock, and the lock against a replay from sources."""

from dataclasses import dataclass
from pathlib import Path

from weightvc.checkpoint.files import map_file
from weightvc.checkpoint.header import Header, parse_header
from weightvc.merge.fingerprint import fingerprint
from weightvc.objects import lock as locks
from weightvc.objects.ids import Digest
from weightvc.objects.lock import Lock, TensorLine
from weightvc.objects.tensors import tensor_digest
from weightvc.repo import device as devices
from weightvc.repo import output, resolve
from weightvc.repo import plan as plans
from weightvc.repo.build import Builder
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Resolved
from weightvc.util import fsio, parallel
from weightvc.util.errors import BadInput, NotFound
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
    checks = [_files(path, lock), *_tensors(path, lock, jobs, progress)]
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


def _tensors(path: Path, lock: Lock, jobs: int, progress: Progress) -> list[Check]:
    checks = []
    lines: dict[str, list[TensorLine]] = {}
    for line in lock.tensors:
        lines.setdefault(line.file, []).append(line)
    for name in sorted(lines):
        try:
            data = map_file(path / name)
            header = parse_header(data, name, file_size=len(data))
        except (BadInput, NotFound) as error:
            checks.append(Check(name, ok=False, detail=error.what))
            continue
        checks.append(_weights(name, data, header, lock, lines[name], jobs=jobs, progress=progress))
    return checks


def _weights(
    name: str, data: memoryview, header: Header, lock: Lock, lines: list[TensorLine], *, jobs: int, progress: Progress
) -> Check:
    if tensor_digest("U8", [len(header.raw)], header.raw) != lock.files.get(name):
        return Check(name, ok=False, detail="its header differs")

    def job(line: TensorLine) -> str | None:
        slot = header.tensors.get(line.name)
        if slot is None:
            return f"{line.name} is missing"
        found = tensor_digest(slot.spec.dtype, slot.spec.shape, data[slot.start : slot.end])
        progress.advance(slot.end - slot.start)
        return None if found == line.digest else f"{line.name} differs"

    with progress.stage(f"Verifying {name}", len(data)):
        wrong = [finding for finding in parallel.run(job, lines, jobs) if finding]
    return Check(name, not wrong, listed(wrong) or f"{len(lines)} tensors as locked")


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
    plan: plans.Plan = builder.plan()
    return [
        (resolved.recipe.tasks[at].task, entry.spec.name, entry.digest)
        for at, entries in plan.heads.items()
        for entry in entries
    ]
