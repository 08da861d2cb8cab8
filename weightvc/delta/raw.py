"""Codec ``raw``: the bytes themselves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from weightvc.delta.planes import Words
from weightvc.util.errors import Corrupt


@dataclass(frozen=True, slots=True)
class Raw:
    """Stores a tensor as it is, at the speed of copying."""

    name: ClassVar[str] = "raw"
    uses_base: ClassVar[bool] = False

    def encode_chunk(self, target: Words, base: Words | None) -> bytes:
        """Return the chunk's bytes."""
        return target.tobytes()

    def decode_chunk(self, body: memoryview, base: Words | None, out: Words) -> None:
        """Copy ``body`` into ``out``; see :class:`weightvc.delta.codec.Codec`."""
        if len(body) != out.nbytes:
            raise Corrupt(f"{len(body)} raw bytes, {out.nbytes} expected")
        out.view(np.uint8)[:] = np.frombuffer(body, np.uint8)
