"""What a plan does with each tensor, in a form to print: what happens, by which method, why, and what it reads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.recipe import KEEP
from weightvc.repo.factors import LowRank
from weightvc.repo.plan import Plan, Source, TensorPlan
from weightvc.repo.resolve import Resolved


@dataclass(frozen=True)
class Line:
    """What happens with one tensor of the result.

    Attributes:
        name: Its name.
        dtype: The result's.
        shape: Its shape.
        rule: How it comes about, as in a lock.
        method: What merges it, or ``base`` where a rule keeps the base's; ``None`` if there is nothing to merge.
        pattern: The pattern of the rule that chose the method, if one did.
        tasks: The tasks that it comes from.
        why: Why ``rule`` is what it is.
        read_bytes: Stored bytes that it comes from, once; 0 for the further names of a tied tensor.
        bytes: Bytes that it has in the result.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    rule: str
    method: str | None
    pattern: str | None
    tasks: tuple[str, ...]
    why: str
    read_bytes: int
    bytes: int


def lines(plan: Plan, resolved: Resolved) -> tuple[Line, ...]:
    """Return a line for each tensor of the result by its name, and then for those that go to files of their own."""
    made = (line for tensor in plan.tensors for line in _lines(tensor, resolved))
    return (*sorted(made, key=lambda line: line.name), *_heads(plan, resolved))


def read(plan: Plan, resolved: Resolved, files: Iterable[Entry]) -> int:
    """Return the stored bytes that a checkout reads: those of :func:`lines`, of other files and of headers."""
    headers = resolved.exact.headers if resolved.exact is not None else ()
    return sum(line.read_bytes for line in lines(plan, resolved)) + sum(map(_size, (*files, *headers)))


def _lines(tensor: TensorPlan, resolved: Resolved) -> Iterator[Line]:
    recipe, base = resolved.recipe, resolved.state.base
    rule = None if tensor.by is None else recipe.rules[tensor.by]
    named = recipe.method if rule is None else rule.method
    merged = tensor.rule not in ("base", "task") or (rule is not None and rule.method == KEEP)
    tasks = tuple(recipe.tasks[at].task for at, _ in tensor.sources) if recipe.tasks else ()
    first, *others = tensor.names
    for name in tensor.names:
        tied = ", ".join(other for other in tensor.names if other != name)
        yield Line(
            name,
            tensor.spec.dtype,
            tensor.spec.shape,
            tensor.rule,
            named if merged else None,
            None if rule is None else rule.pattern,
            tasks,
            f"{tensor.why}, tied to {tied}" if others else tensor.why,
            _read(tensor, base) if name == first else 0,
            tensor.spec.nbytes,
        )


def _heads(plan: Plan, resolved: Resolved) -> Iterator[Line]:
    for at, entries in plan.heads.items():
        task = resolved.recipe.tasks[at].task
        for entry in entries:
            spec, why = entry.spec, f"not in the base, to heads/{task}.safetensors"
            read = _stored(entry, resolved.state.base)
            yield Line(spec.name, spec.dtype, spec.shape, "task", None, None, (task,), why, read, spec.nbytes)


def _read(tensor: TensorPlan, base: Manifest) -> int:
    """Return the stored bytes of what a tensor comes from."""
    if tensor.rule == "task":
        return _stored(tensor.own, base)
    found = [_size(source) for _, source in tensor.sources] if tensor.rule != "base" else []
    return _stored(tensor.base, base) + sum(found)


def _stored(entry: Entry, base: Manifest) -> int:
    """Return the stored bytes of a tensor, with those of the base's that it is a delta from."""
    of = base.by_name.get(entry.of or "")
    return _size(entry) + (0 if of is None else _size(of))


def _size(source: Source) -> int:
    if isinstance(source, LowRank):
        return _size(source.a) + _size(source.b)
    return 0 if source.place is None else source.place.size
