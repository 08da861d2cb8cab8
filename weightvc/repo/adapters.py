"""Adapters: which tensors of the base a LoRA adapter updates, and by which of its own."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from weightvc.checkpoint import adapter as adapters
from weightvc.checkpoint.adapter import Adapter, Factors
from weightvc.checkpoint.reader import Checkpoint
from weightvc.delta import values
from weightvc.objects.manifest import Manifest
from weightvc.objects.tensors import MERGED, TensorSpec, tensor_digest
from weightvc.objects.updates import Update, product
from weightvc.repo.align import Alignment, align
from weightvc.util.errors import BadInput
from weightvc.util.text import counted, listed, printable

_HINT = "check that it is an adapter of this repository's base, as the base was when the adapter was trained"


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
        raise BadInput(f"{where}: updates modules that the base does not have: {listed(lacking)}", _HINT)
    updates = [
        _update(checkpoint, checkpoint.adapter, module, pair, base[matched.names[f"{module}.weight"]])
        for module, pair in factors.items()
    ]
    names = {name: matched.names[plain] for name, plain in others.items() if plain in matched.names}
    return replace(matched, names=names, updates=tuple(sorted(updates, key=lambda update: update.of)))


def refuse_both(checkpoint: Checkpoint, matched: Alignment, base: Manifest) -> None:
    """Raise :class:`BadInput` if an adapter updates a tensor of the base that it also replaces by another.

    Peft saves the tensor of an updated embedding beside the update; that is the base's own.
    """
    updated = {update.of for update in matched.updates}
    for name, other in matched.names.items():
        if other in updated:
            spec = checkpoint.tensors[name]
            if tensor_digest(spec.dtype, spec.shape, checkpoint.read(name)) != base.by_name[other].digest:
                where = printable(str(checkpoint.path))
                raise BadInput(f"{where}: both replaces and updates {printable(other)}", adapters.MERGE)


def square(checkpoint: Checkpoint, update: Update) -> float:
    """Return the squared Frobenius norm of an update: ‖s·B·A‖² = s²·tr((BᵀB)(AAᵀ)), without making the product."""
    a, b = factors_of(checkpoint, update)
    with np.errstate(all="ignore"):
        return float(np.sum((b.T @ b) * (a @ a.T))) * update.scale**2


def describe(checkpoint: Checkpoint, updates: tuple[Update, ...]) -> list[str]:
    """Say what an adapter updates, and by which ranks."""
    ranks = sorted({checkpoint.tensors[update.a].shape[0] for update in updates})
    what = f"a LoRA adapter of rank {listed(list(map(str, ranks)))}, kept as it is"
    return [f"{what}: it updates {counted(len(updates), 'tensor')} of the base"]


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
            "save the adapter again",
        )
    return shape


def _update(checkpoint: Checkpoint, settings: Adapter, module: str, pair: Factors, base: TensorSpec) -> Update:
    a, b = (checkpoint.tensors[name] for name in (pair.a, pair.b))
    scale = settings.scale(module, a.shape[0])
    plain, turned = (Update(base.name, pair.a, pair.b, scale, transposed) for transposed in (False, True))
    fitting = [update for update in (plain, turned) if update.fits(base, a, b)]
    if pair.embedding:
        fitting = [update for update in fitting if update.transposed]
    if not fitting:
        raise BadInput(
            f"{printable(str(checkpoint.path))}: the update of {printable(base.name)} has the shape "
            f"{list(_shape(checkpoint, pair, ''))}, the base's tensor is {base.dtype} {list(base.shape)}",
            _HINT,
        )
    return fitting[-1] if settings.fan_in_fan_out else fitting[0]
