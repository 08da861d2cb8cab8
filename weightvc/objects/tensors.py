"""What a tensor is without its values: name, dtype, shape, and the digest over all of them.

Dtype names are those of the safetensors format. Sub-byte dtypes are packed and handled as bytes.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from blake3 import blake3

from weightvc.objects.ids import Digest, Version
from weightvc.util import canon
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput
from weightvc.util.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element, for every dtype that the safetensors format knows."""

MERGED = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes whose differences are task vectors. All others are carried, never subtracted."""

MAX_NAME = 1024
MAX_RANK = 64
MAX_BYTES = 2**48
MAX_ZEROS = 2**26
"""Bytes of the largest tensor that is compared with zeros: a manifest can claim any size, and each would be hashed."""

_ZEROS = memoryview(bytes(2**20))


@dataclass(frozen=True, slots=True, order=True)
class TensorSpec:
    """A tensor's name, dtype and shape.

    Raises:
        BadInput: an unknown dtype; a name that is empty, longer than 1 KiB or holds control characters; a
            dimension that is not a non-negative integer; more than 64 dimensions; more than 2**48 bytes; or a
            packed dtype whose elements do not fill whole bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        label = f"tensor {printable(self.name)[:80]!r}"
        if not self.name or len(self.name.encode("utf-8", "surrogatepass")) > MAX_NAME:
            raise BadInput(f"{label}: a name has 1 to {MAX_NAME} bytes")
        if not self.name.isprintable() and any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in self.name):
            raise BadInput(f"{label}: a name holds no control characters")
        if self.name == "__metadata__":
            raise BadInput(f"{label}: safetensors reserves this name", "rename the tensor")
        if self.dtype not in BITS:
            raise BadInput(f"{label}: dtype {printable(str(self.dtype))[:40]!r} is unknown", "upgrade weightvc")
        if len(self.shape) > MAX_RANK:
            raise BadInput(f"{label}: {len(self.shape)} dimensions, more than the limit of {MAX_RANK}")
        if any(type(d) is not int or not 0 <= d < 2**48 for d in self.shape):
            raise BadInput(f"{label}: a dimension is not a non-negative integer below 2**48")
        bits = math.prod(self.shape) * BITS[self.dtype]
        if bits > MAX_BYTES * 8:
            raise BadInput(f"{label}: {bits // 8} bytes, more than the limit of {MAX_BYTES}")
        if bits % 8:
            raise BadInput(f"{label}: {self.dtype} elements that do not fill whole bytes")

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a 0-d tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes of the packed little-endian values."""
        return self.elements * BITS[self.dtype] // 8

    @property
    def itemsize(self) -> int:
        """Bytes of the unsigned word that codecs use for this dtype: 1 for packed dtypes."""
        return max(1, BITS[self.dtype] // 8)

    def same_kind(self, other: "TensorSpec") -> bool:
        """Tell whether both have one dtype and one shape, whatever their names."""
        return self.dtype == other.dtype and self.shape == other.shape


class TensorHasher:
    r"""Computes a tensor's digest: BLAKE3-256 over ``"<dtype> <d0>,<d1>,…\\n"`` and then the raw bytes."""

    def __init__(self, dtype: str, shape: Iterable[int]) -> None:
        self._hash = blake3(f"{dtype} {','.join(map(str, shape))}\n".encode())

    def update(self, data: "ReadableBuffer") -> None:
        """Add the next raw little-endian bytes."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """Return the digest of all bytes added so far."""
        return Digest(self._hash.hexdigest())


def tensor_digest(dtype: str, shape: Iterable[int], data: "ReadableBuffer") -> Digest:
    """Return the digest of one tensor, given its raw little-endian bytes."""
    hasher = TensorHasher(dtype, shape)
    hasher.update(data)
    return hasher.digest()


@lru_cache(maxsize=256)
def zeros_digest(dtype: str, shape: tuple[int, ...]) -> Digest | None:
    """Return the digest of a tensor whose bytes are all zero; ``None`` for one of more than :data:`MAX_ZEROS` bytes."""
    total = TensorSpec("zeros", dtype, shape).nbytes
    if total > MAX_ZEROS:
        return None
    hasher = TensorHasher(dtype, shape)
    for at in range(0, total, len(_ZEROS)):
        hasher.update(_ZEROS[: total - at])
    return hasher.digest()


def version_of(pairs: Iterable[tuple[str, Digest]], more: Iterable[Json] = ()) -> Version:
    """Return the SHA-256 over the canonical JSON of the sorted (name, tensor digest) pairs, followed by ``more``."""
    listed: list[Json] = [*map(list, sorted(pairs)), *more]
    return Version(hashlib.sha256(canon.dumps(listed)).hexdigest())
