"""Which base tensor each tensor of a fine-tune corresponds to."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from weightvc.objects.tensors import TensorSpec
from weightvc.objects.updates import Update


@dataclass(frozen=True)
class Alignment:
    """The base's name for each tensor that has a counterpart of any shape, and the prefix that was matched.

    ``prefix`` is the constant name prefix (``"bert."``) that only ``side`` carries; both are empty when names
    match as they are. ``updates`` are an adapter's, sorted by the base's names; its factors have no counterpart.
    ``rivals`` are the prefixes that match as many tensors, where several do.
    """

    names: Mapping[str, str]
    prefix: str = ""
    side: str = ""
    updates: tuple[Update, ...] = ()
    rivals: tuple[str, ...] = ()


def align(task: Mapping[str, TensorSpec], base: Mapping[str, TensorSpec]) -> Alignment:
    """Match names directly, or after a constant prefix that one side carries, whichever matches more tensors.

    A tensor without its prefixed counterpart falls back on the base tensor of its own name, unless that one is
    taken.
    """
    direct = sum(1 for name, spec in task.items() if _fits(spec, base.get(name)))
    on_base = _prefixes(base, task)
    on_task = _prefixes(task, base)
    sides = (("base", on_base), ("task", on_task))
    found = [(n, -len(p), side, p) for side, prefixes in sides for p, n in prefixes.items()]
    count, _, side, prefix = max([(direct, 0, "", ""), *found])
    rivals = tuple(sorted(other for n, _, _, other in found if n == count > direct))
    if count <= direct:
        side = prefix = ""
    names = {name: wanted for name in task if (wanted := _rename(name, side, prefix)) in base}
    taken = set(names.values())
    names |= {name: name for name in task if name not in names and name in base and name not in taken}
    return Alignment(names, prefix, side, rivals=rivals if len(rivals) > 1 else ())


def _fits(spec: TensorSpec, other: TensorSpec | None) -> bool:
    return other is not None and spec.shape == other.shape


def _prefixes(long: Mapping[str, TensorSpec], short: Mapping[str, TensorSpec]) -> Counter[str]:
    """Count, for each dotted prefix of names in ``long``, the tensors that match ``short`` without it."""
    found: Counter[str] = Counter()
    for name, spec in long.items():
        at = name.find(".")
        while at >= 0:
            if _fits(spec, short.get(name[at + 1 :])):
                found[name[: at + 1]] += 1
            at = name.find(".", at + 1)
    return found


def _rename(name: str, side: str, prefix: str) -> str:
    if side == "base":
        return prefix + name
    return name.removeprefix(prefix) if name.startswith(prefix) else ""
