"""Low-rank updates: how two small tensors of a task make up its task vector for one tensor of the base."""

import math
from dataclasses import dataclass
from typing import Self

from weightvc.objects.tensors import MERGED, TensorSpec
from weightvc.util import fields
from weightvc.util.canon import Json


@dataclass(frozen=True, slots=True)
class Update:
    """The task vector ``scale``·B·A of one base tensor, or its transpose.

    A has shape (rank, …) and B (rows, rank), with any number of further dimensions of 1; A's dimensions beyond the
    first are those of the base tensor's columns. Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language
    Models", ICLR 2022.

    Attributes:
        of: The base's name of the tensor that is updated.
        a: The task's name of A.
        b: The task's name of B.
        scale: A finite number: alpha over the rank, or over its square root.
        transposed: Whether the base keeps the matrix with its inputs in rows.
    """

    of: str
    a: str
    b: str
    scale: float
    transposed: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return the update as JSON."""
        return {"of": self.of, "a": self.a, "b": self.b, "scale": self.scale, "transposed": self.transposed}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse an update; raises :class:`BadInput`."""
        line = fields.mapping(value, where, ("of", "a", "b", "scale", "transposed"))
        of, a, b = (fields.typed(line[key], str, where) for key in ("of", "a", "b"))
        scale = fields.typed(line["scale"], float, where)
        return cls(of, a, b, scale, fields.typed(line["transposed"], bool, where))

    def fits(self, base: TensorSpec, a: TensorSpec, b: TensorSpec) -> bool:
        """Tell whether the factors make up a task vector for the tensor ``base``."""
        shape = product(a, b)
        if shape is None or base.dtype not in MERGED or (self.transposed and len(shape) != 2):
            return False
        return base.shape == (shape[::-1] if self.transposed else shape)


def product(a: TensorSpec, b: TensorSpec) -> tuple[int, ...] | None:
    """Return the shape of B·A: B's rows, A's dimensions but the first; ``None`` if they do not fit, or are empty."""
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[0] != b.shape[1] or math.prod(b.shape[2:]) != 1:
        return None
    if not a.elements or not b.elements:
        return None
    return b.shape[0], *a.shape[1:]
