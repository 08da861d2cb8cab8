"""OPCM: orthogonal projection-based continual merging, in its published and its stable form.

Reference: Tang et al., "Merging Models on the Fly Without Retraining: A Sequential Approach to Scalable Continual
Model Merging", NeurIPS 2025, arXiv 2501.09522.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from weightvc.merge import linalg, mixed
from weightvc.merge.method import Step, add, check
from weightvc.merge.params import named
from weightvc.objects.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class _Projecting(ABC):
    """What both forms share: which tensors are projected, when a step is trivial, and the published scale."""

    name: ClassVar[str]
    scaled: ClassVar[bool] = True
    rotates: ClassVar[bool] = True

    alpha: float
    norm: str
    other: str

    @property
    def step_rule(self) -> str:
        """Return the name and what a step depends on: not ``norm``, nor ``other``, which says what is projected."""
        held = [one.name for one in fields(self) if one.name not in ("norm", "other")]
        return " ".join([self.name, *(f"{name}={getattr(self, name)!r}" for name in held)])

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients as given."""
        return tuple(given)

    def projects(self, spec: TensorSpec) -> bool:
        """Tell whether the tensor is a matrix with two rows and columns or more, and not named by ``other``."""
        matrix = len(spec.shape) == 2 and min(spec.shape) >= 2
        return matrix and not named(spec.name, self.other)

    def step(self, state: Tensor | None, vector: Tensor, *, project: bool) -> Step:
        """Add one task vector; see :meth:`weightvc.merge.method.Fold.step`.

        A state of zeros has no directions to protect: the vector is taken whole.
        """
        check(state, vector)
        if not project or state is None or linalg.vanishes(state):
            return Step(add(state, vector), None)
        if linalg.vanishes(vector) and not vector.any():
            return Step(state, None)
        return Step(*self._add(linalg.aligned(state), linalg.aligned(vector)))

    def scale(self, task_norms: Sequence[float], merged_norm: float) -> float:
        """Return the factor that gives the merge the norm that ``norm`` says; 1 where there is nothing to scale.

        Tasks without a vector do not count: merging a copy of the base as well changes no bit. Nor is a task scaled
        that alone has one.
        """
        moving = [norm for norm in task_norms if norm]
        if not moving or not merged_norm:
            return 1.0
        if self.norm == "rss":
            return math.hypot(*moving) / merged_norm
        times = 1.0 if self.norm == "mean" or len(moving) == 1 else float(self.norm)
        return times * (math.fsum(moving) / len(moving)) / merged_norm

    @abstractmethod
    def _add(self, state: Tensor, vector: Tensor) -> tuple[Tensor, int]: ...


@dataclass(frozen=True, slots=True)
class Opcm(_Projecting):
    """The published rule, made canonical: see :func:`weightvc.merge.linalg.add_canonical`."""

    name: ClassVar[str] = "opcm"

    def _add(self, state: Tensor, vector: Tensor) -> tuple[Tensor, int]:
        return linalg.add_canonical(state, vector, self.alpha)


@dataclass(frozen=True, slots=True)
class OpcmS(_Projecting):
    """The stable rule: see :func:`weightvc.merge.linalg.add_stable`, and :mod:`weightvc.merge.mixed` for mixed."""

    name: ClassVar[str] = "opcm-s"

    precision: str

    def _add(self, state: Tensor, vector: Tensor) -> tuple[Tensor, int]:
        rule = mixed.add if self.precision == "mixed" else linalg.add_stable
        return rule(state, vector, self.alpha)
