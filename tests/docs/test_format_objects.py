"""Objects are decoded by the words of docs/format/ alone: this and its reader import nothing of weightvc."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reader import BIAS, BITS, decode, floats, number, parts, words

PAGES = Path(__file__).parents[2] / "docs" / "format"

WRITER = """
import sys
from pathlib import Path
from weightvc.delta import container
from weightvc.delta.encoding import encode
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

LOSSY = ("int8", "int4", "int2", "bitdelta", "t-switch", "skillpack", "svd:3")
WANTED = [
    ("scalar", "F64", "", "intdelta", "yes"),
    ("empty", "F32", "0,3", "intdelta", "yes"),
    ("floats", "F32", "300,1000", "intdelta", "yes"),
    ("halves", "BF16", "300,1000", "intdelta", "yes"),
    ("longs", "I64", "7,11", "intdelta", "yes"),
    ("bytes", "U8", "524289", "intdelta", "yes"),
    ("nibbles", "F4", "2,5", "intdelta", "yes"),
    ("decayed", "F32", "300,1000", "intdelta", "yes"),
    ("lora32", "F32", "256,700", "intdelta", "yes"),
    ("lora16", "F16", "256,700", "intdelta", "yes"),
    ("lorabf", "BF16", "256,700", "intdelta", "yes"),
    ("few", "F32", "400,500", "intdelta", "yes"),
    ("lorabands", "F32", "256,700", "skillpack", "yes"),
    ("whole", "F16", "300000", "full", "no"),
    ("heads", "U32", "9,9", "full", "no"),
    ("plain", "F32", "131073", "raw", "no"),
    *((f"{codec[:4]}-{dtype}", dtype, "300,7,90", codec, "yes") for codec in LOSSY for dtype in ("F32", "F16", "BF16")),
]


def tuned(name, dtype, base, rng):
    """What a fine-tune makes of the base's words: something each predictor is for, small steps otherwise."""
    if name == "few":
        moved = base.copy()
        moved[::97] += 1
        return moved
    if name == "decayed":
        return words(dtype, (floats(dtype, base).astype(np.float32) * np.float32(1 - 2e-5)))
    if "-" in name:
        step = 0.01 * rng.standard_normal((300, 630)) * rng.exponential(1, (300, 1)) * (rng.random((300, 1)) < 0.9)
        return words(dtype, floats(dtype, base) + step.reshape(-1))
    if name.startswith("lora"):
        update = (0.01 * rng.standard_normal((256, 4)) @ rng.standard_normal((4, 700))).reshape(-1)
        return words(dtype, floats(dtype, base) + update)
    small = rng.integers(0, 40, base.size).astype(base.dtype)
    return base + small - base.dtype.type(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    rng = np.random.default_rng(8)
    for name, dtype, shape, _, _ in WANTED:
        nbytes = math.prod(map(int, shape.split(",") if shape else [])) * BITS[dtype] // 8
        width = max(1, BITS[dtype] // 8)
        base = np.frombuffer(rng.bytes(nbytes), f"<u{width}")
        if name == "decayed" or name.startswith("lora") or "-" in name:
            base = words(dtype, 0.05 * rng.standard_normal(base.size))
        (folder / f"{name}.base").write_bytes(base.tobytes())
        (folder / f"{name}.raw").write_bytes(tuned(name, dtype, base, rng).tobytes())
    (folder / "wanted").write_text("\n".join("|".join(row) for row in WANTED))
    subprocess.run([sys.executable, "-c", WRITER, folder], check=True)
    return folder


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted[0])
def test_an_object_is_decoded_by_the_page_alone(folder, wanted):
    name, dtype, shape, codec, based = wanted
    header, side, raw = decode((folder / f"{name}.object").read_bytes(), (folder / f"{name}.base").read_bytes())
    assert (header["dtype"], header["codec"]) == (dtype, codec)
    assert ",".join(map(str, header["shape"])) == shape
    if codec in LOSSY:  # the checksums of its chunks are of what comes back
        assert side
        return
    assert (codec == "intdelta") == (based == "yes")
    assert raw == (folder / f"{name}.raw").read_bytes()
    assert side[:1] == {"decayed": b"\1", "lora32": b"\2", "lora16": b"\2", "lorabf": b"\2"}.get(name, b"")


def test_a_bundle_is_taken_apart_by_the_page_alone(folder):
    header, body = parts((folder / "bundle").read_bytes(), 2)
    assert list(header) == ["sizes"]
    for size, (name, *_) in zip(header["sizes"], WANTED, strict=True):
        assert body[:size] == (folder / f"{name}.object").read_bytes()
        body = body[size:]
    assert not body


def test_every_way_to_code_a_chunk_and_every_kind_of_plane_was_met(folder):
    ways, kinds = set(), set()
    for name in ("floats", "longs", "few"):
        _, body = parts((folder / f"{name}.object").read_bytes(), 1)
        inner = body[12 : 12 + number(body, 0, 4)]
        ways.add(inner[0])
        inner = inner[1:] if inner[0] == 0 else b""
        while inner:
            kinds.add(inner[0])
            inner = inner[5 + number(inner, 1, 4) :]
    _, body = parts((folder / "whole.object").read_bytes(), 1)
    assert ways == {0, 1}
    assert kinds | {body[12]} == {0, 1, 2}


def test_the_page_gives_the_numbers_used_here():
    page = (PAGES / "objects.md").read_text() + (PAGES / "intdelta.md").read_text()
    assert "chunks of 524,288 bytes" in page
    assert "`57 56 43 00`" in page
    rows = dict(re.findall(r"^\| ([1248]) \| `?(0x[80]+|0)`? \|$", page, re.MULTILINE))
    assert {int(w): int(bias, 16) for w, bias in rows.items()} == BIAS
    listed = {}
    for dtypes, bits in re.findall(r"^\| ((?:`\w+` ?)+) \| (\d+) \| \d \|$", page, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"\w+", dtypes), int(bits))
    assert len(listed) == 22
    assert listed.items() >= BITS.items()
