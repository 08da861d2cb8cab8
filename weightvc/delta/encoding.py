"""Encoding: one tensor to one stored object and back, in chunks, from any number of threads.

``docs/format/objects.md`` specifies each byte. The header, the checksums and the cutting into chunks are here, once
for all codecs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import xxhash

from weightvc.delta import container
from weightvc.delta.codec import Codec, Level, codec_named
from weightvc.delta.container import CHUNK, Kind
from weightvc.delta.pair import Pair, Source, flat
from weightvc.delta.words import Words, words_of
from weightvc.objects.tensors import TensorSpec
from weightvc.util import parallel
from weightvc.util.errors import BadInput, Corrupt, Unsupported
from weightvc.util.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def encode(
    spec: TensorSpec,
    target: "ReadableBuffer",
    base: "ReadableBuffer | Source | None" = None,
    codec: str = "intdelta",
    level: Level = "default",
) -> Iterator[bytes]:
    """Encode one tensor into the bytes of an object: the header, what the codec keeps beside the chunks, the chunks.

    The bytes depend on the arguments and the installed numpy and zstd only. Memory is bounded by a few chunks and by
    what the codec fits to a whole tensor (:mod:`weightvc.delta.lowrank`).

    Args:
        spec: The tensor's dtype and shape; the name is not stored.
        target: Its ``spec.nbytes`` raw little-endian bytes.
        base: The base tensor's, of the same dtype and shape, in memory or read as they are needed. Codecs that use
            no base ignore it.
        codec: A codec's name.
        level: How hard to try.

    Raises:
        BadInput: ``target`` or ``base`` has another number of bytes, or a codec that uses a base is given none.
        Unsupported: there is no such codec.
        Unsuited: a lossy codec does not take this tensor.
    """
    kind = codec_named(codec)
    if kind.uses_base and base is None:
        raise BadInput(f"tensor {printable(spec.name)!r}: codec {codec} needs a base", "use the codec full or raw")
    pair = Pair(spec, target, base if kind.uses_base else None)
    return _encode(pair, kind.fit(pair, level))


def _encode(pair: Pair, coder: Codec) -> Iterator[bytes]:
    side = coder.side
    yield head(coder.name, pair.spec, side=bool(side))
    if side:
        yield container.frame(side, side)

    def frame(index: int) -> bytes:
        target, base = pair.chunk(index)
        body = coder.encode_chunk(index, target, base)
        return container.frame(body, _returned(coder, index, body, target, base).data)

    yield from parallel.ahead(frame, range(pair.chunks))


def _returned(coder: Codec, index: int, body: bytes, target: Words, base: Words | None) -> Words:
    """Return what a chunk decodes to: what was encoded, but for a lossy codec."""
    if not coder.lossy:
        return target
    out = np.empty_like(target)
    coder.decode_chunk(index, memoryview(body), base, out)
    return out


def head(codec: str, spec: TensorSpec, *, side: bool) -> bytes:
    """Return what a tensor object begins with; ``side`` tells whether anything stands beside its chunks."""
    return container.head(Kind.TENSOR, {"codec": codec, "dtype": spec.dtype, "shape": list(spec.shape), "side": side})


@dataclass(frozen=True)
class Encoded:
    """One tensor object, checked but not decoded. Any number of threads may decode from it.

    Attributes:
        where: What the object is called in error messages.
        spec: Its dtype and shape; the name says nothing.
        codec: Its codec's name.
        needs_base: Whether decoding needs the base tensor's bytes.
    """

    where: str
    spec: TensorSpec
    codec: str
    needs_base: bool
    _body: memoryview = field(repr=False)
    _offsets: tuple[int, ...] = field(repr=False)
    _side: memoryview = field(repr=False)

    @classmethod
    def parse(cls, data: memoryview, where: str) -> Self:
        """Check an object's header and find its chunks, without decoding any.

        Args:
            data: The whole object; kept, not copied.
            where: What to call it in error messages, such as its id.

        Raises:
            Corrupt: it is not a tensor object, or is malformed.
            Unsupported: its format version or codec is unknown here.
        """
        header, body = container.split(data, Kind.TENSOR, {"codec", "dtype", "shape", "side"}, where)
        name, dtype, shape, beside = header["codec"], header["dtype"], header["shape"], header["side"]
        if not (isinstance(name, str) and isinstance(dtype, str) and isinstance(shape, list) and type(beside) is bool):
            raise Corrupt(f"{where}: a value in the header has the wrong type")
        try:
            spec = TensorSpec("header", dtype, tuple(shape))
        except BadInput as error:
            raise Corrupt(f"{where}: {error.what}") from None
        try:
            kind = codec_named(name)
        except Unsupported as error:
            raise Unsupported(f"{where}: {error.what}", error.hint) from None
        offsets = container.frame_offsets(body, -(-spec.nbytes // CHUNK) + beside, where)
        side = memoryview(b"")
        if beside:
            checksum, side = container.frame_at(body, offsets[0])
            if xxhash.xxh3_64_intdigest(side) != checksum or not side:
                raise Corrupt(f"{where}: what stands beside the chunks does not match its checksum")
        return cls(where, spec, name, kind.uses_base, body, offsets[beside:], side)

    @cached_property
    def _coder(self) -> Codec:
        """The codec, made when the first chunk is decoded: callers have compared dtype and shape by then."""
        try:
            return codec_named(self.codec).parse(self.spec, self._side)
        except Corrupt as error:
            raise Corrupt(f"{self.where}: {error.what}") from None

    def decode_into(self, out: "WriteableBuffer", base: "ReadableBuffer | None", offset: int = 0) -> None:
        """Decode raw bytes ``offset`` to ``offset + len(out)`` into ``out`` and verify their checksums.

        Args:
            out: Writable, contiguous.
            base: The same byte range of the base tensor; ignored unless :attr:`needs_base`.
            offset: A multiple of ``CHUNK``; the range's end is one too, or is the tensor's.

        Raises:
            BadInput: a range that does not fall on chunks, or no base of the range's length where one is needed.
            Corrupt: a chunk is malformed or does not match its checksum. What ``out`` then holds is undefined.
        """
        view, total = flat(out), self.spec.nbytes
        end = offset + len(view)
        on_chunks = offset % CHUNK == 0 and (end % CHUNK == 0 or end == total)
        if not (on_chunks and 0 <= offset <= end <= total):
            raise BadInput(f"{self.where}: bytes {offset} to {end} of {total} are not whole chunks")
        source = flat(base) if base is not None and self.needs_base else None
        if self.needs_base and (source is None or len(source) != len(view)):
            given = "none" if source is None else len(source)
            raise BadInput(f"{self.where}: {len(view)} bytes of the base are needed, {given} given")
        for start in range(0, len(view), CHUNK):
            words = None if source is None else words_of(source[start : start + CHUNK], self.spec.itemsize)
            self._decode_chunk((offset + start) // CHUNK, words, view[start : start + CHUNK])

    def _decode_chunk(self, index: int, base: Words | None, out: memoryview) -> None:
        checksum, body = container.frame_at(self._body, self._offsets[index])
        coder = self._coder
        try:
            coder.decode_chunk(index, body, base, words_of(out, self.spec.itemsize))
        except Corrupt as error:
            raise Corrupt(f"{self.where}: chunk {index}: {error.what}") from None
        if xxhash.xxh3_64_intdigest(out) != checksum:
            raise Corrupt(f"{self.where}: chunk {index} does not match its checksum")
