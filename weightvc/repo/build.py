"""Building one resolved recipe: every tensor, the heads, the other files, and the lock over all of them."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path

import torch

from weightvc.checkpoint import adapter, card
from weightvc.checkpoint.writer import Layout, Writer, write_extra
from weightvc.merge import linalg
from weightvc.merge.fingerprint import fingerprint
from weightvc.merge.joint import Task
from weightvc.objects import lock as locks
from weightvc.objects.ids import Digest
from weightvc.objects.lock import Lock, TensorLine
from weightvc.objects.manifest import Entry, Manifest, Parent
from weightvc.objects.tensors import TensorHasher, tensor_digest
from weightvc.repo import device as devices
from weightvc.repo import others, prefix, resolve
from weightvc.repo import plan as plans
from weightvc.repo.decode import Reader, Section
from weightvc.repo.factors import DTYPES
from weightvc.repo.materialize import Materializer
from weightvc.repo.others import CARD, Others
from weightvc.repo.plan import Plan, TensorPlan
from weightvc.repo.repository import Handle
from weightvc.repo.resolve import Request, Resolved
from weightvc.util import fsio, parallel
from weightvc.util.errors import Corrupt, Unsupported
from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import printable

DEFAULT_SHARD = 5 * 10**9
"""Bytes of a weight file, the default of the hub's own tools."""

_ONE_FILE = 2**63
_FSCK = "run `wvc fsck --full` to find what is damaged"

TORCH = {
    **DTYPES,
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
"""The torch dtype of every dtype that torch has one for."""


class Builder:
    """Builds one resolved recipe: into a directory, or for its digests alone.

    Unless it may be ``resumed`` from cached prefix states, it reads nothing but the store. What writing finds out and
    a user should hear goes to ``notes``.
    """

    def __init__(
        self,
        repo: Handle,
        resolved: Resolved,
        *,
        device: str,
        jobs: int,
        max_shard_size: int = DEFAULT_SHARD,
        resumed: bool = False,
    ) -> None:
        self.notes: list[str] = []
        self._repo = repo
        self._resolved = resolved
        self._device = device
        self._jobs = jobs
        self._max_shard_size = max_shard_size
        self._resumed = resumed
        self._reader = Reader(repo.store, resolved.state.base)

    @cached_property
    def plan(self) -> Plan:
        """Return the merge plan; an exact checkout is the plan in which every tensor is the task's own."""
        state = self._resolved.state
        exact = self._resolved.exact
        if exact is None:
            return plans.make(state.base, self._resolved.tasks, self._resolved.recipe, self._resolved.methods)
        rule: plans.Rule = "base" if exact is state.base else "task"
        made = (TensorPlan((e.spec.name,), e.spec, rule, e, ((0, e),), why="as it was added") for e in exact.tensors)
        return Plan(tuple(made), parts=(), heads={})

    @cached_property
    def others(self) -> Others:
        """The other files, chosen from manifests alone."""
        exact = self._resolved.exact
        if exact is not None and exact.headers:
            return others.choose(self._resolved, ())  # its files stood beside its weights before
        own = [locks.NAME, *(file.name for file in self._layout.files)]
        own += [self._layout.index_name] if self._layout.index_name else []
        own += [CARD] if exact is None else []
        own += [_head_file(self._resolved.recipe.tasks[at].task) for at in self.plan.heads]
        return others.choose(self._resolved, own)

    def write(self, directory: Path, progress: Progress = SILENT) -> Lock:
        """Write weights, heads and other files into an empty directory and return the lock."""
        plan, layout = self.plan, self._layout
        with self.materializer(plan) as work, Writer(directory, layout) as writer:
            work.prepare(progress)
            lines = self._tensors(plan, work, layout, writer, progress)
            writer.finish()
        names = [weighted.task for weighted in self._resolved.recipe.tasks]
        self.notes += [f"task {names[at]}: {says}" for at, says in work.report()]
        for path, head in self._heads().items():
            self._write_head(directory / path, head)
        for name, parts in self._others():
            write_extra(directory, name, parts)
        return self._lock(lines)

    def digests(self, progress: Progress = SILENT) -> Lock:
        """Replay without writing a model, and return the lock that :meth:`write` would give."""
        plan, layout = self.plan, self._layout
        with self.materializer(plan) as work:
            work.prepare(progress)
            return self._lock(self._tensors(plan, work, layout, None, progress))

    def base_spans(self, plan: TensorPlan) -> Iterator[tuple[int, memoryview]]:
        """Return the raw bytes of the base tensor, in spans of as many elements as those of a merged one."""
        return self._reader.open(plan.base).spans()

    @property
    def tasks(self) -> list[Task]:
        """The tasks of the recipe, by position, as methods know them."""
        pairs = zip(self._resolved.recipe.tasks, self._resolved.tasks, strict=True)
        return [Task(weighted.coefficient, manifest.version) for weighted, manifest in pairs]

    def materializer(self, plan: Plan) -> Materializer:
        """Return the engine for a plan of this recipe, to be entered as a context."""
        resolved = self._resolved
        states: prefix.States = prefix.Nothing()
        if self._resumed:
            states = prefix.states(self._repo, plan, resolved.tasks, self._device)
        return Materializer(
            self._reader,
            plan,
            self.tasks,
            device=self._device,
            scratch=self._repo.tmp,
            jobs=self._jobs,
            special=any(manifest.nonfinite for manifest in (resolved.state.base, *resolved.tasks)),
            states=states,
        )

    @cached_property
    def _layout(self) -> Layout:
        exact = self._resolved.exact
        if exact is not None and exact.updates and not exact.headers:
            return Layout.pack(self.plan.specs, _ONE_FILE, stem=adapter.WEIGHTS)
        if exact is None or not exact.headers:
            return Layout.pack(self.plan.specs, self._max_shard_size)
        layout = Layout.verbatim({e.spec.name: self._read(e, "headers") for e in exact.headers})
        held = {slot.spec for file in layout.files for slot in file.slots.values()}
        if held != {entry.spec for entry in exact.tensors}:
            raise Corrupt(f"the manifest of task {exact.task} does not list the tensors that its headers do", _FSCK)
        return layout

    def _spans(self, entry: Entry, section: Section) -> Iterator[tuple[int, memoryview]]:
        """Yield an entry's bytes in spans, each valid until the next one; after the last, refuse a wrong digest."""
        hasher = TensorHasher(entry.spec.dtype, entry.spec.shape)
        for offset, span in self._reader.open(entry, section).spans():
            hasher.update(span)
            yield offset, span
        _check(entry, hasher.digest())

    def _read(self, entry: Entry, section: Section, most: int | None = None) -> bytes:
        """Return an entry's bytes, the first ``most`` of them if there are more."""
        return b"".join(bytes(span[: max(0, most - at)] if most else span) for at, span in self._spans(entry, section))

    def _tensors(
        self, plan: Plan, work: Materializer, layout: Layout, writer: Writer | None, progress: Progress
    ) -> list[TensorLine]:
        """Produce every tensor, on several threads, and return its line of the lock."""
        where = {name: file.name for file in layout.files for name in file.slots}
        ordered = sorted(plan.tensors, key=lambda tensor: -tensor.spec.nbytes)

        def job(tensor: TensorPlan) -> list[TensorLine]:
            hasher = TensorHasher(tensor.spec.dtype, tensor.spec.shape)
            for offset, span in work.spans(tensor):
                hasher.update(span)
                if writer is not None:
                    for name in tensor.names:
                        writer.write(name, span, offset)
            progress.advance(tensor.spec.nbytes)
            digest, ranks = hasher.digest(), work.ranks(tensor)
            if tensor.rule in ("base", "task"):
                _check(tensor.own if tensor.rule == "task" else tensor.base, digest)
            return [TensorLine(where[name], name, digest, tensor.rule, ranks) for name in tensor.names]

        with progress.stage("Writing" if writer else "Replaying", sum(t.spec.nbytes for t in ordered)):
            return [line for lines in parallel.run(job, ordered, self._jobs, linalg.pin_thread) for line in lines]

    def _heads(self) -> dict[str, tuple[Layout, tuple[Entry, ...]]]:
        """Return the files for tensors that only one task has, each a file of its own."""
        tasks = self._resolved.recipe.tasks
        return {
            _head_file(tasks[at].task): (
                Layout.pack([entry.spec for entry in entries], _ONE_FILE, stem=tasks[at].task),
                entries,
            )
            for at, entries in self.plan.heads.items()
        }

    def _write_head(self, path: Path, head: tuple[Layout, tuple[Entry, ...]]) -> None:
        layout, entries = head
        fsio.make_dirs(path.parent)
        with Writer(path.parent, layout) as writer:
            for entry in entries:
                for offset, span in self._spans(entry, "tensors"):
                    writer.write(entry.spec.name, span, offset)
            writer.finish()

    def _others(self) -> Iterator[tuple[str, Iterable[memoryview | bytes]]]:
        """Yield the names and the bytes of the other files, and of the model card that a merge gets."""
        for entry in self.others.kept:
            yield entry.spec.name, (span for _, span in self._spans(entry, "files"))
        if self._resolved.exact is None:
            yield CARD, [self._card()]

    def _card(self) -> bytes:
        recipe = self._resolved.recipe
        tasks = [
            card.CardTask(
                weighted.task, weighted.coefficient, manifest.version, self._readme(manifest), bool(manifest.lossy)
            )
            for weighted, manifest in zip(recipe.tasks, self._resolved.tasks, strict=True)
        ]
        base = self._resolved.state.base
        readme, files = self._readme(base), {entry.spec.name for entry in base.headers} - {"model.safetensors"}
        name = card.title(readme) or (files.pop() if len(files) == 1 else None)
        called = f"{name} ({base.version})" if name else base.version
        return card.merge_card(
            base=called,
            base_card=readme,
            tasks=tasks,
            method=recipe.method,
            params=recipe.params,
            rules=[(rule.pattern, rule.method, rule.params) for rule in recipe.rules],
        )

    def _readme(self, manifest: Manifest) -> bytes | None:
        entry = next((e for e in manifest.files if e.spec.name == CARD), None)
        return None if entry is None else self._read(entry, "files", most=card.MAX_CARD)

    def _lock(self, lines: list[TensorLine]) -> Lock:
        """Return the lock of a model with these lines for its tensors, heads apart."""
        resolved, heads = self._resolved, self._heads()
        files = {entry.spec.name: entry.digest for entry in self.others.kept}
        if resolved.exact is None:
            files[CARD] = _file_digest(self._card())
        files |= {file.name: _file_digest(file.header) for file in self._layout.files}
        if (index := self._layout.index()) is not None:
            files[self._layout.index_name] = _file_digest(index)
        files |= {path: _file_digest(layout.files[0].header) for path, (layout, _) in heads.items()}
        lines += [TensorLine(path, e.spec.name, e.digest, "task") for path, (_, held) in heads.items() for e in held]
        return Lock(
            wvc=metadata.version("weightvc"),
            environment=fingerprint(self._device),
            commit=resolved.state.commit,
            base=resolved.state.base.version,
            recipe=resolved.recipe,
            tasks=tuple(Parent(str(task.task), str(task.uuid), task.version) for task in resolved.tasks),
            files=files,
            tensors=tuple(lines),
            max_shard_size=self._max_shard_size,
            lossy=tuple(str(task.task) for task in resolved.tasks if task.lossy),
        )


def _file_digest(data: bytes) -> Digest:
    return tensor_digest("U8", [len(data)], data)


def _check(entry: Entry, digest: Digest) -> None:
    """Refuse bytes that are not what the manifest states."""
    if digest != entry.digest:
        raise Corrupt(f"{printable(entry.spec.name)} does not have the digest that its manifest states", _FSCK)


def _head_file(task: str) -> str:
    """Return where the tensors go that only this task has."""
    return f"heads/{task}.safetensors"


def tensors(
    repo: Handle, request: Request, device: str, jobs: int, progress: Progress = SILENT
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a request as (name, tensor on ``device``), sorted by name, one at a time.

    Raises:
        Unsupported: torch has no dtype for a tensor (packed values); a checkout gives its bytes all the same.
    """
    builder = Builder(repo, resolve.resolve(repo, request), device=devices.find(device), jobs=jobs, resumed=True)
    plan = builder.plan
    with builder.materializer(plan) as work:
        work.prepare(progress)
        byname = {name: tensor for tensor in plan.tensors for name in tensor.names}
        for name in sorted(byname):
            spec = byname[name].spec
            if spec.dtype not in TORCH:
                raise Unsupported(f"{printable(name)}: torch has no dtype {spec.dtype}", "use `wvc checkout` instead")
            values = torch.empty(spec.shape, dtype=TORCH[spec.dtype])
            data = values.reshape(-1).view(torch.uint8).numpy()
            for offset, span in work.spans(byname[name]):  # a span's buffer is reused for the next
                data[offset : offset + len(span)] = span
            yield name, values.to(work.device)
