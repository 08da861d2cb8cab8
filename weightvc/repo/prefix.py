"""Prefix states: what folding a matrix's first task vectors gives, kept on disk so that the next checkout begins there.

A state's key is a chain: of all that decides the bits of a step (method, parameters, environment), the base tensor, and
one task tensor after the other with its weight. Names, UUIDs and encodings of tasks are not in it, nor what a method
does with the sums afterwards.
"""

import hashlib
import math
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from weightvc.merge.fingerprint import fingerprint
from weightvc.merge.method import Resumable
from weightvc.objects.manifest import Manifest
from weightvc.repo import settings
from weightvc.repo.factors import LowRank
from weightvc.repo.plan import Plan, TensorPlan
from weightvc.repo.repository import Handle
from weightvc.repo.vectors import raw
from weightvc.store import cache
from weightvc.util import canon
from weightvc.util.canon import Json

RULES = "prefix/1"
"""Identifier of how task vectors are computed and states are kept. Change it with any change that can move a bit."""

DEFAULT = 4 * 2**30
"""Bytes that all states may have unless the clone's settings say otherwise..."""

SHARE = 10
"""... and at most one part in so many of the free disk."""

_F64 = 8


@dataclass
class Prefix:
    """The state after as many task vectors as there are squared norms, which are theirs; and the split ranks so far."""

    total: Tensor | None = None
    squares: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)


class States(Protocol):
    """Where a fold may begin, and what it leaves for later ones."""

    def longest(self, plan: TensorPlan) -> Prefix:
        """Return the state of the most tasks of a tensor that there is one of."""
        ...

    def keep(self, plan: TensorPlan, done: Prefix) -> None:
        """Offer a state, which is not read after this returns."""
        ...


class Nothing(States):
    """No states: every fold begins at the base."""

    def longest(self, plan: TensorPlan) -> Prefix:
        """Return the state of no task."""
        return Prefix()

    def keep(self, plan: TensorPlan, done: Prefix) -> None:
        """Keep nothing."""


class Kept:
    """States of one merge in a repository's cache.

    A merge keeps what fits into the limit: first the states of all tasks, then those of all but the last, then every
    ceil(sqrt(T))-th of T tasks; of one task alone none, for it is read as quickly as its state. It never drops what it
    keeps to keep something else.

    Args:
        found: The cache.
        limit: Its limit, in bytes.
        keys: For each tensor that has states, the key of each one, from that of its first task on.
        tasks: The tasks of the merge, by position.
        device: Where states are wanted.
    """

    def __init__(
        self,
        found: cache.Cache,
        limit: int,
        keys: Mapping[TensorPlan, Sequence[str]],
        tasks: Sequence[Manifest],
        device: torch.device,
    ) -> None:
        self._cache = found
        self._keys = keys
        self._tasks = tasks
        self._device = device
        self._chosen = _chosen(keys, limit)

    def longest(self, plan: TensorPlan) -> Prefix:
        """Return the state of the most tasks that the cache has whole."""
        flat = torch.empty(plan.spec.elements, dtype=torch.float64)
        for count in range(len(plan.sources), 1, -1):
            key = self._keys[plan][count - 1]
            about = self._cache.get(key, raw(flat), keep=key in self._chosen)
            if (found := _parsed(about, count)) is not None:
                return Prefix(flat.view(plan.spec.shape).to(self._device), *found)
        return Prefix()

    def keep(self, plan: TensorPlan, done: Prefix) -> None:
        """Put a state into the cache, if it is one of those to keep."""
        count = len(done.squares)
        key = self._keys[plan][count - 1]
        if done.total is not None and key in self._chosen:
            tasks = [self._tasks[at] for at, _ in plan.sources[:count]]
            tags = {tag for task in tasks for tag in (task.version, str(task.uuid))}
            about = [[square.hex() for square in done.squares], done.ranks]
            self._cache.put(key, tags, about, raw(done.total))


def states(repo: Handle, plan: Plan, tasks: Sequence[Manifest], device: str) -> States:
    """Return the states that a merge may use and leave, according to the clone's settings.

    Raises:
        BadInput, Corrupt: the settings cannot be read.
    """
    keys = _keys(plan, device)
    if not keys:
        return Nothing()
    limit = _limit(repo)
    found = cache.Cache(_root(repo), repo.tmp, limit)  # which keeps to the limit, even if that is nothing
    return Kept(found, limit, keys, tasks, torch.device(device)) if limit else Nothing()


def held(repo: Handle, plan: Plan, device: str) -> dict[TensorPlan, int]:
    """Return with how many of its tasks merging a tensor could begin, for each that has a state; reads none.

    Raises:
        BadInput, Corrupt: the settings cannot be read.
    """
    every, root = _keys(plan, device), _root(repo)
    if not every or not _limit(repo):
        return {}
    there = {
        tensor: [count for count, key in enumerate(keys, 1) if count > 1 and (root / key).exists()]
        for tensor, keys in every.items()
    }
    return {tensor: max(counts) for tensor, counts in there.items() if counts}


def forget(repo: Handle, tags: Collection[str]) -> list[Path]:
    """Drop every state that contains a task, under whatever key, and every state that cannot say what it contains.

    Args:
        repo: The repository.
        tags: Versions and UUIDs of tasks.

    Returns:
        The files that could not be removed.
    """
    return cache.forget(_root(repo), tags)


def _keys(plan: Plan, device: str) -> dict[TensorPlan, list[str]]:
    """Return the keys of the states of each tensor that has any, from that of its first task on."""
    resumable = [(part, part.method) for part in plan.parts if isinstance(part.method, Resumable)]
    projected = [
        (tensor, part.weights, method.step_rule)
        for part, method in resumable
        for tensor in part.tensors
        if tensor.rule == "projected"
    ]
    if not projected:
        return {}
    here: list[Json] = [RULES, metadata.version("weightvc"), fingerprint(device), _processor()]
    return {tensor: _chain([*here, rule], tensor, weights) for tensor, weights, rule in projected}


def _root(repo: Handle) -> Path:
    return repo.local / "cache"


def _parsed(about: Json, count: int) -> tuple[list[float], list[int]] | None:
    """Return the squared norms and split ranks that stand beside a sum; ``None`` where they do not."""
    try:
        squares, ranks = cast("list[Any]", about)
        norms = [*map(float.fromhex, squares)]
    except (TypeError, ValueError):
        return None
    whole = isinstance(ranks, list) and all(type(rank) is int for rank in ranks)
    return (norms, ranks) if whole and len(norms) == count and len(ranks) < count else None


def _limit(repo: Handle) -> int:
    known = settings.load(repo).cache_bytes
    if known is not None:
        return known
    return min(DEFAULT, shutil.disk_usage(repo.git.common_dir).free // SHARE)


def _chain(seed: Json, plan: TensorPlan, weights: Sequence[float]) -> list[str]:
    """Return the keys of a tensor's states: each a hash of the one before, and of what the task adds."""
    key, keys = _hash([seed, plan.base.digest]), []
    for at, source in plan.sources:
        what = list(source.identity) if isinstance(source, LowRank) else source.digest
        key = _hash([key, what, float(weights[at])])
        keys.append(key)
    return keys


def _chosen(keys: Mapping[TensorPlan, Sequence[str]], limit: int) -> set[str]:
    """Return the keys of the states to keep."""
    worth = [(at, key, plan) for plan in keys for at, key in enumerate(_worth(keys[plan]))]
    found, left = set(), limit
    for _, key, plan in sorted(worth, key=lambda item: (item[0], -item[2].spec.elements)):
        if plan.spec.elements * _F64 <= left:
            left -= plan.spec.elements * _F64
            found.add(key)
    return found


def _worth(keys: Sequence[str]) -> list[str]:
    """Return the keys of those states of one tensor that are worth keeping, the most worth first."""
    tasks = len(keys)
    step = math.isqrt(tasks - 1) + 1
    counts = dict.fromkeys((tasks, tasks - 1, *range(tasks - tasks % step, 1, -step)))
    return [keys[count - 1] for count in counts if count > 1]


def _hash(value: Json) -> str:
    return hashlib.sha256(canon.dumps(value)).hexdigest()


def _processor() -> str:
    """Return the model of the CPU, by which a BLAS may choose its kernels; empty where the system does not say."""
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return found[1] if found else ""
    return ""
