"""Lossy codecs: what stays exact, what their scales and codes may be, and how well they do on what they are for."""

import struct

import numpy as np
import pytest

from weightvc.delta import planes, values
from weightvc.delta.codec import CODECS, codec_named
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.lossy import scaled
from weightvc.delta.lossy.grid import Int4
from weightvc.delta.lossy.scaled import Scaled
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt, Unsupported

SPEC = TensorSpec("t", "F32", (500, 400))
SCALED = sorted(name for name, codec in CODECS.items() if issubclass(codec, Scaled))


def back(codec, spec, target, base, level="default"):
    data = b"".join(encode(spec, target.tobytes(), base.tobytes(), codec, level))
    out = np.empty_like(base)
    Encoded.parse(memoryview(data), "obj").decode_into(out.data, base.data)
    return out, len(data)


@pytest.fixture(scope="module")
def base():
    return np.random.default_rng(1).standard_normal(SPEC.shape).astype(np.float32)


@pytest.fixture(scope="module")
def step():
    return 0.01 * np.random.default_rng(2).standard_normal(SPEC.shape).astype(np.float32)


def lost(out, target, base):
    return np.linalg.norm(out.astype(np.float64) - target) / np.linalg.norm(target.astype(np.float64) - base)


@pytest.mark.parametrize("codec", SCALED)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_word_that_did_not_move_is_the_bases(codec, dtype, base, step):
    words = np.empty((2, base.size), np.uint32 if dtype == "F32" else np.uint16)
    moves = step * (np.random.default_rng(3).random(SPEC.shape) < 0.5) * 30
    for numbers, out in zip((base, base + moves), words, strict=True):
        values.to_words(dtype, numbers.reshape(-1).astype(np.float64), out)
    still = words[0] == words[1]
    assert 0.4 < still.mean() < 0.9
    out, _ = back(codec, TensorSpec("t", dtype, SPEC.shape), words[1], words[0])
    assert np.array_equal(out[still], words[0][still])


@pytest.mark.parametrize("codec", [*SCALED, "skillpack", "svd:2"])
def test_minus_zero_and_rows_that_did_not_move_cost_nothing(codec, base, step):
    before = base.copy()
    before[:, ::7] = -0.0
    target = before.copy()
    target[:20] += step[:20]
    out, size = back(codec, SPEC, target, before)
    assert np.array_equal(out[20:].view(np.uint32), before[20:].view(np.uint32))
    assert not np.array_equal(out[:20], before[:20])
    assert size < 10_000 + 1.2 * 20 * 400


@pytest.mark.parametrize("codec", [*SCALED, "skillpack", "svd:2"])
def test_what_would_leave_the_range_of_the_dtype_stays_the_bases(codec):
    most = np.finfo(np.float16).max
    before = np.full((100, 100), most, np.float16)
    target = before.copy()
    target[::2] = most / 2
    target[1::2, ::2] = most / 4
    out, _ = back(codec, TensorSpec("t", "F16", (100, 100)), target, before)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("codec", [*SCALED, "skillpack", "svd:2"])
def test_the_widest_moves_there_are(codec):
    most = np.finfo(np.float32).max
    before = np.full((80, 80), -most, np.float32)
    out, _ = back(codec, TensorSpec("t", "F32", (80, 80)), -before, before)
    assert np.isfinite(out).all()


def test_a_search_beats_one_guess(base, step):
    target = base + step * np.random.default_rng(5).exponential(1, SPEC.shape).astype(np.float32)
    searched, _ = back("int2", SPEC, target, base)
    usual, _ = back("int2", SPEC, target, base, "fast")
    assert lost(searched, target, base) < lost(usual, target, base)


def test_rows_that_hardly_moved_stay_the_bases(base, step):
    moved = step.copy()
    moved[100:] /= 100
    target = base + moved
    out, size = back("int4", SPEC, target, base)
    assert np.array_equal(out[100:], base[100:])
    assert lost(out, target, base) < 0.15
    assert size < 0.5 * 100 * 400


def test_bitdelta_has_the_sign_and_the_mean_magnitude(base, step):
    target = base + step
    out, _ = back("bitdelta", SPEC, target, base)
    moved, kept = target.astype(np.float64) - base, out.astype(np.float64) - base
    assert np.array_equal(np.sign(kept), np.sign(moved))
    assert np.allclose(np.abs(kept).mean(axis=1), np.abs(moved).mean(axis=1), rtol=1e-2)


def test_t_switch_keeps_a_tenth_of_each_sign_and_its_norm(base, step):
    moved = np.where(step > 0, 3 * step, step)
    target = base + moved
    out, _ = back("t-switch", SPEC, target, base)
    moved, kept = target.astype(np.float64) - base, out.astype(np.float64) - base
    for sign in (1, -1):
        chosen = kept * sign > 0
        assert abs(chosen.sum() / (moved * sign > 0).sum() - 0.1) < 0.005
        assert np.abs(moved[chosen]).min() >= np.quantile(np.abs(moved[moved * sign > 0]), 0.89)
    assert np.linalg.norm(moved[kept != 0]) == pytest.approx(np.linalg.norm(kept), rel=1e-2)


@pytest.mark.parametrize("rank", [4, 16, 64])
@pytest.mark.parametrize("kind", ["constant", "grid", "rows"])
def test_svd_gives_back_what_has_a_lower_rank_than_it_keeps(rank, kind):
    rng = np.random.default_rng(rank)
    shape = (200, 130)
    base = np.zeros(shape, np.float32) if kind == "constant" else rng.standard_normal(shape).astype(np.float32)
    step = np.zeros(shape)
    if kind == "constant":
        step[:] = 0.01
    elif kind == "grid":
        step = np.rint(rng.standard_normal((200, 2)) * 4) @ np.rint(rng.standard_normal((2, 130)) * 4) / 16
    else:
        step[::10] = rng.standard_normal(130)
    target = (base + step).astype(np.float32)

    out, _ = back(f"svd:{rank}", TensorSpec("w", "F32", shape), target, base)

    got = np.frombuffer(out, np.float32).reshape(shape)
    assert np.linalg.norm(got - target) < 0.01 * np.linalg.norm(target - base)


@pytest.mark.parametrize("shape", [(500, 400), (500, 8, 50)])
def test_svd_finds_a_merged_low_rank_update(shape, base):
    rng = np.random.default_rng(4)
    moved = 0.01 * rng.standard_normal((500, 4)) @ rng.standard_normal((4, 400))
    target = (base + moved).astype(np.float32)
    spec = TensorSpec("t", "F32", shape)
    out, size = back("svd:4", spec, target.reshape(shape), base.reshape(shape))
    assert lost(out.reshape(base.shape), target, base) < 0.005
    assert size * 100 < spec.nbytes * 2


def test_a_rank_is_part_of_the_name():
    assert codec_named("svd:16").name == "svd:16"
    assert codec_named("svd:16") is codec_named("svd:16")
    for name in ("svd", "svd:0", "svd:129", "svd:016", "svd:", "svd:x", "svd:+1"):
        with pytest.raises(Unsupported, match=r"^codec 'svd:?.*' is unknown$") as caught:
            codec_named(name)
        assert caught.value.hint == "give a rank from 1 to 128, such as svd:16"
    with pytest.raises(Unsupported, match=r"^codec 'svd' is unknown$"):
        codec_named("svd")


def test_a_rank_above_the_matrix_is_its_own(base):
    thin = TensorSpec("t", "F32", (2, 4000))
    before, target = (part.reshape(-1)[:8000].reshape(2, 4000) for part in (base, base + np.float32(1)))
    out, _ = back("svd:64", thin, target, before)
    assert lost(out, target, before) < 0.01


@pytest.mark.parametrize(
    ("scale", "words"), [(0x7F800000, "negative or not"), (0x80000000, "negative or not"), (0x7FC00000, "negative")]
)
def test_scales_are_finite_and_not_negative(scale, words):
    bits = np.full(500, 0x3F800000, np.uint32)
    bits[7] = scale
    with pytest.raises(Corrupt, match=words):
        Int4.parse(SPEC, memoryview(planes.pack_long(bits)))
    with pytest.raises(Corrupt, match="bytes follow the scales"):
        Int4.parse(SPEC, memoryview(planes.pack_long(bits * 0) + b"x"))
    with pytest.raises(Corrupt, match="an array is cut short"):
        Int4.parse(SPEC, memoryview(b""))


@pytest.mark.parametrize("codec", [*SCALED, "skillpack", "svd:4"])
def test_encodings_of_other_tensors_are_refused(codec):
    for dtype, shape in (("F64", (100, 100)), ("F32", (4096,)), ("F32", (10, 10)), ("F32", ()), ("F32", (0, 9))):
        with pytest.raises(Corrupt, match="a lossy encoding of a"):
            codec_named(codec).parse(TensorSpec("t", dtype, shape), memoryview(bytes(99)))
    with pytest.raises(Corrupt, match="low-rank factors of rank 5"):
        codec_named("svd:4").parse(SPEC, memoryview(struct.pack("<Hh", 5, 0) + one_plane(5 * 500) + one_plane(5 * 400)))


def one_plane(count):
    return planes.pack_long(np.full(count, 2**23, np.uint32))


def decoded(coder, body):
    out = np.empty(400, np.uint32)
    coder.decode_chunk(0, memoryview(body), np.zeros(400, np.uint32), out)
    return out


def test_codes_have_one_spelling():
    some = Int4(TensorSpec("t", "F32", (40, 399)), np.ones(40, np.float32))
    good = np.full(200, 7 + 15 * 7, np.uint8)
    assert not decoded(some, planes.pack(good.copy())).any()
    good[3] = 225
    with pytest.raises(Corrupt, match="a code is out of range"):
        decoded(some, planes.pack(good.copy()))
    with pytest.raises(Corrupt, match="plane 0"):
        decoded(some, b"")
    none = Int4(SPEC, np.zeros(500, np.float32))
    assert not decoded(none, b"").any()
    with pytest.raises(Corrupt, match="codes of a chunk in which nothing moved"):
        decoded(none, b"x")
    with pytest.raises(Corrupt, match="codes follow the last one"):
        scaled.numbers(np.array([7, 0], np.uint8), 3, 7)
    with pytest.raises(Corrupt, match="a chunk of low-rank factors is empty"):
        codec_named("svd:1").parse(
            SPEC, memoryview(struct.pack("<Hh", 1, 0) + one_plane(500) + one_plane(400))
        ).decode_chunk(0, memoryview(b"x"), np.zeros(9, np.uint32), np.empty(9, np.uint32))


@pytest.mark.parametrize("bits", [16, 24])
def test_scales_are_rounded_and_stay_finite(bits):
    numbers = np.array([0.0, 1.0, 1 / 3, 1e-30, 1e300, 3.4028234663852886e38])
    found = scaled.kept(numbers, bits)
    assert np.isfinite(found).all()
    assert not (found.view(np.uint32) % (1 << (32 - bits))).any()
    assert np.allclose(found[:4], numbers[:4], rtol=2.0 ** -(bits - 8), atol=0)


def test_codes_of_nothing_are_decoded_against_nothing():
    coder = codec_named("int4").parse(
        TensorSpec("t", "F32", (64, 64)), memoryview(planes.pack_long(np.zeros(64, "<u4")))
    )
    with pytest.raises(ValueError, match="a task vector is from a base"):
        coder.decode_chunk(0, memoryview(b""), None, np.zeros(4096, "<u4"))
