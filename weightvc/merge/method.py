"""The protocol of merge methods that stream: one state per tensor, however many tasks there are."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from weightvc.objects.tensors import TensorSpec


class Step(NamedTuple):
    """What one step of a fold gives.

    Attributes:
        state: The accumulated sum, float64, of the task vector's shape. It may share memory with either argument.
        rank: The split rank that the step decided, or ``None`` when nothing was projected.
    """

    state: Tensor
    rank: int | None


class Fold(Protocol):
    """A merge method as a left fold over task vectors, tensor by tensor.

    For each tensor the caller folds ``state = step(state, c_t * (tuned_t - base)).state`` over the tasks in the
    recipe's order, with ``c`` from :meth:`coefficients`; the merged tensor is ``base + scale * state``.

    Implementations are frozen dataclasses. Their fields are the method's parameters and their stored form, already
    checked by :func:`weightvc.merge.table.create`. Results depend on the arguments only, as long as the calling
    thread runs one BLAS thread (:func:`weightvc.merge.linalg.single_thread`).
    """

    name: ClassVar[str]
    scaled: ClassVar[bool]
    """Whether :meth:`scale` needs the global norms. Where it does not, the caller can stream in a single pass."""
    rotates: ClassVar[bool]
    """Whether a projected step commutes with rotations: P step(S, D) Q' = step(P S Q', P D Q') for any P and Q of
    orthonormal columns, with the same rank. Matrices that are known as narrow factors are then never multiplied out.
    """

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return the factors to apply to the task vectors, given those of the recipe.

        Raises:
            UsageError: the method cannot use these coefficients.
        """
        ...

    def projects(self, spec: TensorSpec) -> bool:
        """Tell whether :meth:`step` needs this tensor whole.

        If not, the step is elementwise: applied to any spans of the flattened tensor it gives the same bytes.
        """
        ...

    def step(self, state: Tensor | None, vector: Tensor, *, project: bool) -> Step:
        """Add one task vector to the accumulated sum.

        The caller hands over ``state`` and ``vector``: their memory is reused for the result, so neither may be
        read afterwards. A vector of zeros gives back ``state`` bit for bit.

        Args:
            state: What the step before returned, or ``None`` at the first task.
            vector: The task vector times its coefficient, float64: a contiguous matrix if ``project``, else of any
                shape.
            project: :meth:`projects` of this tensor.

        Raises:
            BadInput: a matrix to be projected holds NaN or infinite values.
            ValueError: ``vector`` is not float64, or its shape is not that of ``state``.
        """
        ...

    def scale(self, task_norms: Sequence[float], merged_norm: float) -> float:
        """Return the one global factor for the accumulated sums.

        Args:
            task_norms: For each task, the Frobenius norm of all its vectors together, as given to :meth:`step`.
                Ignored, like ``merged_norm``, unless :attr:`scaled`.
            merged_norm: The Frobenius norm of all accumulated sums together.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """A fold whose states may be kept, and gone on from, by another of equal :attr:`step_rule`."""

    @property
    def step_rule(self) -> str:
        """All that decides the bits of a step besides its arguments: the method, its version, and some parameters."""
        ...


def check(state: Tensor | None, vector: Tensor) -> None:
    """Refuse what no caller may hand to a step.

    Raises:
        ValueError: as :meth:`Fold.step`.
    """
    if vector.dtype != torch.float64:
        raise ValueError(f"a task vector is float64, not {vector.dtype}")
    if state is not None and state.shape != vector.shape:
        raise ValueError(f"a vector of shape {tuple(vector.shape)} for a state of shape {tuple(state.shape)}")


def add(state: Tensor | None, vector: Tensor) -> Tensor:
    """Return ``state + vector`` in the memory of one of them; ``vector`` itself when there is no state.

    No state ever holds a negative zero: the first vector is cleared of them, and sums make none out of others. That
    is what makes adding a zero an identity on bits, whichever span of a tensor it happens in.

    Raises:
        ValueError: as :meth:`Fold.step`.
    """
    check(state, vector)
    return vector.add_(0.0) if state is None else state.add_(vector)
