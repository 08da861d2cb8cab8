"""What the predictors find, what they leave alone, and side frames that lie."""

import struct

import numpy as np
import pytest

from weightvc.delta import container, decay, lowrank, planes, values
from weightvc.delta.codec import CHUNK
from weightvc.delta.container import Kind
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.intdelta import CHANGED, PLANES, IntDelta
from weightvc.delta.pair import Pair
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

RNG = np.random.default_rng(11)


def bits(dtype, numbers):
    out = np.empty(numbers.size, "<u4" if dtype == "F32" else "<u2")
    values.to_words(dtype, np.asarray(numbers, np.float64).reshape(-1), out)
    return out


def merged(dtype, rows, columns, rank):
    """A base, and the base with a LoRA update merged in."""
    base = bits(dtype, 0.05 * RNG.standard_normal(rows * columns))
    update = 0.01 * RNG.standard_normal((rows, rank)) @ (0.3 * RNG.standard_normal((rank, columns)))
    tuned = bits(dtype, values.to_float(dtype, base.data) + update.reshape(-1))
    return TensorSpec("t", dtype, (rows, columns)), tuned, base


def pack(spec, tuned, base, level="default"):
    data = b"".join(encode(spec, tuned.data, base.data, "intdelta", level))
    out = np.empty_like(tuned)
    Encoded.parse(memoryview(data), "obj").decode_into(out.data, base.data)
    assert np.array_equal(out, tuned)
    return data


def fitted(spec, tuned, base, level="default"):
    return IntDelta.fit(Pair(spec, tuned.data, base.data), level).predictor


@pytest.mark.parametrize(("dtype", "share"), [("F32", 0.25), ("F16", 0.5), ("BF16", 0.6)])
@pytest.mark.parametrize("shape", [(700, 300), (300, 1100), (130, 9000)])
def test_a_merged_update_is_found_again(dtype, share, shape):
    spec, tuned, base = merged(dtype, *shape, 4)
    found = fitted(spec, tuned, base)
    assert isinstance(found, lowrank.LowRank)
    assert found.right.shape == (4, shape[1])
    assert np.array_equal(found.left, np.rint(found.left))
    assert len(pack(spec, tuned, base)) < share * len(pack(spec, tuned, base, "fast"))


def test_a_higher_rank_is_found_by_the_best_level_alone():
    case = merged("F32", 600, 600, 40)
    assert fitted(*case) is None
    assert fitted(*case, "best").right.shape[0] >= 40


def test_a_rank_just_too_high_is_left_to_the_best_level():
    case = merged("F32", 600, 600, 26)
    assert fitted(*case) is None
    assert fitted(*case, "best").right.shape[0] >= 26


def test_an_update_of_a_few_units_in_the_last_place_is_left_alone():
    spec, _, base = merged("F32", 300, 300, 1)
    base = bits("F32", 1 + RNG.random(base.size))
    update = 2.0**-23 * RNG.standard_normal((300, 1)) @ RNG.standard_normal((1, 300))
    tuned = bits("F32", values.to_float("F32", base.data) + update.reshape(-1))
    assert fitted(spec, tuned, base) is None


def test_what_is_no_low_rank_update_is_left_alone():
    spec, _, base = merged("F32", 300, 300, 1)
    start = values.to_float("F32", base.data)
    noise = bits("F32", start + 1e-3 * RNG.standard_normal(start.size))
    rows = base.copy()
    rows[:6000] += np.uint32(77)
    rounding = base + RNG.integers(0, 2, base.size).astype(np.uint32)
    for tuned in (noise, rows, rounding, base):
        assert fitted(spec, tuned, base) is None
    nan = base.copy()
    nan[5] = 0x7FC00000
    assert fitted(spec, nan, base) is None
    _, tuned, other = merged("F32", 300, 300, 4)
    assert fitted(TensorSpec("t", "F32", (90_000,)), tuned, other) is None
    assert fitted(TensorSpec("t", "F32", (60, 1500)), tuned, other) is None
    spec, tuned, base = merged("F32", 64, 140_000, 2)  # no chunk has a whole row
    assert fitted(spec, tuned, base) is None


def test_nan_and_infinities_of_the_base_do_not_spoil_the_rest():
    spec, tuned, base = merged("F32", 700, 300, 4)
    for at, word in ((150_000, 0x7FC00001), (150_001, 0x7F800000), (150_002, 0xFF800000)):
        base[at] = tuned[at] = word
    assert isinstance(fitted(spec, tuned, base), lowrank.LowRank)
    pack(spec, tuned, base)


def test_factors_longer_than_a_chunk_come_back():
    wide = TensorSpec("t", "F32", (70_000, 64))
    left = RNG.integers(-(2**23), 2**23 + 1, (70_000, 3)).astype(np.float64)
    right = RNG.integers(-(2**23), 2**23 + 1, (3, 64)).astype(np.float64)
    made = lowrank.LowRank("F32", left, right, 40, CHUNK // 4)
    again = lowrank.LowRank.parse(wide, memoryview(made.to_bytes()))
    assert np.array_equal(again.left, left)
    assert np.array_equal(again.right, right)
    assert again.shift == 40


def test_the_prediction_is_exact_integer_arithmetic():
    left = RNG.integers(-(2**23), 2**23 + 1, (300, 128)).astype(np.float64)
    right = RNG.integers(-(2**23), 2**23 + 1, (128, 500)).astype(np.float64)
    base = bits("F32", RNG.standard_normal(150_000))
    guess = lowrank.LowRank("F32", left, right, 52, CHUNK // 4)
    out = np.empty(CHUNK // 4, "<u4")
    guess.predict(0, base[: out.size], out)
    for at in (0, 1, 777, out.size - 1):
        i, j = divmod(at, 500)
        exact = sum(int(a) * int(b) for a, b in zip(left[i], right[:, j], strict=True))
        value = np.float32(float(values.to_float("F32", base[at : at + 1].data)[0]) + exact * 2.0**-52)
        assert out[at] == value.view(np.uint32)
    rest = np.empty(base.size - out.size, "<u4")
    guess.predict(1, base[out.size :], rest)
    i, j = divmod(out.size, 500)
    exact = sum(int(a) * int(b) for a, b in zip(left[i], right[:, j], strict=True))
    first = np.float32(float(values.to_float("F32", base[out.size : out.size + 1].data)[0]) + exact * 2.0**-52)
    assert rest[0] == first.view(np.uint32)


def decayed(elements, steps=300):
    base = bits("F32", 0.05 * RNG.standard_normal(elements))
    tuned = base.view(np.float32).copy()
    for _ in range(steps):
        tuned *= np.float32(1 - 2e-7)
    return base, tuned.view(np.uint32)


def test_a_predictor_that_saves_less_than_a_tenth_is_left_out():
    base, tuned = decayed(200_000, steps=3)
    noise = RNG.integers(-(2**20), 2**20, base.size).astype(np.uint32)
    tuned = tuned + np.where(np.arange(base.size) % 20 < 5, np.uint32(0), noise)
    spec = TensorSpec("t", "F32", (200_000,))
    assert decay.fit(Pair(spec, tuned.data, base.data), 0)
    assert fitted(spec, tuned, base) is None


def test_weights_that_only_decayed_take_next_to_nothing():
    base, tuned = decayed(200_000)
    spec = TensorSpec("t", "F32", (200_000,))
    assert isinstance(fitted(spec, tuned, base), decay.Decay)
    assert len(pack(spec, tuned, base)) < 0.03 * tuned.nbytes < 0.4 * len(pack(spec, tuned, base, "fast"))


def test_decay_is_looked_for_in_the_middle_of_large_tensors():
    base, tuned = decayed(9 * CHUNK // 4)
    tuned[: CHUNK // 4] += RNG.integers(0, 2**20, CHUNK // 4).astype(np.uint32)
    assert isinstance(fitted(TensorSpec("t", "F32", (base.size,)), tuned, base), decay.Decay)


def test_what_did_not_decay_gets_no_table():
    base, tuned = decayed(50_000)
    spec = TensorSpec("t", "F32", (50_000,))
    moved = tuned + RNG.integers(-5000, 5000, base.size).astype(np.uint32)
    half = np.where(RNG.random(base.size) < 0.1, tuned, moved)
    for other in (base, moved, half):
        assert fitted(spec, other, base) is None
    assert fitted(TensorSpec("t", "I32", (50_000,)), tuned, base) is None
    assert fitted(TensorSpec("t", "F32", (5_000,)), tuned[:5000], base[:5000]) is None


def side(body, dtype="F32", shape=(20, 30)):
    header = {"codec": "intdelta", "dtype": dtype, "shape": list(shape), "side": True}
    rows = np.zeros(shape, "<u4" if dtype == "F32" else "<u2").reshape(-1)
    frames = list(encode(TensorSpec("t", dtype, shape), rows.data, rows.data))[1:]
    return container.head(Kind.TENSOR, header) + container.frame(body, body) + b"".join(frames)


ONE = planes.pack_long(np.full(20, 2**23, np.uint32))
TWO = planes.pack_long(np.full(30, 2**23, np.uint32))


@pytest.mark.parametrize(
    ("body", "dtype", "shape", "words"),
    [
        (b"\x07", "F32", (20, 30), "a predictor of the unknown kind 7"),
        (b"\x01", "F32", (20, 30), "plane 0 is cut short"),
        (b"\x01", "BF16", (20, 30), "no table of decay is for BF16"),
        (b"\x02\x01\x00", "F32", (20, 30), "no low-rank factors of a F32 tensor of 2 dimensions"),
        (b"\x02\x01\x00\x00\x00", "F32", (600,), "no low-rank factors of a F32 tensor of 1 dimensions"),
        (b"\x02\x01\x00\x00\x00", "F32", (1, 2**18 + 1), "no low-rank factors of a F32 tensor of 2 dimensions"),
        (b"\x02\x00\x00\x00\x00", "F32", (20, 30), "low-rank factors of rank 0"),
        (b"\x02\x15\x00\x00\x00", "F32", (20, 30), "low-rank factors of rank 21"),
        (b"\x02\x01\x00\x00\x00", "F32", (20, 30), "an array is cut short"),
        (b"\x02\x01\x00\x00\x00" + ONE[:-1], "F32", (20, 30), "an array is cut short"),
        (b"\x02\x01\x00\x00\x00" + ONE + TWO + b"x", "F32", (20, 30), "bytes follow the low-rank factors"),
        (
            b"\x02\x01\x00\x00\x00" + ONE + planes.pack_long(np.full(30, 2**24 + 1, np.uint32)),
            "F32", (20, 30), "low-rank factors are out of range",
        ),
    ],
)  # fmt: skip
def test_side_frames_that_lie(body, dtype, shape, words):
    encoded = Encoded.parse(memoryview(side(body, dtype, shape)), "obj")
    out = bytearray(encoded.spec.nbytes)
    with pytest.raises(Corrupt, match=f"^obj: {words}"):
        encoded.decode_into(out, bytes(len(out)))


def test_a_side_frame_is_checked_and_not_empty():
    good = b"\x02\x01\x00\x00\x00" + ONE + TWO
    Encoded.parse(memoryview(side(good)), "obj").decode_into(bytearray(2400), bytes(2400))
    broken = side(good).replace(good, good[:-1] + b"\xff")
    for data in (broken, side(b"")):
        with pytest.raises(Corrupt, match=r"^obj: what stands beside the chunks does not match its checksum"):
            Encoded.parse(memoryview(data), "obj")


@pytest.mark.parametrize("codec", ["raw", "full"])
def test_codecs_without_anything_to_keep_refuse_a_side_frame(codec):
    header = {"codec": codec, "dtype": "U8", "shape": [0], "side": True}
    encoded = Encoded.parse(memoryview(container.head(Kind.TENSOR, header) + container.frame(b"x", b"x")), "obj")
    encoded.decode_into(b"", None)  # nothing to decode, nothing to ask for
    header["shape"] = [1]
    data = container.head(Kind.TENSOR, header) + container.frame(b"x", b"x") + container.frame(b"y", b"y")
    with pytest.raises(Corrupt, match=f"^obj: codec {codec} keeps nothing beside its chunks"):
        Encoded.parse(memoryview(data), "obj").decode_into(bytearray(1), None)


@pytest.mark.parametrize(
    ("dtype", "every", "kind"),
    [("F32", 3, CHANGED), ("BF16", 3, PLANES), ("BF16", 40, CHANGED), ("U8", 3, PLANES), ("F32", 1, PLANES)],
)
def test_scattered_words_are_picked_out_where_that_is_faster(dtype, every, kind):
    spec = TensorSpec("t", dtype, (6000,))
    base = RNG.integers(0, 256, spec.nbytes, np.uint8).view(f"<u{spec.itemsize}")
    assert chunk_kind(spec, base + (np.arange(base.size) % every == 0).astype(base.dtype), base) == kind


@pytest.mark.parametrize("dtype", ["F32", "BF16", "U8"])
def test_words_in_runs_are_picked_out(dtype):
    spec = TensorSpec("t", dtype, (6000,))
    base = RNG.integers(0, 256, spec.nbytes, np.uint8).view(f"<u{spec.itemsize}")
    assert chunk_kind(spec, base + (np.arange(base.size) // 300 % 3 == 0).astype(base.dtype), base) == CHANGED


def chunk_kind(spec, target, base):
    """How the only chunk of a tensor is coded, after it has come back."""
    codec = IntDelta(spec.dtype)
    body = codec.encode_chunk(0, target, base)
    out = np.empty_like(target)
    codec.decode_chunk(0, memoryview(body), base, out)
    assert np.array_equal(out, target)
    return body[0]


def chunk(body):
    spec = TensorSpec("t", "U16", (9,))
    header = {"codec": "intdelta", "dtype": "U16", "shape": [9], "side": False}
    data = container.head(Kind.TENSOR, header) + container.frame(body, bytes(18))
    out = bytearray(spec.nbytes)
    Encoded.parse(memoryview(data), "obj").decode_into(out, bytes(18))


MAP = planes.pack(np.array([1, 0], np.uint8))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the chunk is coded in the unknown way None"),
        (b"\x09", "the chunk is coded in the unknown way 9"),
        (b"\x01\x00", "the map of changed words is cut short"),
        (b"\x01" + struct.pack("<I", 99), "plane 0 is cut short"),
        (b"\x01" + struct.pack("<I", len(MAP)) + MAP, "plane 0 is cut short"),
        (
            b"\x01" + struct.pack("<I", 6) + planes.pack(np.zeros(2, np.uint8)),
            "the map of changed words is empty",
        ),
        (
            b"\x01" + struct.pack("<I", len(MAP)) + planes.pack(np.array([1, 2], np.uint8)),
            "the map of changed words is longer than the chunk",
        ),
    ],
)  # fmt: skip
def test_chunks_that_lie(body, words):
    with pytest.raises(Corrupt, match=f"^obj: chunk 0: {words}"):
        chunk(body)


def test_a_pair_without_a_base_has_none():
    pair = Pair(TensorSpec("t", "U8", (3,)), b"abc", None)
    with pytest.raises(ValueError, match="this tensor has no base"):
        pair.base(0)
    with pytest.raises(ValueError, match="an integer difference is from a base"):
        IntDelta("U8").encode_chunk(0, pair.target(0), None)
