"""The API of codecs and encodings: documented bytes, ranges, refusals, strangers' codecs."""

import dataclasses
import struct
from importlib import metadata
from typing import ClassVar

import numpy as np
import pytest

from weightvc.delta import container, planes
from weightvc.delta.codec import CHUNK, CODECS, codec_named
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.raw import Raw
from weightvc.objects.tensors import BITS, TensorSpec
from weightvc.util import plugins
from weightvc.util.errors import BadInput, Corrupt, Unsupported


def pack(spec, target, base=None, codec=None, level="default"):
    codec = codec or ("full" if base is None else "intdelta")
    return b"".join(encode(spec, memoryview(target), None if base is None else memoryview(base), codec, level))


def unpack(data, base=None):
    encoded = Encoded.parse(memoryview(data), "obj")
    out = bytearray(encoded.spec.nbytes)
    encoded.decode_into(out, base)
    return bytes(out)


def flat(dtype, nbytes):
    return TensorSpec("t", dtype, (nbytes * 8 // BITS[dtype],))


def test_a_small_difference_is_stored_as_the_documented_bytes():
    base = struct.pack("<4H", 1, 2, 3, 4)
    target = struct.pack("<4H", 2, 3, 4, 5)
    head, frame = encode(TensorSpec("t", "BF16", (2, 2)), target, base)
    assert head[:10] == b"WVC\x00\x01\x01" + struct.pack("<I", len(head) - 10)
    assert head[10:] == b'{"codec":"intdelta","dtype":"BF16","shape":[2,2],"side":false}'
    assert frame[:4] == struct.pack("<I", 13)
    assert frame[12:] == b"\x00" + b"\x01\x01\x00\x00\x00\x81" + b"\x01\x01\x00\x00\x00\x00"  # 1 + 0x80; 0


def test_planes_are_constant_raw_or_zstd():
    rng = np.random.default_rng(3)
    n = CHUNK // 4
    low, mid = rng.integers(0, 256, n, np.uint32), rng.integers(0, 2, n, np.uint32)
    target = (low | mid << 8 | 7 << 16).astype("<u4").tobytes()
    _, frame = encode(flat("U32", CHUNK), target, None, "full")
    kinds, end = [], 12
    for _ in range(4):
        kind, length = struct.unpack_from("<BI", frame, end)
        kinds.append((kind, length))
        end += 5 + length
    assert kinds[0] == (0, n)
    assert kinds[1][0] == 2
    assert n / 8 < kinds[1][1] < n / 4
    assert kinds[2:] == [(1, 1), (1, 1)]
    assert end == len(frame)


def test_a_plane_that_zstd_cannot_shrink_is_raw_below_the_sampling_size():
    noise = np.random.default_rng(4).bytes(1000)
    _, frame = encode(flat("U8", 1000), noise, None, "full")
    assert frame[12:] == b"\x00" + struct.pack("<I", 1000) + noise


@pytest.mark.parametrize("values", [8, 120, 255])
def test_a_plane_of_less_than_all_values_is_tried_even_if_it_looks_random(values):
    plane = np.random.default_rng(6).integers(0, values, CHUNK, np.uint8)
    _, frame = encode(flat("U8", CHUNK), plane.tobytes(), None, "full")
    assert frame[12] == (planes.ZSTD if values < 255 else planes.RAW)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
@pytest.mark.parametrize("bias", [0, 0x80, 2**64 - 1])
def test_planes_come_back_whichever_are_constant(itemsize, bias):
    rng = np.random.default_rng(5)
    for same in range(1 << itemsize):
        split = rng.integers(0, 256, (100, itemsize), np.uint8)
        for plane in range(itemsize):
            if same >> plane & 1:
                split[:, plane] = split[0, plane]
        words = split.view(f"<u{itemsize}").reshape(-1)
        out = np.empty_like(words)
        planes.unpack(memoryview(planes.pack(words.copy())), out, bias)
        assert np.array_equal(out, words - np.array(bias % 256**itemsize, out.dtype))


def test_the_raw_codec_is_the_bytes_and_takes_no_base():
    spec = TensorSpec("t", "U8", (5,))
    data = pack(spec, b"hello", b"world", "raw")
    assert data == pack(spec, b"hello", None, "raw")
    assert data.endswith(b"hello")
    assert unpack(data) == b"hello"


def test_empty_tensors_have_no_frames():
    spec = TensorSpec("t", "F32", (0, 3))
    assert len(list(encode(spec, b"", b""))) == 1
    empty = np.empty((0, 3), np.float32)
    encoded = Encoded.parse(memoryview(pack(spec, empty.data, empty.data)), "obj")
    encoded.decode_into(empty.data, empty.data)
    assert encoded.spec.nbytes == 0


@pytest.mark.parametrize(
    ("offset", "length"),
    [(1, CHUNK), (0, CHUNK - 1), (CHUNK, 9), (0, CHUNK + 9), (2 * CHUNK, 0), (2 * CHUNK, 1), (-CHUNK, CHUNK)],
)
def test_a_range_must_fall_on_chunks(offset, length):
    encoded = Encoded.parse(memoryview(pack(flat("U8", CHUNK + 8), bytes(CHUNK + 8))), "obj")
    with pytest.raises(BadInput, match=f"obj: bytes {offset} to {offset + length} of {CHUNK + 8} are not whole chunks"):
        encoded.decode_into(bytearray(length), None, offset)


def test_the_empty_range_at_a_chunk_decodes_nothing():
    encoded = Encoded.parse(memoryview(pack(flat("U8", CHUNK + 8), bytes(CHUNK + 8))), "obj")
    encoded.decode_into(bytearray(), None, CHUNK)


def test_a_base_of_the_wrong_length_is_refused():
    spec = TensorSpec("w", "F32", (2,))
    with pytest.raises(BadInput, match="tensor 'w': the tensor has 4 bytes, 8 expected"):
        encode(spec, bytes(4), None, "full")
    with pytest.raises(BadInput, match="tensor 'w': the base has 12 bytes, 8 expected"):
        encode(spec, bytes(8), bytes(12))
    encoded = Encoded.parse(memoryview(pack(spec, bytes(8), bytes(8))), "obj")
    with pytest.raises(BadInput, match="obj: 8 bytes of the base are needed, none given"):
        encoded.decode_into(bytearray(8), None)
    with pytest.raises(BadInput, match="obj: 8 bytes of the base are needed, 4 given"):
        encoded.decode_into(bytearray(8), bytes(4))


def test_codecs_are_named_as_in_the_table():
    for name, codec in CODECS.items():
        assert codec.name == name
        assert codec_named(name) is codec


@dataclasses.dataclass(frozen=True)
class Flip(Raw):
    """A stranger's codec: inverted bytes."""

    name: ClassVar[str] = "flip"

    def encode_chunk(self, index, target, base):
        return np.invert(target).tobytes()

    def decode_chunk(self, index, body, base, out):
        super().decode_chunk(index, body, base, out)
        np.invert(out, out=out)


def test_a_codec_of_another_package_is_found_by_name(monkeypatch):
    asked = []

    class Entry:
        def load(self):
            return Flip

    def entry_points(**wanted):
        asked.append(wanted)
        return [Entry()] if wanted == {"group": "weightvc.codecs", "name": "flip"} else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    monkeypatch.setattr(plugins, "load", plugins.load.__wrapped__)
    spec = TensorSpec("t", "U8", (3,))
    data = pack(spec, b"abc", b"xyz", "flip")
    assert data.endswith(bytes(255 - c for c in b"abc"))
    assert unpack(data) == b"abc"
    assert asked[0] == {"group": "weightvc.codecs", "name": "flip"}


def test_an_unknown_codec_is_named_with_the_way_out():
    with pytest.raises(Unsupported, match=r"^codec 'fl\\\\u001bp' is unknown$") as caught:
        encode(TensorSpec("t", "U8", (1,)), b"a", None, "fl\x1bp")
    assert caught.value.hint.startswith("the codecs here are intdelta, full, raw, int8, ")
    way_out = ", svd:RANK; for others upgrade weightvc, or install the package that provides it"
    assert caught.value.hint.endswith(way_out)
    header = {"codec": "later", "dtype": "U8", "shape": [0], "side": False}
    with pytest.raises(Unsupported, match=r"^obj: codec 'later' is unknown$") as caught:
        Encoded.parse(memoryview(container.head(container.Kind.TENSOR, header)), "obj")
    with pytest.raises(Unsupported) as caught:
        encode(TensorSpec("t", "U8", (1,)), b"a", None, "int5")
    assert caught.value.hint.startswith("did you mean int")


def test_a_codec_that_uses_a_base_is_given_none():
    with pytest.raises(BadInput, match=r"^tensor 'w': codec intdelta needs a base$") as caught:
        encode(TensorSpec("w", "U8", (1,)), b"a")
    assert caught.value.hint == "use the codec full or raw"


def test_a_codecs_complaint_carries_object_and_chunk():
    data = pack(TensorSpec("t", "U8", (3,)), b"abc", None, "raw")
    broken = data[:-15] + struct.pack("<I", 2) + data[-11:-1]
    with pytest.raises(Corrupt, match=r"^obj: chunk 0: 2 raw bytes, 3 expected$"):
        unpack(broken)
