"""Decodes objects by the words of docs/format/objects.md alone. Imports nothing of weightvc, on purpose."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
import zstandard

PAGE = Path(__file__).parents[2] / "docs" / "format" / "objects.md"

WRITER = """
import sys
from pathlib import Path
from weightvc.delta import container
from weightvc.delta.codec import encode
from weightvc.objects.tensors import TensorSpec

folder = Path(sys.argv[1])
made = []
for line in (folder / "wanted").read_text().splitlines():
    name, dtype, shape, codec, based = line.split("|")
    spec = TensorSpec(name, dtype, tuple(map(int, shape.split(",") if shape else [])))
    base = (folder / f"{name}.base").read_bytes() if based == "yes" else None
    object_ = b"".join(encode(spec, (folder / f"{name}.raw").read_bytes(), base, codec))
    (folder / f"{name}.object").write_bytes(object_)
    made.append(object_)
(folder / "bundle").write_bytes(container.bundle(made))
"""

WANTED = [
    ("scalar", "F64", "", "intdelta", "yes"),
    ("empty", "F32", "0,3", "intdelta", "yes"),
    ("floats", "F32", "300,1000", "intdelta", "yes"),
    ("halves", "BF16", "300,1000", "intdelta", "yes"),
    ("longs", "I64", "7,11", "intdelta", "yes"),
    ("bytes", "U8", "524289", "intdelta", "yes"),
    ("nibbles", "F4", "2,5", "intdelta", "yes"),
    ("whole", "F16", "300000", "intdelta", "no"),
    ("plain", "F32", "131073", "raw", "no"),
]
BITS = {"F4": 4, "U8": 8, "F16": 16, "BF16": 16, "F32": 32, "I64": 64, "F64": 64}
BIAS = {1: 0, 2: 0x80, 4: 0x808080, 8: 0x80808080808080}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    rng = np.random.default_rng(8)
    for name, dtype, shape, _, _ in WANTED:
        nbytes = math.prod(map(int, shape.split(",") if shape else [])) * BITS[dtype] // 8
        width = max(1, BITS[dtype] // 8)
        base = np.frombuffer(rng.bytes(nbytes), f"<u{width}")
        small = rng.integers(0, 40, base.size).astype(base.dtype)
        (folder / f"{name}.base").write_bytes(base.tobytes())
        (folder / f"{name}.raw").write_bytes((base + small - base.dtype.type(20)).tobytes())
    (folder / "wanted").write_text("\n".join("|".join(row) for row in WANTED))
    subprocess.run([sys.executable, "-c", WRITER, folder], check=True)
    return folder


def number(data, start, size):
    return int.from_bytes(data[start : start + size], "little")


def parts(data, kind):
    """Prefix and header: return the header and the body."""
    assert data[:4] == bytes.fromhex("57564300")
    assert (data[4], data[5]) == (1, kind)
    end = 10 + number(data, 6, 4)
    header = json.loads(data[10:end])
    assert json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == data[10:end]
    return header, data[end:]


def plane(kind, payload, c):
    if kind == 0:
        assert len(payload) == c
        return payload
    if kind == 1:
        assert len(payload) == 1
        return payload * c
    assert kind == 2
    declared = zstandard.get_frame_parameters(payload)
    assert declared.content_size == c
    assert declared.window_size <= 8 * 2**20
    return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)


def chunk_words(body, c, w):
    d = np.zeros((c, w), np.uint8)
    for k in range(w):
        length = number(body, 1, 4)
        d[:, k] = np.frombuffer(plane(body[0], body[5 : 5 + length], c), np.uint8)
        body = body[5 + length :]
    assert not body
    return d.reshape(-1).view(f"<u{w}")


def decode(data, base):
    header, body = parts(data, 1)
    assert sorted(header) == ["base", "codec", "dtype", "shape"]
    bits = BITS[header["dtype"]]
    w = max(1, bits // 8)
    left = math.prod(header["shape"]) * bits // 8
    raw = b""
    while left:
        size = min(left, 524288)
        n = number(body, 0, 4)
        inner = body[12 : 12 + n]
        if header["codec"] == "intdelta":
            words = chunk_words(inner, size // w, w)
            if header["base"]:
                b = np.frombuffer(base[len(raw) : len(raw) + size], words.dtype)
                words = b + words - words.dtype.type(BIAS[w])
            inner = words.tobytes()
        assert len(inner) == size
        assert xxhash.xxh3_64_intdigest(inner) == number(body, 4, 8)
        raw += inner
        left -= size
        body = body[12 + n :]
    assert not body
    return header, raw


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted[0])
def test_an_object_is_decoded_by_the_page_alone(folder, wanted):
    name, dtype, shape, codec, based = wanted
    header, raw = decode((folder / f"{name}.object").read_bytes(), (folder / f"{name}.base").read_bytes())
    assert raw == (folder / f"{name}.raw").read_bytes()
    assert (header["dtype"], header["codec"], header["base"]) == (dtype, codec, based == "yes")
    assert ",".join(map(str, header["shape"])) == shape


def test_a_bundle_is_taken_apart_by_the_page_alone(folder):
    header, body = parts((folder / "bundle").read_bytes(), 2)
    assert list(header) == ["sizes"]
    for size, (name, *_) in zip(header["sizes"], WANTED, strict=True):
        assert body[:size] == (folder / f"{name}.object").read_bytes()
        body = body[size:]
    assert not body


def test_every_plane_kind_was_met(folder):
    kinds = set()
    for name in ("floats", "bytes", "longs", "scalar"):
        _, body = parts((folder / f"{name}.object").read_bytes(), 1)
        kinds.add(body[12])
    _, body = parts((folder / "floats.object").read_bytes(), 1)
    inner = body[12 : 12 + number(body, 0, 4)]
    while inner:
        kinds.add(inner[0])
        inner = inner[5 + number(inner, 1, 4) :]
    assert kinds >= {1, 2}
    _, body = parts((folder / "whole.object").read_bytes(), 1)
    assert body[12] == 0


def test_the_page_gives_the_numbers_used_here():
    page = PAGE.read_text()
    assert "chunks of 524,288 bytes" in page
    assert "`57 56 43 00`" in page
    rows = dict(re.findall(r"^\| ([1248]) \| `?(0x[80]+|0)`? \|$", page, re.MULTILINE))
    assert {int(w): int(bias, 16) for w, bias in rows.items()} == BIAS
    listed = {}
    for dtypes, bits in re.findall(r"^\| ((?:`\w+` ?)+) \| (\d+) \| \d \|$", page, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"\w+", dtypes), int(bits))
    assert len(listed) == 22
    assert listed.items() >= BITS.items()
