"""Codecs: one tensor to one stored object and back, in chunks, from any number of threads.

Built-in codecs stand in :data:`CODECS`; others are found by name in the entry-point group ``weightvc.codecs`` at
first use. A codec sees one chunk at a time; headers, checksums and ranges are done here, once for all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

import xxhash

from weightvc.delta import container
from weightvc.delta.container import CHUNK, Kind
from weightvc.delta.intdelta import IntDelta
from weightvc.delta.planes import Words, words_of
from weightvc.delta.raw import Raw
from weightvc.objects.tensors import TensorSpec
from weightvc.util import plugins
from weightvc.util.errors import BadInput, Corrupt, NotFound, Unsupported
from weightvc.util.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["CHUNK", "CODECS", "GROUP", "Codec", "Encoded", "codec_named", "encode"]

GROUP = "weightvc.codecs"


class Codec(Protocol):
    """Encodes and decodes one chunk. Stateless, so that every thread may use the one instance.

    Laws: decoding gives back ``target`` bit for bit; the same words give the same bytes, in every thread; an
    argument is never written to, except ``out``.
    """

    @property
    def name(self) -> str:
        """The name that object headers and manifests record."""
        ...

    @property
    def uses_base(self) -> bool:
        """Whether an object needs the base's bytes again when it was encoded against a base."""
        ...

    def encode_chunk(self, target: Words, base: Words | None) -> bytes:
        """Encode 1 to ``CHUNK`` bytes of words.

        Args:
            target: The words to encode, 1-d.
            base: The base's words in the same place, or ``None``.
        """
        ...

    def decode_chunk(self, body: memoryview, base: Words | None, out: Words) -> None:
        """Decode ``body`` into ``out``, given the base's words if they were given when encoding.

        Raises:
            Corrupt: ``body`` does not decode to exactly ``out.size`` words. The message begins with what is wrong;
                the caller puts the object's name before it.
        """
        ...


CODECS: dict[str, Codec] = {codec.name: codec for codec in (IntDelta(), Raw())}


def codec_named(name: str) -> Codec:
    """Return the codec of that name, built in or installed.

    Raises:
        Unsupported: there is none.
    """
    if name in CODECS:
        return CODECS[name]
    try:
        codec: Codec = plugins.load(GROUP, name)
    except NotFound:
        raise Unsupported(
            f"codec {printable(name)[:80]!r} is unknown", "upgrade weightvc, or install the package that provides it"
        ) from None
    return codec


def encode(
    spec: TensorSpec, target: "ReadableBuffer", base: "ReadableBuffer | None", codec: str = "intdelta"
) -> Iterator[bytes]:
    """Encode one tensor into the bytes of an object: first the header, then a frame for each chunk.

    The bytes depend on the arguments and the installed zstd only. Memory is bounded by a few chunks.

    Args:
        spec: The tensor's dtype and shape; the name is not stored.
        target: Its ``spec.nbytes`` raw little-endian bytes.
        base: The base tensor's bytes, of the same dtype and shape, or ``None`` to encode ``target`` alone.
        codec: A codec's name. A codec that has no use for a base ignores it.

    Raises:
        BadInput: ``target`` or ``base`` has another number of bytes.
        Unsupported: there is no such codec.
    """
    coder = codec_named(codec)
    views = [_flat(target)]
    if base is not None and coder.uses_base:
        views.append(_flat(base))
    for view, role in zip(views, ("tensor", "base"), strict=False):
        if len(view) != spec.nbytes:
            label = f"tensor {printable(spec.name)!r}"
            raise BadInput(f"{label}: the {role} has {len(view)} bytes, {spec.nbytes} expected")
    return _encode(spec, coder, views)


def _flat(data: "ReadableBuffer") -> memoryview:
    view = memoryview(data)
    return view.cast("B") if view.nbytes else view[:0]  # Python does not cast views of nothing


def _encode(spec: TensorSpec, coder: Codec, views: list[memoryview]) -> Iterator[bytes]:
    based = len(views) == 2
    header = {"codec": coder.name, "dtype": spec.dtype, "shape": list(spec.shape), "base": based}
    yield container.head(Kind.TENSOR, header)
    for start in range(0, spec.nbytes, CHUNK):
        chunks = [view[start : start + CHUNK] for view in views]
        target, *base = (words_of(chunk, spec.itemsize) for chunk in chunks)
        yield container.frame(coder.encode_chunk(target, base[0] if based else None), chunks[0])


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tensor object, checked but not decoded. Any number of threads may decode from it.

    Attributes:
        where: What the object is called in error messages.
        dtype: Its dtype, one of :data:`weightvc.objects.tensors.BITS`.
        shape: Its shape.
        codec: Its codec's name.
        needs_base: Whether decoding needs the base tensor's bytes.
        nbytes: Number of raw bytes that it decodes to.
    """

    where: str
    dtype: str
    shape: tuple[int, ...]
    codec: str
    needs_base: bool
    nbytes: int
    _itemsize: int = field(repr=False)
    _body: memoryview = field(repr=False)
    _offsets: tuple[int, ...] = field(repr=False)

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
        header, body = container.split(data, Kind.TENSOR, {"codec", "dtype", "shape", "base"}, where)
        name, dtype, shape, based = header["codec"], header["dtype"], header["shape"], header["base"]
        if not (isinstance(name, str) and isinstance(dtype, str) and isinstance(shape, list) and type(based) is bool):
            raise Corrupt(f"{where}: a value in the header has the wrong type")
        try:
            spec = TensorSpec("header", dtype, tuple(shape))
        except BadInput as error:
            raise Corrupt(f"{where}: {error.what}") from None
        try:
            coder = codec_named(name)
        except Unsupported as error:
            raise Unsupported(f"{where}: {error.what}", error.hint) from None
        if based and not coder.uses_base:
            raise Corrupt(f"{where}: codec {name} has no base, but the header says so")
        offsets = container.frame_offsets(body, -(-spec.nbytes // CHUNK), where)
        return cls(where, dtype, spec.shape, name, based, spec.nbytes, spec.itemsize, body, offsets)

    def decode_into(self, out: "WriteableBuffer", base: "ReadableBuffer | None", offset: int = 0) -> None:
        """Decode raw bytes ``offset`` to ``offset + len(out)`` into ``out`` and verify their checksums.

        Args:
            out: Writable, contiguous.
            base: The same byte range of the base tensor; ignored unless :attr:`needs_base`.
            offset: A multiple of ``CHUNK``; the range's end is one too, or is ``nbytes``.

        Raises:
            BadInput: a range that does not fall on chunks, or no base of the range's length where one is needed.
            Corrupt: a chunk is malformed or does not match its checksum. What ``out`` then holds is undefined.
        """
        view = _flat(out)
        end = offset + len(view)
        on_chunks = offset % CHUNK == 0 and (end % CHUNK == 0 or end == self.nbytes)
        if not (on_chunks and 0 <= offset <= end <= self.nbytes):
            raise BadInput(f"{self.where}: bytes {offset} to {end} of {self.nbytes} are not whole chunks")
        source = _flat(base) if base is not None and self.needs_base else None
        if self.needs_base and (source is None or len(source) != len(view)):
            given = "none" if source is None else len(source)
            raise BadInput(f"{self.where}: {len(view)} bytes of the base are needed, {given} given")
        coder = codec_named(self.codec)
        for start in range(0, len(view), CHUNK):
            chunk = view[start : start + CHUNK]
            words = None if source is None else words_of(source[start : start + CHUNK], self._itemsize)
            self._decode_chunk(coder, (offset + start) // CHUNK, words, chunk)

    def _decode_chunk(self, coder: Codec, index: int, base: Words | None, out: memoryview) -> None:
        checksum, body = container.frame_at(self._body, self._offsets[index])
        try:
            coder.decode_chunk(body, base, words_of(out, self._itemsize))
        except Corrupt as error:
            raise Corrupt(f"{self.where}: chunk {index}: {error.what}") from None
        if xxhash.xxh3_64_intdigest(out) != checksum:
            raise Corrupt(f"{self.where}: chunk {index} does not match its checksum")
