"""The container of every stored object: prefix, canonical header, chunk frames, bundles.

``docs/format/objects.md`` specifies each byte. Everything read here may be hostile, so every length is checked
against the bytes at hand before it is used, and each content has exactly one valid encoding.
"""

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import xxhash

from weightvc.util import canon
from weightvc.util.errors import BadInput, Corrupt, Unsupported

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAGIC = b"WVC\x00"
VERSION = 1
CHUNK = 512 * 1024
"""Raw bytes of every chunk but a tensor's last. Fixed by the format version: four such buffers fit a core's L2."""

_PREFIX = struct.Struct("<4sBBI")
_SHORT = 1024
"""Bytes of a header that is remembered; that of a bundle may have megabytes."""

_FRAME = struct.Struct("<IQ")


class Kind(IntEnum):
    """What an object is; part of its bytes, so that one kind is never taken for another."""

    TENSOR = 1
    BUNDLE = 2


def head(kind: Kind, header: dict[str, canon.Json]) -> bytes:
    """Return the prefix and the canonical header that begin an object."""
    text = canon.dumps(header)
    return _PREFIX.pack(MAGIC, VERSION, kind, len(text)) + text


def split(data: memoryview, kind: Kind, keys: set[str], where: str) -> tuple[Mapping[str, canon.Json], memoryview]:
    """Return an object's header and body.

    Args:
        data: The whole object.
        kind: The kind that the caller expects.
        keys: The names that a header of that kind has, all of them and no others.
        where: What the object is called in error messages.

    Raises:
        Corrupt: no object of that kind, or a header that is not the canonical one.
        Unsupported: an object of another format version.
    """
    if len(data) < _PREFIX.size or data[:4] != MAGIC:
        raise Corrupt(f"{where}: not a weightvc object")
    _, version, found, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise Unsupported(f"{where}: object format version {version} is unknown", "upgrade weightvc")
    if found != kind:
        raise Corrupt(f"{where}: an object of kind {found}, kind {kind.value} ({kind.name.lower()}) was expected")
    text = bytes(data[_PREFIX.size : _PREFIX.size + length])
    if len(text) != length:
        raise Corrupt(f"{where}: the header is cut short")
    try:
        header = _remembered(text) if length <= _SHORT else _canonical(text)
    except BadInput as error:
        raise Corrupt(f"{where}: {error.what}") from None
    if not isinstance(header, dict) or header.keys() != keys:
        raise Corrupt(f"{where}: the header does not have exactly the names {', '.join(sorted(keys))}")
    return header, data[_PREFIX.size + length :]


def _canonical(text: bytes) -> canon.Json:
    header = canon.parse(text, "header")
    if canon.dumps(header) != text:
        raise BadInput("the header is not in canonical form")
    return header


_remembered = lru_cache(maxsize=256)(_canonical)
"""Small tensors of one kind have one header, and parsing it is most of what opening them takes."""


def frame(body: bytes, raw: "ReadableBuffer") -> bytes:
    """Return one chunk frame: the body's length, xxh3-64 of the ``raw`` bytes it decodes to, the body."""
    return b"".join((_FRAME.pack(len(body), xxhash.xxh3_64_intdigest(raw)), body))


def frame_offsets(body: memoryview, count: int, where: str) -> tuple[int, ...]:
    """Return where each of ``count`` frames begins in ``body``.

    Raises:
        Corrupt: ``body`` is not exactly that many frames.
    """
    if count * _FRAME.size > len(body):  # before a hostile count is looped over
        raise Corrupt(f"{where}: {len(body)} bytes cannot hold {count} chunks")
    offsets = []
    end = 0
    for index in range(count):
        offsets.append(end)
        if end + _FRAME.size > len(body):
            raise Corrupt(f"{where}: chunk {index} is cut short")
        end += _FRAME.size + _FRAME.unpack_from(body, end)[0]
    if end != len(body):
        raise Corrupt(f"{where}: {len(body)} bytes of chunks, {end} expected")
    return tuple(offsets)


def frame_at(body: memoryview, offset: int) -> tuple[int, memoryview]:
    """Return the checksum and the body of the frame at an offset that :func:`frame_offsets` gave."""
    length, checksum = _FRAME.unpack_from(body, offset)
    start = offset + _FRAME.size
    return checksum, body[start : start + length]


def bundle(members: Sequence[bytes]) -> bytes:
    """Return one object that holds complete tensor objects, in the order given."""
    return b"".join((head(Kind.BUNDLE, {"sizes": [len(member) for member in members]}), *members))


def members(data: memoryview, where: str) -> list[memoryview]:
    """Return views of the tensor objects in a bundle, in order; their own bytes are not looked at.

    Raises:
        Corrupt: no bundle, or sizes that do not add up to its body.
        Unsupported: a bundle of another format version.
    """
    header, body = split(data, Kind.BUNDLE, {"sizes"}, where)
    sizes = header["sizes"]
    if not isinstance(sizes, list) or any(type(size) is not int or size <= 0 for size in sizes):
        raise Corrupt(f"{where}: bundle sizes are not a list of positive integers")
    if sum(sizes) != len(body):
        raise Corrupt(f"{where}: bundle sizes add up to {sum(sizes)} bytes, the body has {len(body)}")
    views = []
    for size in sizes:
        views.append(body[:size])
        body = body[size:]
    return views
