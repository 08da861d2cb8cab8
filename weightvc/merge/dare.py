"""DARE: drop elements of the task vectors at random and make up for them in the others.

Reference: Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
ICML 2024, arXiv 2311.03099.

What is dropped of a task depends on a seed, on the task's version and on the tensor's name, and on nothing else: not
on other tasks, on spans or on threads. The numbers are those of Philox-4x64 (Salmon et al., SC 2011), one an element.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightvc.merge import elect
from weightvc.merge.joint import Piece, Scope, Seen, Task, weighted
from weightvc.objects.tensors import TensorSpec

RESCALES = ("inverse-density", "l1", "none")

_BLOCK = 4
"""Numbers that Philox makes of one value of its counter."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The tasks, and by what each one's kept elements of the current tensor are multiplied."""

    tasks: tuple[Task, ...]
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Dropping:
    """What both forms share: dropping and making up for it."""

    decides: ClassVar[Scope] = "tensor"

    density: float
    rescale: str
    seed: int
    vectors: bool
    scaling: float

    @property
    def passes(self) -> int:
        """One where what is kept must be weighed first."""
        return int(self.rescale == "l1")

    @property
    def neutral(self) -> bool:
        """Return whether nothing scales the result."""
        return self.scaling == 1

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return 1 for every task that takes part: coefficients weigh what is left."""
        return tuple(1.0 if number else 0.0 for number in given)

    def whole(self, spec: TensorSpec) -> bool:
        """Return ``False``: what is dropped depends on an element's index only."""
        return False

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> _Known:
        """Return the tasks."""
        factor = 1 / self.density if self.rescale == "inverse-density" else 1.0
        return _Known(tuple(tasks), (factor,) * len(tasks))

    def observe(self, piece: Piece, known: _Known) -> Seen:
        """Return, for each task, the sum of the magnitudes and that of the kept ones."""
        found = np.zeros((len(known.tasks), 2))
        for at, vector in piece.vectors.items():
            before = float(vector.abs().sum())
            found[at] = before, float(self._drop(piece, at, known).abs().sum())
        return found

    def combine(self, seen: Mapping[str, Seen], known: _Known) -> _Known:
        """Return the factors that give each task's vector of the one tensor its sum of magnitudes back."""
        (sums,) = seen.values()
        return replace(known, factors=tuple(before / kept if kept else 1.0 for before, kept in sums.tolist()))

    def _left(self, piece: Piece, known: _Known) -> Mapping[int, Tensor]:
        """Drop in place, and make up for it."""
        if len(piece.spec.shape) < 2 and not self.vectors:
            return piece.vectors
        return {at: self._drop(piece, at, known).mul_(known.factors[at]) for at in piece.vectors}

    def _drop(self, piece: Piece, at: int, known: _Known) -> Tensor:
        vector = piece.vectors[at]
        if len(piece.spec.shape) < 2 and not self.vectors:
            return vector
        drawn = draw(f"{self.seed} {known.tasks[at].version} {piece.spec.name}", piece.offset, vector.numel())
        dropped = torch.from_numpy(drawn >= self.density).to(vector.device).view(vector.shape)
        return vector.masked_fill_(dropped, 0.0)


def draw(key: str, start: int, count: int) -> NDArray[np.float64]:
    """Return ``count`` numbers, from number ``start`` on, of the endless row that ``key`` names: uniform in [0, 1)."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    source = np.random.Philox(key=seed, counter=start // _BLOCK)
    skipped = start % _BLOCK
    words = source.random_raw(skipped + count)[skipped:]
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, slots=True)
class Dare(_Dropping):
    """The sum of what is left of the task vectors, times ``scaling``."""

    name: ClassVar[str] = "dare"

    def merge(self, piece: Piece, known: _Known) -> Tensor:
        """Return the weighted sum."""
        weights = {at: self.scaling * task.coefficient for at, task in enumerate(known.tasks)}
        return weighted(self._left(piece, known), weights)


@dataclass(frozen=True, slots=True)
class DareTies(_Dropping):
    """A sign for each weight, by the sum of what is left, and the weighted sum of what agrees, times ``scaling``."""

    name: ClassVar[str] = "dare_ties"

    def merge(self, piece: Piece, known: _Known) -> Tensor:
        """Return what agrees with the elected signs."""
        left, weights = self._left(piece, known), [task.coefficient for task in known.tasks]
        elected = elect.signs(left, weights, weighted=True)
        elected[elected == 0] = 1.0
        return elect.aggregate(left, weights, elected, "sum", weighted=True).mul_(self.scaling)
