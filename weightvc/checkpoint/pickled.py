"""Checkpoints that PyTorch saved: flat dicts of tensors, read without running what is in them."""

import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from weightvc.checkpoint.files import label, map_file
from weightvc.checkpoint.header import ZIP, refuse_pointer
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput
from weightvc.util.text import printable

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.float4_e2m1fn_x2: "F4",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.complex64: "C64", torch.bool: "BOOL",
}  # fmt: skip
"""PyTorch dtype to the name that the safetensors format has for it."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""What a pickle can hold and UTF-8 cannot."""

_CONVERT = "load it in a place you trust and save its tensors with safetensors.torch.save_file"


class TorchFiles:
    """PyTorch files, read with ``weights_only=True`` onto the CPU.

    Files in the zip format are mapped. Files in the older one must be read whole, so of those only the last
    one used is kept.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._loaded: dict[str, Mapping[str, torch.Tensor]] = {}
        self._unmapped = ""
        self.headers: dict[str, bytes] = {}
        self.shards: dict[str, dict[str, TensorSpec]] = {}
        for name in names:
            limit = len(map_file(root / name))
            where = label(root / name)
            self.shards[name] = {key: _spec(key, t, limit, where) for key, t in self._tensors(name).items()}

    def read(self, shard: str, name: str) -> memoryview:
        """Return a tensor's raw little-endian bytes, contiguous and read-only; copied only if it is strided."""
        tensor = self._tensors(shard)[name].detach().resolve_conj().resolve_neg()
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        return flat.numpy().data.toreadonly()

    def _tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        with self._lock:
            if name not in self._loaded:
                tensors, mapped = _load(self._root / name)
                if not mapped:
                    self._loaded.pop(self._unmapped, None)
                    self._unmapped = name
                self._loaded[name] = tensors
            return self._loaded[name]


def _load(path: Path) -> tuple[Mapping[str, torch.Tensor], bool]:
    where = label(path)
    data = map_file(path)
    refuse_pointer(data, where)
    mapped = bytes(data[:4]) == ZIP
    try:
        if mapped:
            _refuse_compressed(path, where)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of oddities that it then refuses
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except BadInput:
        raise
    except pickle.UnpicklingError:
        raise BadInput(f"{where}: holds code or objects other than tensors, or is damaged", _CONVERT) from None
    except Exception as error:  # noqa: BLE001 - hostile bytes make torch.load raise nearly anything
        first = printable(str(error).partition("\n")[0])[:200]
        raise BadInput(f"{where}: PyTorch cannot read it ({type(error).__name__}: {first})", _CONVERT) from None
    return _flat(value, where), mapped


def _refuse_compressed(path: Path, where: str) -> None:
    """Refuse a zip archive with compressed members: PyTorch writes none, and a small one can unpack to anything."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise BadInput(f"{where}: a zip archive with compressed members, which PyTorch never writes", _CONVERT)


def _flat(value: Any, where: str) -> Mapping[str, torch.Tensor]:
    if isinstance(value, dict) and value.keys() == {"state_dict"}:
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise BadInput(f"{where}: holds a {type(value).__name__}, not a dict of tensors", _CONVERT)
    for key, item in value.items():
        if not isinstance(key, str) or _SURROGATE.search(key):
            raise BadInput(f"{where}: its key {printable(repr(key))[:80]} is not a tensor name", _CONVERT)
        if not isinstance(item, torch.Tensor):
            kind = type(item).__name__
            raise BadInput(f"{where}: its key {printable(key)[:80]!r} holds a {kind}, not a tensor", _CONVERT)
    return value


def _spec(name: str, tensor: torch.Tensor, limit: int, where: str) -> TensorSpec:
    what = f"{where}: tensor {printable(name)[:80]!r}"
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
        kind = "nested" if tensor.is_nested else f"{tensor.layout} on {tensor.device}"
        raise BadInput(f"{what} is {kind}; only dense tensors are read", _CONVERT)
    if tensor.dtype not in DTYPES:
        raise BadInput(f"{what} has the dtype {tensor.dtype}, which safetensors cannot hold", _CONVERT)
    shape = tuple(tensor.shape)
    if tensor.dtype == torch.float4_e2m1fn_x2 and shape:
        shape = (*shape[:-1], 2 * shape[-1])  # PyTorch counts pairs, safetensors elements
    try:
        spec = TensorSpec(name, DTYPES[tensor.dtype], shape)
    except BadInput as error:
        raise BadInput(f"{where}: {error.what}", error.hint or _CONVERT) from None
    if spec.nbytes > limit:  # stride 0 makes four bytes look like terabytes
        raise BadInput(f"{what} claims {spec.nbytes} bytes in a file of {limit}", _CONVERT)
    return spec
