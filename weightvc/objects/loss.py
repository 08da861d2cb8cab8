"""What a tensor lost to a lossy codec: a part of its line in a manifest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from weightvc.objects.ids import Digest, hex64
from weightvc.objects.tensors import MERGED
from weightvc.util import fields
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput


@dataclass(frozen=True, slots=True)
class Loss:
    """How what comes back differs from what was added.

    Attributes:
        original: Digest of the tensor that was added.
        relative: Norm of the error over that of the task vector.
        maximum: The largest absolute error.
    """

    original: Digest
    relative: float
    maximum: float

    def to_json(self) -> dict[str, Json]:
        """Return the loss as JSON."""
        return {"original": self.original, "relative": self.relative, "maximum": self.maximum}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse a loss; raises :class:`BadInput`."""
        line = fields.mapping(value, where, ("original", "relative", "maximum"))
        relative, maximum = (fields.typed(line[key], float, where) for key in ("relative", "maximum"))
        for number in (relative, maximum):
            if not number >= 0 or math.copysign(1, number) < 0:
                raise BadInput(f"{where}: an error of {number}")
        return cls(Digest(hex64(line["original"], where)), relative, maximum)

    @classmethod
    def of_line(cls, line: Mapping[str, Json], where: str) -> Self:
        """Parse what a manifest's line says was lost: only a delta of floating-point numbers can be another tensor."""
        if line["state"] != "delta" or line["dtype"] not in MERGED:
            raise BadInput(f"{where}: only a delta of floating-point numbers is lossy")
        loss = cls.from_json(line["lossy"], where)
        if loss.original == line["digest"]:
            raise BadInput(f"{where}: lossy, but the tensor that was added")
        return loss
