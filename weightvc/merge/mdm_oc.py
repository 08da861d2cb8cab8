"""MDM-OC: task vectors made orthogonal one after the other, by Gram-Schmidt over the whole model.

Reference: "MDM-OC", arXiv 2507.20997, whose equations are not public: this is weightvc's own definition. With D_t the
task vectors as vectors over all merged tensors, q_t = D_t less its projections on q_1 … q_(t-1), and the merged task
vector is the sum of a_t·q_t, where a_t is the task's coefficient.

It is computed without ever making a q_t: with K_ij = ⟨D_i, D_j⟩ = L·diag(d)·Lᵀ, q = L⁻¹·D, so the sum is that of
w_t·D_t where Lᵀ·w = a.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from weightvc.merge.joint import Piece, Scope, Seen, Task, gram, weighted
from weightvc.objects.tensors import TensorSpec

Matrix: TypeAlias = NDArray[np.float64]

SPAN = 1e-10
"""Share of a task vector's squared norm below which what is new in it counts as nothing."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The recipe's coefficients a, and the matrix K and the factors w of the task vectors once they are known."""

    given: tuple[float, ...]
    weights: tuple[float, ...] = ()
    k: Matrix | None = None


@dataclass(frozen=True, slots=True)
class MdmOc:
    """Gram-Schmidt on the task vectors of the model. ``unmerge``: what a coefficient of 0 does.

    ``replay`` leaves the task out, as if it had never been; ``subtract`` takes its own q_t out of the sum and keeps
    what it did to later ones, which is an approximation.
    """

    name: ClassVar[str] = "mdm-oc"
    passes: ClassVar[int] = 1
    decides: ClassVar[Scope] = "model"
    neutral: ClassVar[bool] = True

    unmerge: str

    def coefficients(self, given: Sequence[float]) -> tuple[float, ...]:
        """Return 1 for every task that takes part: the coefficients scale the orthogonal parts, not task vectors."""
        return tuple(1.0 if self.unmerge == "subtract" or number else 0.0 for number in given)

    def whole(self, spec: TensorSpec) -> bool:
        """Return ``False``: the sum is elementwise."""
        return False

    def begin(self, tasks: Sequence[Task], specs: Sequence[TensorSpec]) -> _Known:
        """Return the coefficients."""
        return _Known(tuple(task.coefficient for task in tasks))

    def observe(self, piece: Piece, known: _Known) -> Seen:
        """Return the piece's part of K."""
        found = np.zeros((len(known.given),) * 2)
        positions = sorted(piece.vectors)
        found[np.ix_(positions, positions)] = gram([piece.vectors[at] for at in positions])
        return found

    def combine(self, seen: Mapping[str, Seen], known: _Known) -> _Known:
        """Return the weights w of the task vectors."""
        size = len(known.given)
        total = np.array([[math.fsum(part[i, j] for part in seen.values()) for j in range(size)] for i in range(size)])
        return _Known(known.given, solve(total, known.given), total)

    def merge(self, piece: Piece, known: _Known) -> Tensor:
        """Return the sum of the weighted task vectors."""
        return weighted(piece.vectors, dict(enumerate(known.weights)))

    def report(self, known: _Known) -> Sequence[tuple[int, str]]:
        """Return what a user should know of each task: that it adds nothing, or how far it was taken out."""
        if known.k is None:
            return ()
        _, d = factor(known.k)
        found = [
            (at, "it lies in the span of the tasks before it, and adds nothing")
            for at, square in enumerate(d)
            if not square and known.k[at, at] and known.given[at]
        ]
        if self.unmerge == "subtract":
            gone = [at for at, number in enumerate(known.given) if not number and d[at]]
            found += [(at, _subtracted(*fidelity(known.k, known.given, at))) for at in gone]
        return found


def _subtracted(kept: float, left: float) -> str:
    return (
        f"taken out by subtraction, an approximation: weight fidelity {kept:.4f} (1 for the merge without it), "
        f"residual alignment {left:.4f}"
    )


def fidelity(k: Matrix, given: Sequence[float], gone: int) -> tuple[float, float]:
    """Return how well subtracting q of task ``gone`` does for a merge without the task, from K alone.

    Returns:
        Weight fidelity, 1 - ‖subtracted - without‖ / ‖with - without‖ where the task comes back at coefficient 1, and
        residual alignment, the cosine between D of the task and what is subtracted down to. Terms of arXiv 2507.20997.
    """
    others = [at for at in range(len(given)) if at != gone]
    without = np.zeros(len(given))
    without[others] = solve(k[np.ix_(others, others)], [given[at] for at in others])
    before, after = (np.array(solve(k, [*given[:gone], number, *given[gone + 1 :]])) for number in (1.0, 0.0))

    def norm(weights: Matrix) -> float:
        return math.sqrt(max(0.0, float(weights @ k @ weights)))

    lengths = norm(after) * math.sqrt(k[gone, gone])
    change = norm(before - without)
    kept = 1.0 - norm(after - without) / change if change else 1.0
    return kept, abs(float(after @ k[gone])) / lengths if lengths else 0.0


def factor(k: Matrix) -> tuple[Matrix, Matrix]:
    """Return L and d of K = L·diag(d)·Lᵀ, L unit lower triangular.

    A task in the span of those before it (d_t ≤ 1e-10·K_tt) has q_t = 0: its d is 0, and its row and column of L are
    those of the identity.
    """
    size = len(k)
    lower, d = np.eye(size), np.zeros(size)
    for i in range(size):
        for j in range(i):
            if d[j]:
                lower[i, j] = (k[i, j] - np.sum(lower[i, :j] * lower[j, :j] * d[:j])) / d[j]
        d[i] = k[i, i] - np.sum(lower[i, :i] ** 2 * d[:i])
        if d[i] <= SPAN * k[i, i]:
            d[i] = 0.0
    return lower, d


def solve(k: Matrix, given: Sequence[float]) -> tuple[float, ...]:
    """Return w with Lᵀ·w = a; the a_t of a task with q_t = 0 counts for nothing."""
    lower, d = factor(k)
    a = np.where(d > 0.0, given, 0.0)
    w = np.zeros(len(a))
    for i in reversed(range(len(a))):
        w[i] = a[i] - np.sum(lower[i + 1 :, i] * w[i + 1 :])
    return tuple(w.tolist())
