"""The protocol of merge methods that look at all task vectors of a tensor at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightvc.objects.ids import Version
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput

Scope: TypeAlias = Literal["tensor", "model"]

Seen: TypeAlias = NDArray[Any]
"""What one pass adds up over the pieces of a tensor: an array of numbers, of any shape."""


PART = 1 << 16
"""Elements of a part of a piece."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the merge: its coefficient in the recipe, and its version, which seeds what is drawn for it."""

    coefficient: float
    version: Version


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements of one tensor: a span of it in row-major order, or all of a matrix.

    Attributes:
        spec: The tensor's, by the base's name.
        offset: Index of the first element.
        base: The base's elements, float64; empty where a method takes the tensor whole.
        vectors: By the task's position, the task vectors of the tasks that move the tensor, each times the task's
            factor from :meth:`Joint.coefficients`; float64, and the method's own to overwrite. Never empty.
    """

    spec: TensorSpec
    offset: int
    base: Tensor
    vectors: Mapping[int, Tensor]

    def parts(self) -> Iterator["Piece"]:
        """Return this span of a tensor in parts that fit a processor's cache, in order; they share its memory."""
        for start in range(0, next(iter(self.vectors.values())).numel(), PART):
            cut = slice(start, start + PART)
            vectors = {at: vector[cut] for at, vector in self.vectors.items()}
            yield Piece(self.spec, self.offset + start, self.base[cut], vectors)


@runtime_checkable
class Joint(Protocol):
    """A merge method that needs all task vectors of a tensor together, and may need to see them several times.

    The caller streams every changed tensor ``passes`` times, adds up what :meth:`observe` returns, and hands the sums
    to :meth:`combine` after each pass: for one tensor at a time if :attr:`decides` is ``tensor``, for all at once if it
    is ``model``. Then the merged tensor is ``base + merge(piece, known)``. Memory is that of all task vectors of one
    span, or of one tensor that is taken whole.

    Implementations are frozen dataclasses, as those of :class:`weightvc.merge.method.Fold`.
    """

    name: ClassVar[str]

    @property
    def passes(self) -> int:
        """How often the tensors are seen before they can be merged."""
        ...

    @property
    def decides(self) -> Scope:
        """Whether what is seen of one tensor decides about that tensor, or about the model."""
        ...

    @property
    def neutral(self) -> bool:
        """Whether a single task at coefficient 1 is given back as it is."""
        ...

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the factors of the task vectors, given the recipe's; a task with 0 is left out.

        Raises:
            UsageError: the method cannot use these coefficients, or so many tasks.
        """
        ...

    def whole(self, spec: TensorSpec) -> bool:
        """Tell whether the method needs this tensor as one piece."""
        ...

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> Any:
        """Return what is known before the first pass, of all tasks and of all tensors that can be merged."""
        ...

    def observe(self, piece: Piece, known: Any) -> Seen:
        """Return what the current pass adds up."""
        ...

    def combine(self, seen: Mapping[str, Seen], known: Any) -> Any:
        """Return what is known after a pass; ``seen`` has the sums by the tensors' names, in their order.

        Integers, which are exact in any order, may come added up over all tensors, under an empty name.
        """
        ...

    def merge(self, piece: Piece, known: Any) -> Tensor:
        """Return the merged task vector of a piece, float64, of its shape."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """A joint method that finds out, in its passes, what a user should hear of a task."""

    def report(self, known: Any) -> Sequence[tuple[int, str]]:
        """Return (position of the task, what to say of it) pairs, given what is known after the passes."""
        ...


def gram(vectors: Sequence[Tensor]) -> Seen:
    """Return the inner products of float64 tensors of one shape, as a symmetric matrix.

    Raises:
        BadInput: one of them is beyond double precision.
    """
    flat = [vector.reshape(-1) for vector in vectors]
    found = np.empty((len(flat), len(flat)))
    for i, left in enumerate(flat):
        for j, right in enumerate(flat[: i + 1]):
            found[i, j] = found[j, i] = float(torch.dot(left, right))
    if not np.isfinite(found).all():
        raise BadInput("a task vector holds enormous values, whose products overflow", "use smaller coefficients")
    return found


def weighted(vectors: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor:
    """Return the weighted sum in the memory of the first vector, in the order of the tasks."""
    (first, *rest) = sorted(vectors)
    total = vectors[first].mul_(weights[first])
    for at in rest:
        total.add_(vectors[at], alpha=weights[at])
    return total
