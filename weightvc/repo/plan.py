"""What a merge does with each tensor, decided from manifests alone, before any tensor is read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias, get_args

from weightvc.merge.joint import Joint
from weightvc.merge.keep import Keep
from weightvc.merge.method import Fold
from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.recipe import Mismatch, Recipe
from weightvc.objects.tensors import MERGED, TensorSpec, zeros_digest
from weightvc.repo import resized
from weightvc.repo.factors import LowRank
from weightvc.repo.rules import Methods
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
    ``by`` is the position of the recipe's rule that chose its method, ``None`` if that is the recipe's own. ``why``
    says why ``rule`` is what it is.
    """

    names: tuple[str, ...]
    spec: TensorSpec
    rule: Rule
    base: Entry
    sources: tuple[tuple[int, Source], ...]
    by: int | None = None
    why: str = ""

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
class Part:
    """The tensors that one method merges, in the order of names, and the weights that it gives the tasks.

    What a method decides about a whole model it decides about the tensors of its part.
    """

    method: Fold | Joint
    weights: tuple[float, ...]
    tensors: tuple[TensorPlan, ...]


@dataclass(frozen=True)
class Plan:
    """A merge: a plan for each tensor in the order of names, by which method, and what is left out of it.

    ``parts`` are empty where nothing is merged. ``heads`` holds, by position of the task, the tensors that the base
    does not have in that shape and dtype.
    """

    tensors: tuple[TensorPlan, ...]
    parts: tuple[Part, ...]
    heads: Mapping[int, tuple[Entry, ...]]

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The result's tensors, sorted by name."""
        return tuple(sorted(replace(plan.spec, name=name) for plan in self.tensors for name in plan.names))


class _Choice(NamedTuple):
    """The method of one tensor, the weights that it gives the tasks, and the rule that chose it."""

    method: Fold | Joint
    weights: tuple[float, ...]
    by: int | None


def make(base: Manifest, tasks: Sequence[Manifest], recipe: Recipe, methods: Methods) -> Plan:
    """Decide what becomes of every base tensor.

    Raises:
        Conflict: several tasks changed a tensor of integers, booleans or packed values in different ways, or a task has
            a vocabulary of another size, and the recipe does not say what to do about it.
        UsageError: a method cannot use the coefficients, or so many tasks.
    """
    given = [weighted.coefficient for weighted in recipe.tasks]
    weights = {method: method.coefficients(given) if tasks else () for method in methods.every}

    def choice(names: Sequence[str]) -> _Choice:
        by = methods.rule(names)
        return _Choice(methods.at(by), weights[methods.at(by)], by)

    for at, task in enumerate(tasks):
        if weights[methods.own][at] != 0:
            resized.refuse(base, task, methods)
    tensors: dict[Fold | Joint, list[TensorPlan]] = {method: [] for method in weights}
    for group in _ties(base, tasks):
        chosen = choice(group)
        tensors[chosen.method].append(_tensor(group, base, tasks, recipe, chosen))
    parts = tuple(Part(method, weights[method], tuple(held)) for method, held in tensors.items() if held)
    every = sorted((tensor for part in parts for tensor in part.tensors), key=lambda tensor: tensor.names)
    return Plan(tuple(every), parts, {at: task.heads for at, task in enumerate(tasks) if task.heads})


def _tensor(
    group: tuple[str, ...],
    base: Manifest,
    tasks: Sequence[Manifest],
    recipe: Recipe,
    chosen: _Choice,
) -> TensorPlan:
    entry = base.by_name[group[0]]
    sources = tuple(
        (at, changed)
        for at, task in enumerate(tasks)
        if chosen.weights[at] != 0 and (changed := _changed(task, group)) is not None
    )
    spec = entry.spec
    rule: Rule = "base"
    if not sources:
        why = "kept" if isinstance(chosen.method, Keep) else "unchanged"
    elif spec.dtype not in MERGED:
        rule, why, sources = _carried(spec, sources, recipe.on_int_mismatch)
    else:
        specs = [base.by_name[name].spec for name in group]
        rule, why = _merged(specs, [source for _, source in sources], chosen.method)
    if recipe.cast is not None and spec.dtype in MERGED:
        if rule == "base" and spec.dtype != recipe.cast:
            rule, why = "elementwise", f"{why}, cast"
        spec = replace(spec, dtype=recipe.cast)
    return TensorPlan(group, spec, rule, entry, sources, chosen.by, why)


def _merged(specs: Sequence[TensorSpec], sources: Sequence[Source], method: Fold | Joint) -> tuple[Rule, str]:
    """Return how a tensor of numbers is merged, and why: whole if the method wants it so, by whatever name it goes."""
    wants = method.whole if isinstance(method, Joint) else method.projects
    if isinstance(method, Joint):
        if all(map(wants, specs)):
            return "joined", "matrix"
    elif len(sources) < 2:
        return "elementwise", "changed by one task"
    elif all(map(wants, specs)):
        return ("factored", "adapters") if method.rotates and _narrow(specs[0], sources) else ("projected", "matrix")
    spec = specs[0]
    if not wants(replace(spec, name="-", shape=(2, 2))):
        return "elementwise", "by element"
    if len(spec.shape) != 2 or min(spec.shape) < 2:
        return "elementwise", "no matrix"
    return "elementwise", "named by other=" if hasattr(method, "other") else "by element"


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
) -> tuple[Rule, str, tuple[tuple[int, Source], ...]]:
    """Take what the changing tasks agree on, as git does for files; values that are no numbers are never mixed."""
    if len({source.digest for _, source in sources if isinstance(source, Entry)}) == 1:
        why = "tasks agree" if len(sources) > 1 else "changed by one task"
        return "task", f"{spec.dtype}, {why}", sources[:1]
    if mismatch == "base":
        return "base", f"{spec.dtype}, tasks disagree", ()
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
