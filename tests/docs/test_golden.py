"""Objects that a released format wrote are read for ever: by the pages' reader, and by the code, to the same bytes."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
from reader import decode

from weightvc.delta.codec import CODECS, codec_named
from weightvc.delta.encoding import Encoded

HERE = Path(__file__).parents[1] / "golden"
FOLDER = HERE / "objects-1"
INDEX = json.loads((FOLDER / "index.json").read_text())


def make():
    spec = importlib.util.spec_from_file_location("make", HERE / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(INDEX))
def test_a_golden_object_is_decoded_by_the_pages_and_by_the_code(name):
    data, known = (FOLDER / f"{name}.object").read_bytes(), INDEX[name]
    base = make().base_words(known["dtype"], known["count"]).tobytes()
    header, _, raw = decode(data, base)
    encoded = Encoded.parse(memoryview(data), name)
    out = bytearray(encoded.spec.nbytes)
    encoded.decode_into(out, base)
    assert out == raw
    lossless = hashlib.sha256(raw).hexdigest() == known["added"]
    assert lossless != codec_named(header["codec"]).lossy


def test_every_codec_and_every_way_to_code_a_chunk_has_a_golden_object():
    ways, codecs, predictors = set(), set(), set()
    for name in INDEX:
        data = (FOLDER / f"{name}.object").read_bytes()
        encoded = Encoded.parse(memoryview(data), name)
        codecs.add(encoded.codec.partition(":")[0])
        if encoded.codec == "intdelta":
            predictors.add(bytes(encoded._side[:1]))
            ways.add(encoded._body[encoded._offsets[0] + 12])
    assert codecs == {*CODECS, "svd"}
    assert (ways, predictors) == ({0, 1, 2}, {b"", b"\1", b"\2"})
