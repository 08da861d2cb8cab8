"""Writing safetensors files: a layout decided in advance, then bytes put in place from any thread."""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from weightvc.checkpoint.header import Slot, parse_raw
from weightvc.objects.paths import is_plain
from weightvc.objects.tensors import TensorSpec
from weightvc.util import fsio
from weightvc.util.errors import BadInput
from weightvc.util.text import listed, printable

_ORDER = {
    "U64": 0, "I64": 1, "F64": 2, "C64": 3, "F32": 4, "U32": 5, "I32": 6, "BF16": 7, "F16": 8, "U16": 9, "I16": 10,
    "F8_E5M2FNUZ": 11, "F8_E4M3FNUZ": 12, "F8_E8M0": 13, "F8_E4M3": 14, "F8_E5M2": 15, "I8": 16, "U8": 17,
    "F6_E3M2": 18, "F6_E2M3": 19, "F4": 20, "BOOL": 21,
}  # fmt: skip
"""The order in which the safetensors library lays out dtypes: widest first, which keeps every tensor aligned."""


class ShardFile(NamedTuple):
    """One file of a layout: its name, its header with the eight length bytes, and every tensor's place in it."""

    name: str
    header: bytes
    slots: Mapping[str, Slot]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tensor goes where, in which files.

    Attributes:
        files: The files, in order.
        index_name: Name of the index file; empty when none is to be written.
    """

    files: tuple[ShardFile, ...]
    index_name: str = ""

    @classmethod
    def pack(cls, specs: Sequence[TensorSpec], max_shard_size: int, stem: str = "model") -> Self:
        """Lay tensors out as the safetensors library does, byte for byte.

        A function of the specs, the size and the stem only. Tensors fill shards in the order of their names,
        and one larger than ``max_shard_size`` has a shard to itself.

        Args:
            specs: The tensors, in any order; names are unique.
            max_shard_size: Bytes of tensors in one file, at least 1.
            stem: What the files' names begin with.

        Raises:
            BadInput: no tensors, one name twice, or a header that no reader here would accept.
        """
        if not specs or len({spec.name for spec in specs}) != len(specs):
            raise BadInput(f"{stem}: no tensors to write, or one name twice")
        shards: list[list[TensorSpec]] = [[]]
        size = 0
        for spec in sorted(specs):
            if shards[-1] and size + spec.nbytes > max_shard_size:
                shards.append([])
                size = 0
            shards[-1].append(spec)
            size += spec.nbytes
        if len(shards) == 1:
            return cls((_packed(f"{stem}.safetensors", shards[0]),))
        names = [f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        return cls(tuple(map(_packed, names, shards)), f"{stem}.safetensors.index.json")

    @classmethod
    def verbatim(cls, headers: Mapping[str, bytes]) -> Self:
        """Lay tensors out as stored headers say, so that the very files come back.

        The index of a sharded checkpoint is one of its extra files then, and is not written here.

        Args:
            headers: File name to header, with the eight length bytes.

        Raises:
            BadInput: a header is not well formed, a name is not a plain file name, or two files hold one tensor.
        """
        files = []
        owner: dict[str, str] = {}
        for name in sorted(headers):
            if not is_plain(name):
                raise BadInput(f"{printable(name)[:80]!r} cannot name a weight file")
            slots = parse_raw(headers[name], name).tensors
            twice = sorted(owner.keys() & slots.keys())
            if twice:
                raise BadInput(f"{name}: holds tensors that {owner[twice[0]]} holds too: {listed(twice)}")
            owner.update(dict.fromkeys(slots, name))
            files.append(ShardFile(name, headers[name], slots))
        return cls(tuple(files))

    def index(self) -> bytes | None:
        """Return the index file's content, as transformers writes it, or ``None`` when there is none to write."""
        if not self.index_name:
            return None
        places = {tensor: file.name for file in self.files for tensor in file.slots}
        total = sum(slot.end - slot.start for file in self.files for slot in file.slots.values())
        value = {"metadata": {"total_size": total}, "weight_map": places}
        return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _packed(name: str, specs: Sequence[TensorSpec]) -> ShardFile:
    value: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in sorted(specs, key=lambda spec: (_ORDER[spec.dtype], spec.name)):
        begin, end = end, end + spec.nbytes
        value[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": (begin, end)}
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return ShardFile(name, header, parse_raw(header, name).tensors)


class Writer:
    """Writes the files of a layout into a directory; a context manager.

    Leaving the context before :meth:`finish` has returned removes every file again.

    Args:
        directory: An existing directory, which holds none of the files.
        layout: What to write.

    Raises:
        FileExistsError: one of the files exists.
    """

    def __init__(self, directory: Path, layout: Layout) -> None:
        self._directory = directory
        self._layout = layout
        self._lock = threading.Lock()
        self._left = {name: slot.end - slot.start for file in layout.files for name, slot in file.slots.items()}
        self._slots = {name: (i, slot) for i, file in enumerate(layout.files) for name, slot in file.slots.items()}
        with ExitStack() as stack:
            self._files = [stack.enter_context(fsio.NewFile(directory, name=file.name)) for file in layout.files]
            self._stack = stack.pop_all()

    def write(self, name: str, data: fsio.Buffer, offset: int = 0) -> None:
        """Put bytes of a tensor in place; every byte is to be written once. May be called from several threads.

        Args:
            name: The tensor.
            data: Raw little-endian bytes.
            offset: Where in the tensor they start, in bytes.

        Raises:
            KeyError: the layout has no such tensor.
            ValueError: the bytes do not fit into the tensor.
        """
        file, slot = self._slots[name]
        nbytes = memoryview(data).nbytes
        if offset < 0 or slot.start + offset + nbytes > slot.end:
            raise ValueError(f"{name}: {nbytes} bytes at {offset} do not fit into {slot.end - slot.start}")
        if nbytes:
            self._files[file].pwrite(data, slot.start + offset)
            with self._lock:
                self._left[name] -= nbytes

    def finish(self) -> None:
        """Write the headers and the index, and make everything durable.

        Raises:
            ValueError: tensors have not been written completely.
        """
        missing = [name for name in sorted(self._left) if self._left[name]]
        if missing:
            raise ValueError(f"not written completely: {listed(missing)}")
        index = self._layout.index()
        if index is not None:
            extra = self._stack.enter_context(fsio.NewFile(self._directory, name=self._layout.index_name))
            extra.write(index)
            extra.close()
        for new, file in zip(self._files, self._layout.files, strict=True):
            new.pwrite(file.header, 0)
            new.close()
        fsio.sync_dir(self._directory)
        self._stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def write_extra(directory: Path, path: str, parts: Iterable[fsio.Buffer]) -> None:
    """Write one file that travels along with the weights, durably.

    Args:
        directory: The model directory being made.
        path: Where in it, relative and with ``/``, as in :attr:`Checkpoint.extras`.
        parts: The file's bytes, one part after another.

    Raises:
        BadInput: the path leads out of the directory, or names a file that is already there.
    """
    if not all(map(is_plain, path.split("/"))):
        raise BadInput(f"{printable(path)[:80]!r} is not a path inside a model directory")
    target = directory / path
    fsio.make_dirs(target.parent)
    if target.exists():
        raise BadInput(f"{printable(path)[:80]!r} is in this model directory already")
    with fsio.NewFile(target.parent) as new:
        for part in parts:
            new.write(part)
        new.replace(target)
    fsio.sync_dir(target.parent)
