"""Safetensors files made by hand, so that tests do not depend on the writer they test."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from weightvc.objects.tensors import BITS


def wrap_bytes(header: bytes | Mapping[str, object], body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def build_bytes(tensors: Mapping[str, tuple[str, Sequence[int], bytes]], **metadata: str) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return wrap_bytes(header, body)


@pytest.fixture
def wrap() -> Callable[..., bytes]:
    """Length, header (JSON value or text) and body to file bytes."""
    return wrap_bytes


@pytest.fixture
def build() -> Callable[..., bytes]:
    """Name to (dtype, shape, bytes) to file bytes."""
    return build_bytes


@pytest.fixture
def all_dtypes() -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """A tensor of shape [2, 4] of every dtype that safetensors has, with its own bytes."""
    return {
        f"t.{dtype}": (dtype, (2, 4), bytes((7 * bits + i) % 251 for i in range(bits))) for dtype, bits in BITS.items()
    }


@pytest.fixture
def model(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Relative path to content to a directory that holds those files."""

    def make(files: Mapping[str, bytes]) -> Path:
        root = tmp_path / "a-model"
        root.mkdir()
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    return make
