"""What a codec encodes: a tensor and, for those that use one, the base's tensor in the same place, chunk by chunk."""

import threading
from typing import TYPE_CHECKING, Protocol, cast

from weightvc.delta.container import CHUNK
from weightvc.delta.words import Words, words_of
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput
from weightvc.util.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Unsuited(BadInput):
    """A lossy codec does not take this tensor; another has to."""


class Source(Protocol):
    """A tensor's raw bytes, read by ranges of whole chunks."""

    def read_into(self, out: memoryview, offset: int) -> None:
        """Put raw bytes ``offset`` to ``offset + len(out)`` into ``out``."""
        ...


class Pair:
    """One tensor and its base's counterpart of the same dtype and shape; any number of threads may use it.

    The base may be held in memory or decoded as it is needed; each thread keeps the chunk that it read last.

    Args:
        spec: The tensor's dtype and shape.
        target: Its ``spec.nbytes`` raw little-endian bytes.
        base: The base tensor's, or ``None``.

    Raises:
        BadInput: ``target`` or a ``base`` in memory has another number of bytes.
    """

    def __init__(self, spec: TensorSpec, target: "ReadableBuffer", base: "ReadableBuffer | Source | None") -> None:
        self.spec = spec
        self._target = _checked(spec, target, "tensor")
        self._base: memoryview | None = None
        self._source: Source | None = None
        if hasattr(base, "read_into"):  # asking whether it is a ``Source`` takes as long as encoding a small tensor
            self._source = cast("Source", base)
            self._kept = _Kept(min(CHUNK, spec.nbytes))
        elif base is not None:
            self._base = _checked(spec, base, "base")

    @property
    def chunks(self) -> int:
        """Number of chunks: of ``CHUNK`` bytes, but for the last."""
        return -(-self.spec.nbytes // CHUNK)

    @property
    def chunk_words(self) -> int:
        """Number of words of every chunk but the last."""
        return CHUNK // self.spec.itemsize

    def target(self, index: int) -> Words:
        """Return the tensor's words of one chunk."""
        return words_of(self._target[index * CHUNK : (index + 1) * CHUNK], self.spec.itemsize)

    def base(self, index: int) -> Words:
        """Return the base's words of one chunk, valid until this thread asks for another.

        Raises:
            ValueError: there is no base.
        """
        if self._source is not None:
            kept = self._kept
            view = kept.chunk[: self.spec.nbytes - index * CHUNK]
            if index != kept.index:
                self._source.read_into(view, index * CHUNK)
                kept.index = index
        elif self._base is not None:
            view = self._base[index * CHUNK : (index + 1) * CHUNK]
        else:
            raise ValueError("this tensor has no base")
        return words_of(view, self.spec.itemsize)

    def chunk(self, index: int) -> tuple[Words, Words | None]:
        """Return the words of one chunk of the tensor and of the base, if there is one."""
        alone = self._source is None and self._base is None
        return self.target(index), None if alone else self.base(index)


class _Kept(threading.local):
    """The chunk of the base that each thread read last."""

    def __init__(self, size: int) -> None:
        self.chunk = memoryview(bytearray(size))
        self.index = -1


def flat(data: "ReadableBuffer | WriteableBuffer") -> memoryview:
    """Return a contiguous buffer as bytes."""
    view = memoryview(data)
    return view.cast("B") if view.nbytes else view[:0]  # Python does not cast views of nothing


def _checked(spec: TensorSpec, data: "ReadableBuffer", role: str) -> memoryview:
    view = flat(data)
    if len(view) != spec.nbytes:
        label = f"tensor {printable(spec.name)!r}"
        raise BadInput(f"{label}: the {role} has {len(view)} bytes, {spec.nbytes} expected")
    return view
