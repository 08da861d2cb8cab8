"""How two arrays of numbers compare: norms, cosine, sign conflicts; summed over spans."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

_TOO_LARGE = 2.0**960
"""Sums of spans below this stay within float64 for any number of spans that fits in memory."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over pairs of elements, exact to add: the total over given spans does not depend on their order.

    Each span's sums are rounded once, to float64; adding spans rounds nothing. ``Moments()`` is the neutral element.

    Attributes:
        squares_a: Sum of a²; ``None`` when a value is NaN, infinite or too large to square in float64.
        squares_b: Sum of b², likewise.
        dot: Sum of a·b, likewise.
        conflicts: Elements where a and b are non-zero and of opposite sign.
        changed: Elements where a and b differ as numbers: a NaN differs from everything, -0.0 equals 0.
        elements: Number of elements.
    """

    squares_a: Fraction | None = Fraction(0)
    squares_b: Fraction | None = Fraction(0)
    dot: Fraction | None = Fraction(0)
    conflicts: int = 0
    changed: int = 0
    elements: int = 0

    @classmethod
    def of(cls, a: NDArray[np.float64], b: NDArray[np.float64]) -> Self:
        """Measure one span: two float64 arrays of one shape, small enough for a few temporary copies."""
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(
                _exact(a * a),
                _exact(b * b),
                _exact(a * b),
                int(np.count_nonzero(np.sign(a) * np.sign(b) < 0)),
                int(np.count_nonzero(a != b)),
                a.size,
            )

    def __add__(self, other: Self) -> Self:
        """Return the moments of both sets of elements together."""
        return type(self)(
            _plus(self.squares_a, other.squares_a),
            _plus(self.squares_b, other.squares_b),
            _plus(self.dot, other.dot),
            self.conflicts + other.conflicts,
            self.changed + other.changed,
            self.elements + other.elements,
        )

    @property
    def norm_a(self) -> float | None:
        """Euclidean norm of a; ``None`` when it is not known."""
        return None if self.squares_a is None else math.sqrt(self.squares_a)

    @property
    def norm_b(self) -> float | None:
        """Euclidean norm of b; ``None`` when it is not known."""
        return None if self.squares_b is None else math.sqrt(self.squares_b)

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between a and b, -1 to 1; ``None`` when a norm is 0 or not known."""
        a, b = self.norm_a, self.norm_b
        if not a or not b or self.dot is None:
            return None
        return max(-1.0, min(1.0, float(self.dot) / a / b))

    @property
    def sign_conflict(self) -> float:
        """Fraction of elements whose signs conflict, 0 to 1; 0 when there are no elements."""
        return self.conflicts / self.elements if self.elements else 0.0


def _exact(products: NDArray[np.float64]) -> Fraction | None:
    # numpy's pairwise sum, not a BLAS dot product: that one's order of additions hangs on the number of threads.
    total = float(products.sum())
    return Fraction(total) if abs(total) < _TOO_LARGE else None


def _plus(a: Fraction | None, b: Fraction | None) -> Fraction | None:
    return None if a is None or b is None else a + b
