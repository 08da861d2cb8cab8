"""A small model, task vectors of it, and a driver that joins them in memory as the engine does."""

import numpy as np
import torch

from weightvc.merge.joint import Piece, Task
from weightvc.objects.tensors import TensorSpec

SHAPES = {"a.weight": (9, 6), "b.weight": (5, 11), "c.bias": (40,), "d.scale": (), "e.conv": (3, 2, 2)}
CUTS = 7
"""Elements of a piece of a tensor that is not taken whole."""


def model(seed, scale=1.0):
    made = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=made, dtype=torch.float64) for name, shape in SHAPES.items()}


BASE = model(0)
TASKS = [model(seed, 0.1) for seed in (1, 2, 3)]


def join(method, vectors, given=None, *, base=BASE, cuts=CUTS, versions=None):
    """Join task vectors, dictionaries by tensor name, as the engine does; return the merged task vector."""
    given = [1.0] * len(vectors) if given is None else given
    versions = versions or [f"version {at}" for at in range(len(vectors))]
    factors = method.coefficients(given)
    specs = {name: TensorSpec(name, "F64", tuple(tensor.shape)) for name, tensor in base.items()}
    tasks = [Task(*pair) for pair in zip(given, versions, strict=True)]

    def pieces(name):
        spec = specs[name]
        moved = {at: vector[name] * factors[at] for at, vector in enumerate(vectors) if factors[at] and name in vector}
        if method.whole(spec):
            yield Piece(spec, 0, torch.empty(0, dtype=torch.float64), {at: v.clone() for at, v in moved.items()})
            return
        for start in range(0, max(1, spec.elements), cuts):
            span = slice(start, start + cuts)
            held = {at: vector.reshape(-1)[span].clone() for at, vector in moved.items()}
            yield Piece(spec, start, base[name].reshape(-1)[span].clone(), held)

    def seen(name, known):
        return sum(method.observe(piece, known) for piece in pieces(name))

    known = method.begin(tasks, list(specs.values()))
    if method.decides == "model":
        for _ in range(method.passes):
            known = method.combine({name: seen(name, known) for name in sorted(specs)}, known)
    merged = {}
    for name, spec in specs.items():
        own = known
        if method.decides == "tensor":
            for _ in range(method.passes):
                own = method.combine({name: seen(name, own)}, own)
        parts = [method.merge(piece, own).reshape(-1) for piece in pieces(name)]
        merged[name] = torch.cat(parts).reshape(spec.shape)
    return merged


def flat(vector):
    return np.concatenate([vector[name].numpy().reshape(-1) for name in SHAPES])


def near(found, wanted, tolerance=1e-12):
    found = flat(found) if isinstance(found, dict) else found
    assert np.abs(found - wanted).max() <= tolerance * max(1.0, np.abs(wanted).max())
