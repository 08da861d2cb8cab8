"""Adapters: which tensors of the base a LoRA adapter updates, and by which of its own."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from weightvc.checkpoint import adapter as adapters
from weightvc.checkpoint.adapter import Adapter, Factors
from weightvc.checkpoint.reader import Checkpoint
from weightvc.delta import values
from weightvc.merge.params import named
from weightvc.merge.table import OTHER
from weightvc.objects.manifest import Manifest
from weightvc.objects.tensors import MERGED, TensorSpec, tensor_digest
from weightvc.objects.updates import Update, product
from weightvc.repo import orientation
from weightvc.repo.align import Alignment, align
from weightvc.repo.decode import Decoder, Reader
from weightvc.util.errors import BadInput
from weightvc.util.text import counted, listed, printable

_HINT = "check that it is an adapter of this repository's base, as the base was when the adapter was trained"
_ROWS = 2**20
"""Elements of a product that are computed at a time."""


def match(checkpoint: Checkpoint, base: Mapping[str, TensorSpec]) -> Alignment:
    """Return which tensors are which of the base's, adapters' updates included.

    Args:
        checkpoint: A model or an adapter.
        base: The base's tensors by name.

    Raises:
        BadInput: an adapter that updates what the base does not have, or not in that shape.
    """
    if checkpoint.adapter is None:
        return align(checkpoint.tensors, base)
    where = printable(str(checkpoint.path))
    factors, others = adapters.sort(checkpoint.tensors, where)
    if not factors:
        raise BadInput(f"{where}: an adapter without factors", "save the adapter again")
    shapes = {f"{module}.weight": _shape(checkpoint, pair, where) for module, pair in factors.items()}
    shapes |= {plain: checkpoint.tensors[name].shape for name, plain in others.items()}
    if len(set(others.values())) < len(others):
        raise BadInput(f"{where}: several of its tensors stand for one of the base's", "save the adapter again")
    # A base that keeps a matrix with its inputs in rows fits all the same.
    matched = align(
        {name: _unordered(name, shape) for name, shape in shapes.items()},
        {name: _unordered(name, spec.shape) for name, spec in base.items()},
    )
    if lacking := [module for module in factors if f"{module}.weight" not in matched.names]:
        raise BadInput(
            f"{where}: updates modules that the base does not have by name: {listed(lacking)}",
            f"{_HINT}; if the base ties them to other tensors, {adapters.MERGE}",
        )
    checkpoint.adapter.refuse_expressions(factors, where)
    fitting = {
        module: _fitting(checkpoint, checkpoint.adapter, module, pair, base[matched.names[f"{module}.weight"]])
        for module, pair in factors.items()
    }
    tables = [module for module, pair in factors.items() if pair.embedding]
    updates = orientation.settle(fitting, tables, turned=checkpoint.adapter.fan_in_fan_out)
    names = {name: matched.names[plain] for name, plain in others.items() if plain in matched.names}
    return replace(matched, names=names, updates=tuple(sorted(updates, key=lambda update: update.of)))


def refuse_both(checkpoint: Checkpoint, matched: Alignment, base: Manifest, reader: Reader) -> None:
    """Raise :class:`BadInput` if an adapter updates a tensor of the base that it also replaces by another.

    Peft saves the tensor of an updated embedding beside the update; that is the base's own, perhaps in a wider dtype.
    """
    updated = {update.of for update in matched.updates}
    for name, other in matched.names.items():
        if other in updated:
            spec = checkpoint.tensors[name]
            same = tensor_digest(spec.dtype, spec.shape, checkpoint.read(name)) == base.by_name[other].digest
            if not same and not _widened(checkpoint, spec, reader.open(base.by_name[other])):
                where = printable(str(checkpoint.path))
                raise BadInput(f"{where}: both replaces and updates {printable(other)}", adapters.MERGE)


def _widened(checkpoint: Checkpoint, spec: TensorSpec, base: Decoder) -> bool:
    """Tell whether a tensor has the base's numbers in another dtype."""
    other = base.entry.spec
    if spec.shape != other.shape or not {spec.dtype, other.dtype} <= MERGED:
        return False
    data, step = checkpoint.read(spec.name), spec.itemsize
    for offset, span in base.spans():
        at = offset // other.itemsize * step
        mine = values.to_float(spec.dtype, data[at : at + len(span) // other.itemsize * step])
        if not np.array_equal(mine, values.to_float(other.dtype, span)):
            return False
    return True


def square(checkpoint: Checkpoint, update: Update) -> float:
    """Return the squared Frobenius norm of an update.

    ‖s·B·A‖² = s²·tr((BᵀB)(AAᵀ)), which needs no product; where the rank is so large that the product is smaller, it is
    made some rows at a time.
    """
    a, b = factors_of(checkpoint, update)
    with np.errstate(all="ignore"):
        if len(a) ** 2 <= len(b) * a.shape[1]:
            total = float(np.sum((b.T @ b) * (a @ a.T)))
        else:
            step = max(1, _ROWS // max(1, a.shape[1]))
            total = sum(float(np.sum((b[at : at + step] @ a) ** 2)) for at in range(0, len(b), step))
        return float(np.float64(total) * np.float64(update.scale) ** 2)


def describe(checkpoint: Checkpoint, matched: Alignment, base: Mapping[str, TensorSpec]) -> list[str]:
    """Say what an adapter updates, and by which ranks."""
    updates = matched.updates
    ranks = sorted({checkpoint.tensors[update.a].shape[0] for update in updates})
    what = f"a LoRA adapter of rank {listed(list(map(str, ranks)))}, kept as it is"
    said: list[str] = [f"{what}: it updates {counted(len(updates), 'tensor')} of the base"]
    touched = sorted({*(update.of for update in updates), *matched.names.values()})
    if tables := [name for name in touched if len(base[name].shape) == 2 and named(name, OTHER)]:
        what = f"it moves {listed(tables)}: where the model ties other tensors to that, a merge moves them too"
        said.append(f"{what}, and peft's own merge may not")
    return said


def factors_of(checkpoint: Checkpoint, update: Update) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A as (rank, columns) and B as (rows, rank)."""
    return _factor(checkpoint, update.a, rows=True), _factor(checkpoint, update.b, rows=False)


def _factor(checkpoint: Checkpoint, name: str, *, rows: bool) -> NDArray[np.float64]:
    """Return a factor as a matrix, with the rank for its rows, or for its columns."""
    spec = checkpoint.tensors[name]
    flat = values.to_float(spec.dtype, checkpoint.read(name))
    return flat.reshape((spec.shape[0], -1) if rows else (-1, spec.shape[1]))


def _unordered(name: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name, "U8", tuple(sorted(shape)))


def _shape(checkpoint: Checkpoint, pair: Factors, where: str) -> tuple[int, ...]:
    """Return the shape of B·A."""
    a, b = (checkpoint.tensors[name] for name in (pair.a, pair.b))
    shape = product(a, b)
    if shape is None or not a.shape[0] or not {a.dtype, b.dtype} <= MERGED:
        raise BadInput(
            f"{where}: {printable(a.name)} {a.dtype} {list(a.shape)} and {printable(b.name)} {b.dtype} "
            f"{list(b.shape)} are not the factors of an update",
            adapters.MERGE,
        )
    wanted = checkpoint.adapter.rank if checkpoint.adapter else None
    if wanted not in (None, a.shape[0]):
        raise BadInput(
            f"{where}: {printable(a.name)} has rank {a.shape[0]}, {adapters.CONFIG} says {wanted}",
            "correct one of them",
        )
    return shape


def _fitting(
    checkpoint: Checkpoint, settings: Adapter, module: str, pair: Factors, base: TensorSpec
) -> tuple[Update, ...]:
    """Return the updates that a module's factors can stand for: one, or both orientations of a square matrix."""
    a, b = (checkpoint.tensors[name] for name in (pair.a, pair.b))
    scale = settings.scale(module, a.shape[0])
    found = (Update(base.name, pair.a, pair.b, scale, turned) for turned in (False, True))
    fitting = [update for update in found if update.fits(base, a, b) and (update.transposed or not pair.embedding)]
    if not fitting:
        raise BadInput(
            f"{printable(str(checkpoint.path))}: the update of {printable(base.name)} has the shape "
            f"{list(_shape(checkpoint, pair, ''))}, the base's tensor is {base.dtype} {list(base.shape)}",
            _HINT,
        )
    return tuple(fitting)
