"""What all lossy codecs share: which tensors they take, a task vector read by chunks, and a step put onto the base."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from weightvc.delta import values
from weightvc.delta.pair import Pair, Unsuited
from weightvc.delta.words import Words
from weightvc.objects.tensors import MAX_BYTES, TensorSpec
from weightvc.util.errors import Corrupt
from weightvc.util.text import printable

DTYPES = frozenset({"F32", "F16", "BF16"})
LEAST = 4096
"""Elements below which a tensor is not worth a loss."""

Numbers = NDArray[np.float64]


def suits(spec: TensorSpec) -> bool:
    """Tell whether a tensor is one that lossy codecs take: a large enough matrix, or array, of floats."""
    return spec.dtype in DTYPES and len(spec.shape) >= 2 and spec.elements >= LEAST


def columns(spec: TensorSpec) -> int:
    """Return the elements of a row: of one index of the first dimension."""
    return spec.elements // spec.shape[0]


def take(spec: TensorSpec, most: int = MAX_BYTES) -> None:
    """Raise :class:`Unsuited` for a tensor that lossy codecs do not take, or with rows of more than ``most``."""
    if not suits(spec) or columns(spec) > most:
        raise Unsuited(f"tensor {printable(spec.name)!r}: no large matrix of floating-point numbers")


def check(spec: TensorSpec) -> None:
    """Raise :class:`Corrupt` for a tensor that no lossy codec takes."""
    if not suits(spec):
        raise Corrupt(f"a lossy encoding of a {spec.dtype} tensor of shape {list(spec.shape)}")


def read(pair: Pair) -> Iterator[tuple[int, Numbers]]:
    """Return the task vector, the tensor less its base, by chunks, each with the place of its first element.

    Raises:
        Unsuited: a value is not finite.
    """
    for index in range(pair.chunks):
        moved = difference(pair.spec.dtype, pair.target(index), pair.base(index))
        if not np.isfinite(moved).all():
            raise Unsuited(f"tensor {printable(pair.spec.name)!r}: a value is not finite")
        yield index * pair.chunk_words, moved


def difference(dtype: str, target: Words, base: Words) -> Numbers:
    """Return the target less the base, as numbers."""
    moved = values.to_float(dtype, target.data)
    with np.errstate(invalid="ignore"):
        moved -= values.to_float(dtype, base.data)
    return moved


def put(dtype: str, base: Words, step: Numbers, out: Words) -> None:
    """Put base + step, rounded once, into ``out``; the base's words where the step is 0 or leaves the dtype's range."""
    with np.errstate(over="ignore", invalid="ignore"):
        moved = values.to_float(dtype, base.data) + step
    values.to_words(dtype, moved, out)
    stays = step == 0
    stays |= ~np.isfinite(values.to_float(dtype, out.data))
    np.copyto(out, base, where=stays)
