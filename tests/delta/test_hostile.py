"""Objects that lie: each is refused with words, none allocates what it claims, none decodes to other bytes."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
import xxhash
import zstandard

from weightvc.delta import container
from weightvc.delta.codec import CHUNK
from weightvc.delta.container import Kind
from weightvc.delta.encoding import Encoded, encode
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt, Unsupported

BASE = np.arange(600, dtype="<u4").tobytes()
TARGET = (np.arange(600, dtype="<u4") + np.arange(600, dtype="<u4") % 7 * 50).tobytes()
SMALL = b"".join(encode(TensorSpec("t", "F32", (20, 30)), TARGET, BASE))


def decode(data, base=BASE):
    encoded = Encoded.parse(memoryview(data), "obj")
    out = bytearray(encoded.spec.nbytes)
    encoded.decode_into(out, base)
    return bytes(out)


def decode_known(data):
    """Decode as callers do, who know dtype and shape from a manifest and compare them first."""
    encoded = Encoded.parse(memoryview(data), "obj")
    if (encoded.spec.dtype, encoded.spec.shape) != ("F32", (20, 30)):
        raise Corrupt("obj: not the tensor of the manifest")
    return decode(data)


def head(text, version=1, kind=1, magic=b"WVC\x00"):
    return struct.pack("<4sBBI", magic, version, kind, len(text)) + text


def framed(raw, *planes, dtype="U8", words=None):
    """Build an object of one chunk from (kind, payload) planes; ``raw`` gives the checksum."""
    shape = [len(raw) if words is None else words]
    header = {"codec": "full", "dtype": dtype, "shape": shape, "side": False}
    body = b"".join(struct.pack("<BI", kind, len(payload)) + payload for kind, payload in planes)
    return container.head(Kind.TENSOR, header) + container.frame(body, raw)


def zstd(data, **parameters):
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(1, **parameters)
    )
    return compressor.compress(data)


def test_the_small_object_is_sound():
    assert decode(SMALL) == TARGET


def test_every_truncation_is_refused():
    for end in range(len(SMALL)):
        with pytest.raises(Corrupt, match=r"^obj: "):
            decode(SMALL[:end])


def test_anything_appended_is_refused():
    for extra in (b"\0", bytes(12), SMALL):
        with pytest.raises(Corrupt, match=r"^obj: \d+ bytes of chunks, \d+ expected$"):
            decode(SMALL + extra)


def test_no_bit_flip_decodes_to_other_bytes():
    messages = []
    for position in range(len(SMALL)):
        for bit in range(8):
            data = bytearray(SMALL)
            data[position] ^= 1 << bit
            try:
                assert decode_known(bytes(data)) == TARGET
            except (Corrupt, Unsupported) as error:
                messages.append(error.what)
    assert all(message.startswith("obj: ") for message in messages)
    assert len(messages) > 7 * len(SMALL)  # only a few bits of a zstd frame carry nothing


def test_every_bit_flip_among_constant_planes_is_refused():
    same = b"".join(encode(TensorSpec("t", "F32", (20, 30)), BASE, BASE))
    for position in range(len(same)):
        for bit in range(8):
            data = bytearray(same)
            data[position] ^= 1 << bit
            with pytest.raises((Corrupt, Unsupported), match=r"^obj: "):
                decode_known(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a weightvc object"),
        (b"WVC\x00\x01\x01\x00\x00\x00", "not a weightvc object"),
        (head(b"{}", magic=b"PK\x03\x04"), "not a weightvc object"),
        (head(b"{}", kind=2), r"an object of kind 2, kind 1 \(tensor\) was expected"),
        (head(b"{}", kind=77), r"an object of kind 77, kind 1 \(tensor\) was expected"),
        (head(b"{}")[:-1], "the header is cut short"),
        (struct.pack("<4sBBI", b"WVC\x00", 1, 1, 2**32 - 1), "the header is cut short"),
        (head(b"\xff"), "header: not valid JSON"),
        (head(b'{"base":true,"base":true}'), "header: duplicate name 'base'"),
        (head(b"[" * 100_000), "header: JSON nested too deeply"),
        (head(b"[1]"), "the header does not have exactly the names codec, dtype, shape, side"),
        (head(b"{}"), "the header does not have exactly the names codec, dtype, shape, side"),
        (
            head(b'{"a":1,"codec":"raw","dtype":"U8","shape":[0],"side":false}'),
            "the header does not have exactly the names codec, dtype, shape, side",
        ),
        (head(b'{"codec": "raw","dtype":"U8","shape":[0],"side":false}'), "the header is not in canonical form"),
        (head(b'{"dtype":"U8","codec":"raw","shape":[0],"side":false}'), "the header is not in canonical form"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[-0],"side":false}'), "header: -0 is no integer"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[0],"side":0}'), "a value in the header has the wrong type"),
        (head(b'{"codec":1,"dtype":"U8","shape":[0],"side":false}'), "a value in the header has the wrong type"),
        (head(b'{"codec":"raw","dtype":[],"shape":[0],"side":false}'), "a value in the header has the wrong type"),
        (head(b'{"codec":"raw","dtype":"U8","shape":0,"side":false}'), "a value in the header has the wrong type"),
        (head(b'{"codec":"raw","dtype":"F31","shape":[0],"side":false}'), "dtype 'F31' is unknown"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[true],"side":false}'), "a dimension is not a non-negative"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[-1],"side":false}'), "a dimension is not a non-negative"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[0.0],"side":false}'), "a dimension is not a non-negative"),
        (head(b'{"codec":"raw","dtype":"F4","shape":[1],"side":false}'), "do not fill whole bytes"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[0],"side":true}'), "0 bytes cannot hold 1 chunks"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[281474976710655],"side":false}'), "0 bytes cannot hold 536870912"),
        (head(b'{"codec":"raw","dtype":"U8","shape":[0],"side":false}') + b"x", "1 bytes of chunks, 0 expected"),
    ],
)
def test_malformed_headers(data, words):
    with pytest.raises(Corrupt, match="obj.*" + words):
        decode(data)


def test_a_newer_format_asks_for_an_upgrade():
    with pytest.raises(Unsupported, match=r"^obj: object format version 99 is unknown$") as caught:
        decode(head(b"{}", version=99))
    assert caught.value.hint == "upgrade weightvc"


def test_chunks_that_do_not_fit():
    data = bytes(CHUNK + 1)
    parts = list(encode(TensorSpec("t", "U8", (CHUNK + 1,)), data, None, "raw"))
    with pytest.raises(Corrupt, match="obj: chunk 1 is cut short"):
        decode(b"".join(parts[:2]) + b"1234")
    long = struct.pack("<IQ", 2**32 - 1, 0)
    with pytest.raises(Corrupt, match=r"obj: chunk 1 is cut short"):
        decode(parts[0] + long + bytes(99))
    with pytest.raises(Corrupt, match=r"obj: 113 bytes of chunks, 4294967319 expected"):
        decode(parts[0] + struct.pack("<IQ", 0, 0) + long + bytes(89))
    with pytest.raises(Corrupt, match="obj: chunk 1 does not match its checksum"):
        decode(parts[0] + parts[1] + parts[2][:-1] + b"\x01")


BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(64 * 2**20))
ROW = b"ab" * 1500
CLAIM = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**45) + b"\x01\x00\x00"  # an empty frame of 32 TiB
OPEN = zstandard.ZstdCompressor(write_content_size=False).compress(ROW)
SKIP = struct.pack("<II", 0x184D2A50, len(ROW)) + ROW
MISLED = bytearray(zstd(ROW))
MISLED[MISLED.index(struct.pack("<H", len(ROW) - 256))] += 1


@pytest.mark.parametrize(
    ("planes", "words"),
    [
        ([], "plane 0 is cut short"),
        ([(0, ROW), (1, b"x")], "6 bytes follow the last plane"),
        ([(3, ROW)], "plane 0 has the unknown kind 3"),
        ([(0, ROW[:-1])], "plane 0 holds 2999 bytes, 3000 expected"),
        ([(0, ROW + b"x")], "plane 0 holds 3001 bytes, 3000 expected"),
        ([(1, b"")], "plane 0 holds 0 bytes, 1 expected"),
        ([(1, b"xx")], "plane 0 holds 2 bytes, 1 expected"),
        ([(2, b"")], "plane 0 is not one whole zstd frame"),
        ([(2, ROW)], "plane 0 is not one whole zstd frame"),
        ([(2, BOMB)], "plane 0 is a zstd frame that does not declare 3000 bytes"),
        ([(2, CLAIM)], "plane 0 is a zstd frame that does not declare 3000 bytes"),
        ([(2, OPEN)], "plane 0 is a zstd frame that does not declare 3000 bytes"),
        ([(2, zstd(ROW + b"x"))], "plane 0 is a zstd frame that does not declare 3000 bytes"),
        ([(2, bytes(MISLED))], "plane 0 is a zstd frame that does not declare 3000 bytes"),
        ([(2, zstd(ROW)[:-1])], "plane 0 is not one whole zstd frame"),
        ([(2, zstd(ROW) + b"x")], "plane 0 is not one whole zstd frame .*unused data"),
        ([(2, zstd(ROW) * 2)], "plane 0 is not one whole zstd frame .*unused data"),
        ([(2, SKIP)], "plane 0 is not one whole zstd frame"),
    ],
)
def test_hostile_planes(planes, words):
    with pytest.raises(Corrupt, match=f"^obj: chunk 0: {words}"):
        decode(framed(ROW, *planes))


def test_a_frame_that_holds_less_or_more_than_it_declares_is_refused():
    frame = bytearray(zstd(ROW[:-1]))
    size = frame.index(struct.pack("<H", len(ROW) - 1 - 256))
    frame[size : size + 2] = struct.pack("<H", len(ROW) - 256)
    with pytest.raises(Corrupt, match=r"^obj: chunk 0: plane 0 is not one whole zstd frame"):
        decode(framed(ROW, (2, bytes(frame))))


def test_a_window_of_128_mib_is_refused():
    # No single-segment flag: a window descriptor (2^27), then a content size of 3000 and one raw block.
    frame = b"\x28\xb5\x2f\xfd\x40" + bytes([17 << 3]) + struct.pack("<H", 3000 - 256)
    frame += struct.pack("<I", 3000 << 3 | 1)[:3] + ROW
    assert zstandard.ZstdDecompressor().decompress(frame) == ROW
    with pytest.raises(Corrupt, match="plane 0 is a zstd frame with a window of 134217728 bytes"):
        decode(framed(ROW, (2, frame)))
    at_limit = frame[:5] + bytes([13 << 3]) + frame[6:]
    assert decode(framed(ROW, (2, at_limit))) == ROW


def test_a_dictionary_frame_is_refused():
    dictionary = zstandard.ZstdCompressionDict(b"ab" * 600, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    assert dictionary.dict_id() == 0
    frame = b"\x28\xb5\x2f\xfd\x61\x07" + struct.pack("<H", 3000 - 256) + struct.pack("<I", 3000 << 3 | 1)[:3] + ROW
    assert zstandard.get_frame_parameters(frame).dict_id == 7
    with pytest.raises(Corrupt, match="plane 0 is not one whole zstd frame"):
        decode(framed(ROW, (2, frame)))


def test_a_plane_longer_than_its_chunk_body_is_refused():
    data = bytearray(framed(b"abc", (0, b"abc")))
    data[-7:-3] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(Corrupt, match=r"^obj: chunk 0: plane 0 is cut short$"):
        decode(bytes(data))


def test_the_second_plane_is_named():
    with pytest.raises(Corrupt, match=r"^obj: chunk 0: plane 1 holds 2 bytes, 3 expected$"):
        decode(framed(b"abcdef", (0, b"ace"), (0, b"bd"), dtype="U16", words=3))


def test_a_bomb_allocates_next_to_nothing():
    data = framed(ROW, (2, BOMB))
    huge = head(
        json.dumps({"codec": "raw", "dtype": "U8", "shape": [2**48 - 1], "side": False}).replace(" ", "").encode()
    )
    tracemalloc.start()
    try:
        for attempt in (data, huge, huge + bytes(1000)):
            with pytest.raises(Corrupt):
                Encoded.parse(memoryview(attempt), "obj").decode_into(bytearray(3000), None)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_other_encoders_choices_are_valid():
    for planes in (
        [(0, ROW)],
        [(2, zstd(ROW))],
        [(2, zstandard.ZstdCompressor(level=19, write_checksum=True).compress(ROW))],
    ):
        assert decode(framed(ROW, *planes)) == ROW
    assert xxhash.xxh3_64_intdigest(ROW) == struct.unpack_from("<Q", framed(ROW, (0, ROW)), -len(ROW) - 13)[0]
