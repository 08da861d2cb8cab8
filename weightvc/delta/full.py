"""Codec ``full``: a tensor without a base, as byte planes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from weightvc.delta import kernels, planes
from weightvc.delta.pair import Pair
from weightvc.delta.scratch import words
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

if TYPE_CHECKING:
    from weightvc.delta.codec import Level

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes whose words are turned left by one bit first."""


@dataclass(frozen=True, slots=True)
class Full:
    """Lossless byte planes of the words themselves: base checkpoints, new heads, other files.

    A float's words are turned left by one bit, which moves the sign, a coin toss, to the lower end. In F32 and BF16
    the uppermost plane then holds the whole exponent and nothing else, as in ZipNN (Hershcovitch et al., 2024).
    """

    name: ClassVar[str] = "full"
    lossy: ClassVar[bool] = False
    uses_base: ClassVar[bool] = False
    side: ClassVar[bytes] = b""

    turned: bool

    @classmethod
    def fit(cls, pair: Pair, level: "Level") -> Self:
        """Return the codec; the dtype alone decides."""
        return cls(pair.spec.dtype in FLOATS)

    @classmethod
    def parse(cls, spec: TensorSpec, side: memoryview) -> Self:
        """Return the codec; see :class:`weightvc.delta.codec.Codec`."""
        if side:
            raise Corrupt("codec full keeps nothing beside its chunks")
        return cls(spec.dtype in FLOATS)

    def encode_chunk(self, index: int, target: Words, base: Words | None) -> bytes:
        """Encode one chunk; see :class:`weightvc.delta.codec.Codec`."""
        turned = words("delta", target)
        if self.turned:
            kernels.loops.turn(target, 1, turned)
        else:
            np.copyto(turned, target)
        return planes.pack(turned)

    def decode_chunk(self, index: int, body: memoryview, base: Words | None, out: Words) -> None:
        """Decode one chunk into ``out``; see :class:`weightvc.delta.codec.Codec`."""
        if not self.turned:
            planes.unpack(body, out)
            return
        turned = words("delta", out)
        planes.unpack(body, turned)
        kernels.loops.turn(turned, 8 * out.itemsize - 1, out)
