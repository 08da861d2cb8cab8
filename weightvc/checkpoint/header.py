"""A strict parser of safetensors headers, for files from anybody.

A safetensors file is an unsigned 64-bit little-endian length, that many bytes of JSON, and the tensors' bytes
without holes (https://github.com/huggingface/safetensors#format). The library's own parser accepts what makes
a model ambiguous or a tool slow: one name twice with two dtypes, unknown keys, leading spaces, a million
tensors. Here all of those are refused, and nothing is parsed before its size is known to be sane.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightvc.checkpoint.files import parse_json
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput
from weightvc.util.text import printable

MAX_HEADER = 16 * 2**20
"""Bytes of JSON; 100,000 tensors with names of a hundred bytes fit."""

MAX_TENSORS = 100_000
"""Tensors of one file."""

POINTER = b"version https://git-lfs"
ZIP = b"PK\x03\x04"
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_DOWNLOAD = "download the file again; it is damaged or incomplete"
_REWRITE = "save it again with safetensors.torch.save_file"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor's bytes stand: ``[start, end)`` in bytes from the beginning of its file."""

    spec: TensorSpec
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header.

    Attributes:
        raw: The header as it stands in the file, with the eight length bytes before it.
        metadata: The ``__metadata__`` entry; empty when there is none.
        tensors: Every tensor's place, sorted by name.
        size: Size in bytes of the whole file.
    """

    raw: bytes
    metadata: dict[str, str]
    tensors: Mapping[str, Slot]
    size: int


def parse_header(data: memoryview, where: str, *, file_size: int | None = None) -> Header:
    """Parse the header of a safetensors file and check it against the file's size.

    Args:
        data: The file's bytes from the beginning, up to the end of the header or further.
        where: The file's name, for error messages.
        file_size: Size of the whole file in bytes when ``data`` is only its beginning.

    Raises:
        BadInput: the file is not exactly one well-formed safetensors file.
    """
    size = len(data) if file_size is None else file_size
    header = parse_raw(_take(data, where), where)
    if size > header.size:
        raise BadInput(f"{where}: {size - header.size} bytes after the last tensor", _REWRITE)
    if size < header.size:
        raise BadInput(f"{where}: {size} bytes where its header needs {header.size}", _DOWNLOAD)
    return header


def parse_raw(raw: bytes, where: str) -> Header:
    """Parse a header that stands alone: its eight length bytes and its JSON, without the tensors.

    Raises:
        BadInput: ``raw`` is not exactly one well-formed header.
    """
    if _take(memoryview(raw), where) != raw:
        raise BadInput(f"{where}: more bytes than one header")
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise BadInput(f"{where}: more than {MAX_TENSORS} tensors", "split the file into shards")
    entries: dict[str, Any] = parse_json(raw[8:], where, _REWRITE)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadInput(f"{where}: __metadata__ is not an object of strings", _REWRITE)
    if len(entries) > MAX_TENSORS:
        raise BadInput(f"{where}: more than {MAX_TENSORS} tensors", "split the file into shards")
    slots = {name: _slot(name, entries[name], len(raw), where) for name in sorted(entries)}
    return Header(raw, metadata, slots, _check_order(slots, len(raw), where))


def refuse_pointer(data: memoryview, where: str) -> None:
    """Raise :class:`BadInput` if ``data`` is the text that git-lfs leaves in place of a large file."""
    if bytes(data[: len(POINTER)]) == POINTER:
        raise BadInput(f"{where}: a git-lfs pointer, not the file itself", "run git lfs pull")


def _take(data: memoryview, where: str) -> bytes:
    if len(data) < 8:
        raise BadInput(f"{where}: {len(data)} bytes, too short for a safetensors file", _DOWNLOAD)
    length = int.from_bytes(data[:8], "little")
    # 0x80 0x02 is also the length 640, so a file is called something else only once it cannot be safetensors.
    opened = length > 0 and bytes(data[8:9]) == b"{"
    if length > MAX_HEADER or length > len(data) - 8 or not opened:
        _refuse_foreign(data, where)
    if length > MAX_HEADER:
        raise BadInput(f"{where}: a header of {length} bytes, more than the limit of {MAX_HEADER}", _DOWNLOAD)
    if length > len(data) - 8:
        raise BadInput(f"{where}: a header of {length} bytes in a file of {len(data)}", _DOWNLOAD)
    if not opened:
        raise BadInput(f"{where}: its header does not start with '{{'", _REWRITE)
    return bytes(data[: 8 + length])


def _refuse_foreign(data: memoryview, where: str) -> None:
    refuse_pointer(data, where)
    if bytes(data[:4]) == ZIP:
        raise BadInput(f"{where}: a zip archive, not safetensors", "if PyTorch saved it, rename it to end in .pt")
    if bytes(data[:2]) in _PICKLES:
        raise BadInput(f"{where}: a Python pickle, not safetensors", "if PyTorch saved it, rename it to end in .pt")


def _slot(name: str, entry: Any, origin: int, where: str) -> Slot:
    label = f"{where}: tensor {printable(name)[:80]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadInput(f"{label} has not exactly the keys dtype, shape and data_offsets", _REWRITE)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise BadInput(f"{label} has a dtype that is not text or a shape that is not a list", _REWRITE)
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise BadInput(f"{label} has data_offsets that are not two integers", _REWRITE)
    begin, end = offsets
    if not 0 <= begin <= end:
        raise BadInput(f"{label} begins at {begin} and ends at {end}", _REWRITE)
    try:
        spec = TensorSpec(name, dtype, tuple(shape))
    except BadInput as error:
        raise BadInput(f"{where}: {error.what}", error.hint or _REWRITE) from None
    if end - begin != spec.nbytes:
        raise BadInput(f"{label} has {end - begin} bytes where its dtype and shape need {spec.nbytes}", _REWRITE)
    return Slot(spec, origin + begin, origin + end)


def _check_order(slots: Mapping[str, Slot], origin: int, where: str) -> int:
    end = origin
    for slot in sorted(slots.values(), key=lambda slot: (slot.start, slot.end)):
        if slot.start != end:
            what = "overlaps the one before it" if slot.start < end else f"leaves a hole of {slot.start - end} bytes"
            raise BadInput(f"{where}: tensor {printable(slot.spec.name)[:80]!r} {what}", _REWRITE)
        end = slot.end
    return end
