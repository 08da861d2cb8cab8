import json
import math
import struct
import time

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.checkpoint.header import MAX_HEADER, MAX_TENSORS, parse_header, parse_raw
from weightvc.objects.tensors import BITS
from weightvc.util.errors import BadInput

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TWO = {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}
F = b"\0" * 4


def mk(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def one(**changes):
    return {"a": {**ONE, **changes}}


HOSTILE = {
    "empty": (b"", "0 bytes, too short for a safetensors file"),
    "seven bytes": (b"\0" * 7, "7 bytes, too short"),
    "length 2**63": (mk(one(), F, 2**63), f"a header of {2**63} bytes, more than the limit of {MAX_HEADER}"),
    "length beyond the file": (mk(one(), F, 1000), "a header of 1000 bytes in a file of 73"),
    "length 0": (mk(b"", b"{}"), "does not start with '{'"),
    "list": (mk(b"[]"), "does not start with '{'"),
    "leading space": (mk(b' {"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', F), "does not start with '{'"),
    "NUL padding": (mk(json.dumps(one()).encode() + b"\0\0", F), "not valid JSON"),
    "twice": (
        mk(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
            F,
        ),
        "duplicate name 'a'",
    ),
    "inner twice": (
        mk(b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', F),
        "duplicate name 'dtype'",
    ),
    "not UTF-8": (mk(b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', F), "not valid JSON"),
    "surrogate": (mk(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', F), "not valid JSON"),
    "deep": (mk(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "nested": (mk({"a": {"b": ONE}}, F), "tensor 'a' has not exactly the keys dtype, shape and data_offsets"),
    "entry is text": (mk({"a": "b"}, F), "tensor 'a' has not exactly the keys"),
    "unknown key": (mk(one(evil=1), F), "tensor 'a' has not exactly the keys"),
    "unknown dtype": (mk(one(dtype="X99"), F), "dtype 'X99' is unknown"),
    "dtype is a number": (mk(one(dtype=3), F), "a dtype that is not text"),
    "shape is a number": (mk(one(shape=1), F), "a shape that is not a list"),
    "overlap": (mk({"a": ONE, "b": ONE}, F), "tensor 'b' overlaps the one before it"),
    "partial overlap": (mk({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, F * 2), "tensor 'b' overlaps"),
    "hole": (mk({"a": ONE, "b": {**ONE, "data_offsets": [8, 12]}}, F * 3), "tensor 'b' leaves a hole of 4 bytes"),
    "hole at the start": (mk({"b": TWO}, F * 2), "tensor 'b' leaves a hole of 4 bytes"),
    "empty in the middle": (
        mk(
            {"a": {**ONE, "shape": [2], "data_offsets": [0, 8]}, "e": {**ONE, "shape": [0], "data_offsets": [4, 4]}},
            F * 2,
        ),
        "tensor 'e' overlaps",
    ),
    "trailing bytes": (mk(one(), F + b"x"), "1 bytes after the last tensor"),
    "trailing bytes, no tensor": (mk({}, b"xy"), "2 bytes after the last tensor"),
    "short": (mk(one(), b"\0" * 3), "72 bytes where its header needs 73"),
    "begin > end": (mk(one(data_offsets=[4, 0]), F), "begins at 4 and ends at 0"),
    "negative": (mk(one(data_offsets=[-4, 0]), F), "begins at -4 and ends at 0"),
    "three offsets": (mk(one(data_offsets=[0, 4, 8]), F), "data_offsets that are not two integers"),
    "offsets are an object": (mk(one(data_offsets={}), F), "data_offsets that are not two integers"),
    "float offset": (mk(one(data_offsets=[0, 4.0]), F), "data_offsets that are not two integers"),
    "true offset": (mk(one(data_offsets=[False, 4]), F), "data_offsets that are not two integers"),
    "infinite offset": (
        mk(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e400]}}', F),
        "beyond double precision",
    ),
    "5000 digits": (
        mk(b'{"a":{"dtype":"F32","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,4]}}', F),
        "beyond 64 bits",
    ),
    "NaN": (mk(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', F), "NaN is not JSON"),
    "size": (mk(one(dtype="F64"), F), "tensor 'a' has 4 bytes where its dtype and shape need 8"),
    "negative dimension": (mk(one(shape=[-1]), F), "not a non-negative integer"),
    "float dimension": (mk(one(shape=[1.0]), F), "not a non-negative integer"),
    "huge empty": (mk(one(shape=[0, 2**63 - 1], data_offsets=[0, 0])), "not a non-negative integer below 2**48"),
    "overflow": (mk(one(shape=[2**47, 2**47]), F), "more than the limit of"),
    "rank 1000": (mk(one(shape=[1] * 1000), F), "1000 dimensions, more than the limit of 64"),
    "half a byte": (mk(one(dtype="F4", shape=[7], data_offsets=[0, 4]), F), "do not fill whole bytes"),
    "empty name": (mk({"": ONE}, F), "a name has 1 to 1024 bytes"),
    "long name": (mk({"a" * 2**20: ONE}, F), "a name has 1 to 1024 bytes"),
    "control name": (mk({"a\x00\x1b[2J\n": ONE}, F), "no control characters"),
    "metadata numbers": (mk({"__metadata__": {"x": 1}, "a": ONE}, F), "__metadata__ is not an object of strings"),
    "metadata list": (mk({"__metadata__": [], "a": ONE}, F), "__metadata__ is not an object of strings"),
    "metadata tensor": (mk({"__metadata__": ONE}, F), "__metadata__ is not an object of strings"),
    "pickle": (b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01." + b"\0" * 50, "a Python pickle, not safetensors"),
    "zip": (b"PK\x03\x04" + b"\0" * 200, "a zip archive, not safetensors"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n",
        "a git-lfs pointer, not the file itself",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refuses(case):
    data, words = HOSTILE[case]
    with pytest.raises(BadInput) as caught:
        parse_header(memoryview(data), "dir/m.safetensors")
    assert words in caught.value.what
    assert caught.value.what.startswith("dir/m.safetensors: ")
    assert caught.value.hint


def test_hints_name_the_next_step():
    def hint(case):
        with pytest.raises(BadInput) as caught:
            parse_header(memoryview(HOSTILE[case][0]), "m")
        return caught.value.hint

    assert hint("pointer") == "run git lfs pull"
    assert hint("zip") == hint("pickle") == "if PyTorch saved it, rename it to end in .pt"
    assert hint("short") == "download the file again; it is damaged or incomplete"
    assert hint("hole") == "save it again with safetensors.torch.save_file"
    assert hint("unknown dtype") == "upgrade weightvc"


def test_a_hostile_name_is_escaped_in_messages():
    with pytest.raises(BadInput) as caught:
        parse_header(memoryview(mk({"\u202e": {**ONE, "x": 1}}, F)), "m")
    assert r"'\\u202e'" in caught.value.what


def test_accepts_what_the_format_allows(all_dtypes, build):
    all_dtypes |= {
        "s": ("F32", (), F),
        "e": ("F32", (0, 3), b""),
        "../../x": ("U8", (1,), b"\1"),
        "e\u0301": ("U8", (1,), b"\2"),
        "\u00e9": ("U8", (1,), b"\3"),
    }
    data = build(all_dtypes, format="pt")
    header = parse_header(memoryview(data), "m")
    assert header.metadata == {"format": "pt"}
    assert list(header.tensors) == sorted(all_dtypes)
    assert header.raw == data[: 8 + int.from_bytes(data[:8], "little")]
    assert header.size == len(data)
    for name, (dtype, shape, raw) in all_dtypes.items():
        slot = header.tensors[name]
        assert (slot.spec.name, slot.spec.dtype, slot.spec.shape) == (name, dtype, shape)
        assert data[slot.start : slot.end] == raw


def test_padding_and_no_tensors():
    assert parse_header(memoryview(mk(json.dumps(one()).encode() + b"   ", F)), "m").tensors["a"].spec.shape == (1,)
    assert parse_header(memoryview(mk(b"{}")), "m").tensors == {}


@pytest.mark.parametrize("length", [0x80 + 256 * low for low in (2, 3, 4, 5)])
def test_a_length_that_looks_like_a_pickle_is_no_pickle(length):
    text = json.dumps(one()).encode().ljust(length)
    assert parse_header(memoryview(mk(text, F)), "m").size == length + 12


def test_a_prefix_is_enough_with_the_file_size():
    data = mk(one(), F)
    raw = data[:-4]
    assert parse_header(memoryview(raw), "m", file_size=len(data)).tensors["a"].end == len(data)
    with pytest.raises(BadInput, match="1 bytes after the last tensor"):
        parse_header(memoryview(raw), "m", file_size=len(data) + 1)
    with pytest.raises(BadInput, match="69 bytes where its header needs 73"):
        parse_header(memoryview(raw), "m")


def test_a_header_alone():
    raw = mk(one())
    assert parse_raw(raw, "m").size == len(raw) + 4
    with pytest.raises(BadInput, match="m: more bytes than one header"):
        parse_raw(raw + b"x", "m")
    with pytest.raises(BadInput, match="m: a header of"):
        parse_raw(raw[:-1], "m")


def many(count, key=b"data_offsets"):
    entry = b'"t%d":{"dtype":"F32","shape":[0],"' + key + b'":[0,0]}'
    return b"{" + b",".join(entry % i for i in range(count)) + b"}"


def test_too_many_tensors_are_refused_before_they_are_parsed():
    start = time.process_time()
    with pytest.raises(BadInput, match="m: more than 100000 tensors"):
        parse_header(memoryview(mk(many(MAX_TENSORS + 1))), "m")
    assert time.process_time() - start < 0.25
    with pytest.raises(BadInput, match=r"a header of \d+ bytes, more than the limit of"):
        parse_header(memoryview(mk(many(1_000_000))), "m")


def test_too_many_tensors_with_escaped_keys():
    with pytest.raises(BadInput, match="m: more than 100000 tensors"):
        parse_header(memoryview(mk(many(MAX_TENSORS + 1, rb"data_offset\u0073"))), "m")


names = st.text('ab.{[,:"\\\u00e9\u4e2d\u202e\U0001f600', min_size=1, max_size=6)


@st.composite
def files(draw):
    header = draw(st.sampled_from([{}, {"__metadata__": {"format": "pt"}}]))
    end = 0
    for name in draw(st.lists(names, unique=True, max_size=4)):
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = [*draw(st.lists(st.integers(0, 3), max_size=2)), 8]
        size = BITS[dtype] * math.prod(shape[:-1])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode()
    return mk(text, bytes(i % 251 for i in range(end)))


@st.composite
def mutated(draw):
    data = bytearray(draw(files()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["set", "cut", "insert", "drop", "length"]))
        if how == "set":
            data[at] = draw(st.sampled_from(b'{}[]":,0123456789-.eFIU \x80\xff') | st.integers(0, 255))
        elif how == "cut":
            data = data[: at + 1]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=3))
        elif how == "drop" and len(data) > 1:
            del data[at]
        elif len(data) >= 8:
            data[:8] = struct.pack("<Q", max(0, len(data) - 8 - draw(st.integers(0, 9))))
    return bytes(data)


def agrees(data):
    """Parse; if that succeeds, the library reads the same names, dtypes, shapes and bytes."""
    try:
        header = parse_header(memoryview(data), "m")
    except BadInput:
        return False
    theirs = dict(safetensors.deserialize(data))
    assert theirs.keys() == header.tensors.keys()
    for name, slot in header.tensors.items():
        assert (slot.spec.dtype, list(slot.spec.shape)) == (theirs[name]["dtype"], theirs[name]["shape"])
        assert data[slot.start : slot.end] == bytes(theirs[name]["data"])
    return True


@given(files())
@settings(max_examples=50, deadline=None)
def test_every_valid_file_is_accepted(data):
    assert agrees(data)


@given(st.binary(max_size=200) | mutated())
@settings(max_examples=250, deadline=None)
def test_fuzzed_bytes_are_refused_or_mean_what_the_library_reads(data):
    agrees(data)
