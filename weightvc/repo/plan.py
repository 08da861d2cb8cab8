"""What a merge does with each tensor, decided from manifests alone, before any tensor is read."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from weightvc.merge.joint import Joint
from weightvc.merge.method import Fold
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.recipe import Mismatch, Recipe
from weightvc.objects.tensors import MERGED, TensorSpec, zeros_digest
from weightvc.repo.factors import LowRank
from weightvc.util.errors import Conflict
from weightvc.util.text import Note, counted, printable

Rule: TypeAlias = Literal["base", "task", "elementwise", "projected", "factored", "joined"]
"""How a tensor comes about: see :class:`weightvc.objects.lock.TensorLine`."""

Source: TypeAlias = Entry | LowRank
"""A task's own tensor, or the factors of its task vector."""


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the result.

    ``names`` are the base's names that receive it: several where the base and all tasks tie them. ``sources``
    holds, in recipe order, the tasks (by position) whose tensor differs from the base's, with what it comes from.
    """

    names: tuple[str, ...]
    spec: TensorSpec
    rule: Rule
    base: Entry
    sources: tuple[tuple[int, Source], ...]

    @property
    def own(self) -> Entry:
        """The tensor that a task gives as it is, where the rule is ``task``."""
        (_, source), *_ = self.sources
        if isinstance(source, LowRank):
            raise TypeError(f"{source.update.of}: an update is no tensor")
        return source

    @property
    def rank(self) -> int:
        """The ranks of the updates that it comes from, added up."""
        return sum(source.rank for _, source in self.sources if isinstance(source, LowRank))

    @property
    def kept(self) -> int:
        """Bytes of a folded sum that is kept for the second pass: a float64 matrix, or two whose product it is."""
        if self.rule == "factored":
            return 8 * self.rank * sum(self.spec.shape)
        return 8 * self.spec.elements if self.rule == "projected" else 0


@dataclass(frozen=True)
class Plan:
    """A merge: a plan for each tensor in the order of names, the tasks' weights, and what is left out of it.

    ``heads`` holds, by position of the task, the tensors that the base does not have in that shape and dtype.
    """

    tensors: tuple[TensorPlan, ...]
    weights: tuple[float, ...]
    heads: Mapping[int, tuple[Entry, ...]]

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The result's tensors, sorted by name."""
        return tuple(sorted(replace(plan.spec, name=name) for plan in self.tensors for name in plan.names))


def make(base: Manifest, tasks: Sequence[Manifest], recipe: Recipe, method: Fold | Joint) -> Plan:
    """Decide what becomes of every base tensor.

    Raises:
        Conflict: several tasks changed a tensor of integers, booleans or packed values in different ways, and the
            recipe does not say what to do about it.
    """
    weights = method.coefficients([weighted.coefficient for weighted in recipe.tasks]) if tasks else ()
    tensors = tuple(_tensors(base, tasks, weights, recipe, method))
    return Plan(tensors, weights, {at: task.heads for at, task in enumerate(tasks) if task.heads})


def _tensors(
    base: Manifest, tasks: Sequence[Manifest], weights: Sequence[float], recipe: Recipe, method: Fold | Joint
) -> Iterator[TensorPlan]:
    for group in _ties(base, tasks):
        entry = base.by_name[group[0]]
        sources = tuple(
            (at, changed)
            for at, task in enumerate(tasks)
            if weights[at] != 0 and (changed := _changed(task, group)) is not None
        )
        spec = entry.spec
        rule: Rule = "elementwise"
        if not sources:
            rule = "base"
        elif spec.dtype not in MERGED:
            rule, sources = _carried(spec, sources, recipe.on_int_mismatch)
        else:
            rule = _merged([base.by_name[name].spec for name in group], [source for _, source in sources], method)
        if recipe.cast is not None and spec.dtype in MERGED:
            rule = "elementwise" if rule == "base" and spec.dtype != recipe.cast else rule
            spec = replace(spec, dtype=recipe.cast)
        yield TensorPlan(group, spec, rule, entry, sources)


def _merged(specs: Sequence[TensorSpec], sources: Sequence[Source], method: Fold | Joint) -> Rule:
    """Return how a tensor of numbers is merged: whole if the method wants it so, by whatever name it goes."""
    if isinstance(method, Joint):
        return "joined" if all(map(method.whole, specs)) else "elementwise"
    if len(sources) < 2 or not all(map(method.projects, specs)):
        return "elementwise"
    return "factored" if method.rotates and _narrow(specs[0], sources) else "projected"


def _narrow(spec: TensorSpec, sources: Sequence[Source]) -> bool:
    """Tell whether the tasks' vectors are products whose ranks, together, are at most half of the shorter side.

    Up to there factors take less time than the matrix, however many tasks there are, and at most its memory.
    """
    ranks = [source.rank for source in sources if isinstance(source, LowRank)]
    return len(ranks) == len(sources) and len(spec.shape) == 2 and 2 * sum(ranks) <= min(spec.shape)


def _changed(task: Manifest, group: Sequence[str]) -> Source | None:
    if (low := LowRank.of(task, group[0])) is not None:
        return None if low.still and not task.nonfinite else low
    found = (task.by_base_name.get(name) for name in group)
    return next((entry for entry in found if entry is not None and entry.state == "delta"), None)


def _ties(base: Manifest, tasks: Sequence[Manifest]) -> list[tuple[str, ...]]:
    """Group the base's names into those that hold one tensor, in the base and in each task.

    A tie (an output layer that shares its matrix with the embedding) is seen by equal digests, however it was
    written. A member that a task lacks follows the others. Vectors, and matrices of zeros, are often equal by chance
    in a base; they are never tied, so that none follows a stranger.
    """
    equal: dict[str, list[Entry]] = defaultdict(list)
    for entry in base.tensors:
        equal[entry.digest].append(entry)
    groups: list[tuple[str, ...]] = []
    for entries in equal.values():
        names = tuple(entry.spec.name for entry in entries)
        tied = len(names) > 1 and all(_one(task, names) for task in tasks) and _may_tie(entries[0])
        groups += [names] if tied else [(name,) for name in names]
    return sorted(groups)


def _may_tie(entry: Entry) -> bool:
    spec = entry.spec
    matrix = spec.dtype in MERGED and len(spec.shape) >= 2
    return matrix and entry.digest != zeros_digest(spec.dtype, spec.shape)


def _one(task: Manifest, names: Sequence[str]) -> bool:
    """Tell whether a task holds one tensor under all these names; an adapter leaves what it does not name alone."""
    if task.updates:
        return len({low and low.identity for low in (LowRank.of(task, name) for name in names)}) == 1 and not any(
            entry.state == "delta" for name in names if (entry := task.by_base_name.get(name)) is not None
        )
    return len({entry.digest for name in names if (entry := task.by_base_name.get(name)) is not None}) <= 1


def _carried(
    spec: TensorSpec, sources: tuple[tuple[int, Source], ...], mismatch: Mismatch
) -> tuple[Rule, tuple[tuple[int, Source], ...]]:
    """Take what the changing tasks agree on, as git does for files; values that are no numbers are never mixed."""
    if len({source.digest for _, source in sources if isinstance(source, Entry)}) == 1:
        return "task", sources[:1]
    if mismatch == "base":
        return "base", ()
    raise Conflict(
        f"tensor {printable(spec.name)} ({spec.dtype}) was changed in different ways by {len(sources)} tasks, "
        f"and {spec.dtype} values cannot be merged",
        "pass --on-int-mismatch base to keep the base's values",
    )


def summary(plan: Plan) -> dict[str, int]:
    """Count the result's tensors by rule."""
    counts = dict.fromkeys(get_args(Rule), 0)
    for tensor in plan.tensors:
        counts[tensor.rule] += len(tensor.names)
    return counts


def describe(plan: Plan, names: Sequence[str]) -> list[str]:
    """Return a sentence for each thing about the plan that a user should hear."""
    return [
        Note(
            f"task {names[at]}: {counted(len(entries), 'tensor')} that the base does not have in that shape and dtype "
            f"{'goes' if len(entries) == 1 else 'go'} to heads/{names[at]}.safetensors",
            [entry.spec.name for entry in entries],
        )
        for at, entries in plan.heads.items()
    ]
