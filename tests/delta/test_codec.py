"""Laws of every codec, ranges, threads, and the API's refusals."""

import dataclasses
import math
import struct
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.delta import container
from weightvc.delta.codec import CHUNK, CODECS, Encoded, codec_named, encode
from weightvc.delta.raw import Raw
from weightvc.objects.tensors import BITS, TensorSpec
from weightvc.util import plugins
from weightvc.util.errors import BadInput, Corrupt, Unsupported


def pack(spec, target, base=None, codec="intdelta"):
    return b"".join(encode(spec, memoryview(target), None if base is None else memoryview(base), codec))


def unpack(data, base=None):
    encoded = Encoded.parse(memoryview(data), "obj")
    out = bytearray(encoded.nbytes)
    encoded.decode_into(out, base)
    return bytes(out)


def flat(dtype, nbytes):
    return TensorSpec("t", dtype, (nbytes * 8 // BITS[dtype],))


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(sorted(BITS)))
    shape = draw(st.lists(st.integers(0, 9), max_size=3))
    if BITS[dtype] < 8:
        shape.append(4)  # whole bytes
    spec = TensorSpec("t", dtype, tuple(shape))
    base = draw(st.binary(min_size=spec.nbytes, max_size=spec.nbytes))
    target = draw(st.one_of(st.just(base), st.binary(min_size=spec.nbytes, max_size=spec.nbytes)))
    return spec, target, base


@given(tensors(), st.booleans(), st.sampled_from(sorted(CODECS)))
@settings(max_examples=300, deadline=None)
def test_every_dtype_and_shape_comes_back(tensor, with_base, codec):
    spec, target, base = tensor
    data = pack(spec, target, base if with_base else None, codec)
    encoded = Encoded.parse(memoryview(data), "obj")
    assert (encoded.dtype, encoded.shape, encoded.codec) == (spec.dtype, spec.shape, codec)
    assert encoded.nbytes == spec.nbytes
    assert encoded.needs_base == (with_base and codec == "intdelta")
    assert unpack(data, base if encoded.needs_base else None) == target


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("dtype", ["U8", "BF16", "F32", "F64"])
@pytest.mark.parametrize("extra", [-1, 0, 1, CHUNK // 8 + 1])
def test_sizes_around_a_chunk(codec, dtype, extra):
    nbytes = CHUNK + extra * BITS[dtype] // 8
    rng = np.random.default_rng(nbytes)
    base = rng.bytes(nbytes)
    target = bytearray(base)
    target[:: max(2, BITS[dtype] // 8)] = rng.bytes(len(target[:: max(2, BITS[dtype] // 8)]))
    spec = flat(dtype, nbytes)
    for given_base in (base, None):
        data = pack(spec, target, given_base, codec)
        assert unpack(data, given_base) == target
        assert len(list(encode(spec, memoryview(target), given_base, codec))) == 1 + math.ceil(nbytes / CHUNK)


def test_special_floats_keep_every_bit():
    patterns = [0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x80000000, 0, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x3F800000]
    target = struct.pack("<10I", *patterns)
    base = struct.pack("<10I", *reversed(patterns))
    spec = TensorSpec("t", "F32", (10,))
    assert unpack(pack(spec, target, base), base) == target
    assert unpack(pack(spec, target)) == target


def test_a_small_difference_is_stored_as_the_documented_bytes():
    base = struct.pack("<4H", 1, 2, 3, 4)
    target = struct.pack("<4H", 2, 3, 4, 5)
    head, frame = encode(TensorSpec("t", "BF16", (2, 2)), target, base)
    assert head[:10] == b"WVC\x00\x01\x01" + struct.pack("<I", len(head) - 10)
    assert head[10:] == b'{"base":true,"codec":"intdelta","dtype":"BF16","shape":[2,2]}'
    assert frame[:4] == struct.pack("<I", 12)
    assert frame[12:] == b"\x01\x01\x00\x00\x00\x81" + b"\x01\x01\x00\x00\x00\x00"  # 1 + 0x80; 0


def test_planes_are_constant_raw_or_zstd():
    rng = np.random.default_rng(3)
    n = CHUNK // 4
    low, mid = rng.integers(0, 256, n, np.uint32), rng.integers(0, 2, n, np.uint32)
    target = (low | mid << 8 | 7 << 16).astype("<u4").tobytes()
    _, frame = encode(flat("F32", CHUNK), target, None)
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
    _, frame = encode(flat("U8", 1000), noise, None)
    assert frame[12:] == b"\x00" + struct.pack("<I", 1000) + noise


def test_the_raw_codec_is_the_bytes_and_takes_no_base():
    spec = TensorSpec("t", "U8", (5,))
    data = pack(spec, b"hello", b"world", "raw")
    assert data == pack(spec, b"hello", None, "raw")
    assert data.endswith(b"hello")
    assert b'"base":false' in data
    assert unpack(data) == b"hello"


def test_empty_tensors_have_no_frames():
    spec = TensorSpec("t", "F32", (0, 3))
    assert len(list(encode(spec, b"", b""))) == 1
    empty = np.empty((0, 3), np.float32)
    encoded = Encoded.parse(memoryview(pack(spec, empty.data, empty.data)), "obj")
    encoded.decode_into(empty.data, empty.data)
    assert encoded.nbytes == 0


def test_inputs_are_not_written_to_and_need_no_alignment():
    rng = np.random.default_rng(5)
    room = bytearray(rng.bytes(2 * CHUNK + 9))
    before = bytes(room)
    target, base = memoryview(room)[1 : CHUNK + 5], memoryview(room)[CHUNK + 5 :]
    spec = flat("F32", len(target))
    for given_base in (base, None):
        data = pack(spec, target, given_base)
        out = bytearray(len(target) + 3)
        Encoded.parse(memoryview(data), "obj").decode_into(memoryview(out)[3:], given_base)
        assert out[3:] == target
    assert room == before


def test_same_bytes_in_every_thread_and_every_range_alike():
    rng = np.random.default_rng(6)
    nbytes = 4 * CHUNK + 40
    base = rng.integers(0, 2**32, nbytes // 4, np.uint32)
    target = base + rng.integers(0, 1000, nbytes // 4, np.uint32)
    spec = flat("F32", nbytes)
    want = pack(spec, target.data, base.data)
    encoded = Encoded.parse(memoryview(want), "obj")
    out = bytearray(nbytes)

    def decode(start):
        view, source = memoryview(out), memoryview(base).cast("B")
        encoded.decode_into(view[start : start + CHUNK], source[start : start + CHUNK], start)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: pack(spec, target.data, base.data), range(8))) == {want}
        list(pool.map(decode, reversed(range(0, nbytes, CHUNK))))
    assert out == target.tobytes()
    middle = np.empty(2 * CHUNK // 4, np.uint32)
    encoded.decode_into(middle, base[CHUNK // 4 : 3 * CHUNK // 4], CHUNK)
    assert np.array_equal(middle, target[CHUNK // 4 : 3 * CHUNK // 4])


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
        encode(spec, bytes(4), None)
    with pytest.raises(BadInput, match="tensor 'w': the base has 12 bytes, 8 expected"):
        encode(spec, bytes(8), bytes(12))
    encoded = Encoded.parse(memoryview(pack(spec, bytes(8), bytes(8))), "obj")
    with pytest.raises(BadInput, match="obj: 8 bytes of the base are needed, none given"):
        encoded.decode_into(bytearray(8), None)
    with pytest.raises(BadInput, match="obj: 8 bytes of the base are needed, 4 given"):
        encoded.decode_into(bytearray(8), bytes(4))


def test_codecs_are_frozen_and_named_as_in_the_table():
    for name, codec in CODECS.items():
        assert codec.name == name
        assert codec_named(name) is codec
        with pytest.raises((AttributeError, TypeError)):
            codec.name = "other"


@dataclasses.dataclass(frozen=True)
class Flip(Raw):
    """A stranger's codec: inverted bytes."""

    name: ClassVar[str] = "flip"

    def encode_chunk(self, target, base):
        return np.invert(target).tobytes()

    def decode_chunk(self, body, base, out):
        super().decode_chunk(body, base, out)
        np.invert(out, out=out)


def test_a_codec_of_another_package_is_found_by_name(monkeypatch):
    asked = []

    class Entry:
        def load(self):
            return Flip()

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
    assert caught.value.hint == "upgrade weightvc, or install the package that provides it"
    header = {"codec": "later", "dtype": "U8", "shape": [0], "base": False}
    with pytest.raises(Unsupported, match=r"^obj: codec 'later' is unknown$") as caught:
        Encoded.parse(memoryview(container.head(container.Kind.TENSOR, header)), "obj")
    assert caught.value.hint == "upgrade weightvc, or install the package that provides it"


def test_a_codecs_complaint_carries_object_and_chunk():
    data = pack(TensorSpec("t", "U8", (3,)), b"abc", None, "raw")
    broken = data[:-15] + struct.pack("<I", 2) + data[-11:-1]
    with pytest.raises(Corrupt, match=r"^obj: chunk 0: 2 raw bytes, 3 expected$"):
        unpack(broken)
