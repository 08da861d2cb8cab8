"""Opening a checkpoint lazily: names, dtypes and shapes at once, bytes one tensor at a time."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from weightvc.checkpoint import adapter as adapters
from weightvc.checkpoint.adapter import Adapter
from weightvc.checkpoint.directory import (
    Kind,
    Weights,
    check_name,
    check_places,
    choose,
    kind_of,
    other_files,
    refuse_adapters_file,
)
from weightvc.checkpoint.files import label, map_file, marks, regular_size
from weightvc.checkpoint.header import Slot, parse_header
from weightvc.objects import paths
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput, NotFound

_HUB_ID = re.compile(r"[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.ASCII | re.IGNORECASE)


class Source(Protocol):
    """Weight files of one kind, opened."""

    @property
    def headers(self) -> Mapping[str, bytes]:
        """File name to verbatim safetensors header."""
        ...

    @property
    def shards(self) -> Mapping[str, Mapping[str, TensorSpec]]:
        """File name to the specs of the tensors in it, by tensor name."""
        ...

    def read(self, shard: str, name: str) -> memoryview:
        """Return the bytes of the tensor ``name`` of file ``shard``, read-only."""
        ...


class _Safetensors:
    """Mapped safetensors files."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._data = {name: map_file(root / name) for name in names}
        parsed = {name: parse_header(data, label(root / name)) for name, data in self._data.items()}
        self._slots: dict[str, Mapping[str, Slot]] = {name: header.tensors for name, header in parsed.items()}
        self.headers = {name: header.raw for name, header in parsed.items()}
        self.shards = {
            name: {tensor: slot.spec for tensor, slot in slots.items()} for name, slots in self._slots.items()
        }

    def read(self, shard: str, name: str) -> memoryview:
        slot = self._slots[shard][name]
        return self._data[shard][slot.start : slot.end]


class Checkpoint:
    """An open checkpoint; made by :func:`open_checkpoint`, used as a context manager.

    ``read`` and ``extra`` may be called from several threads. Views that they returned stay valid after
    ``close``: a file's map goes with its last view.

    Attributes:
        path: The file or directory.
        kind: ``"safetensors"`` or ``"torch"``.
        tensors: Tensor name to spec, sorted by name.
        headers: Weight file name to its verbatim header with the eight length bytes; empty for PyTorch files.
        extras: Path relative to the directory, with ``/``, to size in bytes, for every file that holds no
            weights of this checkpoint; sorted, and empty for a single file.
        adapter: The settings of a PEFT LoRA adapter, if it is one.
    """

    def __init__(  # noqa: PLR0917 -- made in one place
        self,
        path: Path,
        kind: Kind,
        source: Source,
        extras: Mapping[str, int],
        before: Mapping[Path, tuple[int, ...]],
        adapter: Adapter | None = None,
    ) -> None:
        self.path = path
        self.adapter = adapter
        self._before = before
        self.kind: Kind = kind
        self.headers = source.headers
        self.extras = extras
        places = {name: (shard, spec) for shard, specs in source.shards.items() for name, spec in specs.items()}
        self.tensors: Mapping[str, TensorSpec] = {name: places[name][1] for name in sorted(places)}
        self._shards = {name: shard for name, (shard, _) in places.items()}
        self._source: Source | None = source

    def read(self, name: str) -> memoryview:
        """Return a tensor's raw little-endian bytes, contiguous and read-only.

        Of a safetensors file this is a view of the mapped file, and nothing is copied.

        Raises:
            KeyError: there is no tensor of that name.
            ValueError: the checkpoint is closed.
        """
        return self._opened().read(self._shards[name], name)

    def extra(self, path: str) -> memoryview:
        """Return the bytes of one of :attr:`extras`, mapped and read-only.

        Raises:
            KeyError: there is no extra file of that path.
            ValueError: the checkpoint is closed.
            NotFound, BadInput: the file has gone or changed since the checkpoint was opened.
        """
        self._opened()
        size = self.extras[path]
        data = map_file(self.path / path)
        if len(data) != size:
            raise BadInput(f"{label(self.path / path)}: changed while it was being read", "try again")
        return data

    def refuse_changed(self) -> None:
        """Compare every weight file with what it was before the checkpoint was opened; called after the last read.

        Raises:
            BadInput: one was written to, replaced or removed, so that the tensors may be of different moments.
        """
        for path, before in self._before.items():
            if marks(path) != before:
                raise BadInput(
                    f"{label(path)}: changed while it was read; nothing was staged",
                    "let the program that writes it finish, then run the command again",
                )

    def close(self) -> None:
        """Let the files go, as soon as no view of them is left."""
        self._source = None

    def _opened(self) -> Source:
        if self._source is None:
            raise ValueError(f"{self.path}: this checkpoint is closed")
        return self._source

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a ``.safetensors``, ``.bin``, ``.pt`` or ``.pth`` file, or the directory of a model or a PEFT adapter.

    No tensor is read, except that PyTorch files of the format before version 1.6 cannot be read in parts.

    Raises:
        NotFound: there is nothing at ``path``.
        BadInput: it is not a checkpoint that can be read, is ambiguous, or holds no tensors; or its files could not
            be written beside each other again (:func:`weightvc.objects.paths.check`).
    """
    if _HUB_ID.fullmatch(str(path)) and not path.parent.exists():
        raise NotFound(
            f"{path}: no such file or directory; it looks like the name of a model on a hub",
            f"download it first, for example `hf download {path} --local-dir {path.name}`, and give that directory",
        )
    try:
        if path.is_dir():
            weights, root = choose(path), path
            extras = other_files(path, weights)
            adapter = adapters.read(path) if adapters.CONFIG in extras else None
        else:
            regular_size(path)
            refuse_adapters_file(path)
            weights, root, extras = Weights(kind_of(path), (path.name,)), path.parent, {}
            adapter = None
    except OSError as error:
        raise BadInput(f"{label(path)}: cannot be read ({error.strerror})", "check its permissions") from None
    named = weights.files if weights.kind == "safetensors" else ()
    for name in named:
        check_name(root, name)
    paths.check([*named, *extras], label(path))
    before = {root / name: marks(root / name) for name in weights.files}
    source = _source(weights.kind, root, weights.files)
    if weights.index:
        check_places(root, weights, source.shards)
    if not any(source.shards.values()):
        raise BadInput(f"{label(path)}: a checkpoint with no tensors", "give the file that holds the weights")
    return Checkpoint(path, weights.kind, source, extras, before, adapter)


def _source(kind: Kind, root: Path, names: Sequence[str]) -> Source:
    if kind == "safetensors":
        return _Safetensors(root, names)
    # The one function-level import: torch costs seconds to import, and only PyTorch's own files need it.
    from weightvc.checkpoint.pickled import TorchFiles  # noqa: PLC0415

    return TorchFiles(root, names)
