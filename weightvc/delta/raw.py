"""Codec ``raw``: the bytes themselves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from weightvc.delta.pair import Pair
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

if TYPE_CHECKING:
    from weightvc.delta.codec import Level


@dataclass(frozen=True, slots=True)
class Raw:
    """Stores a tensor as it is, at the speed of copying."""

    name: ClassVar[str] = "raw"
    lossy: ClassVar[bool] = False
    uses_base: ClassVar[bool] = False
    side: ClassVar[bytes] = b""

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Return the codec; there is nothing to fit."""
        return cls()

    @classmethod
    def parse(cls, spec: TensorSpec, side: memoryview) -> Self:
        """Return the codec; see :class:`weightvc.delta.codec.Codec`."""
        if side:
            raise Corrupt("codec raw keeps nothing beside its chunks")
        return cls()

    def encode_chunk(self, index: int, target: Words, base: Words | None) -> bytes:
        """Return the chunk's bytes."""
        return target.tobytes()

    def decode_chunk(self, index: int, body: memoryview, base: Words | None, out: Words) -> None:
        """Copy ``body`` into ``out``; see :class:`weightvc.delta.codec.Codec`."""
        if len(body) != out.nbytes:
            raise Corrupt(f"{len(body)} raw bytes, {out.nbytes} expected")
        out.view(np.uint8)[:] = np.frombuffer(body, np.uint8)
