"""Codec skillpack: bits by strength, rows that did not move, one spelling of the same, and hostile bytes."""

import struct

import numpy as np
import pytest

from weightvc.delta import lowrank, planes
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.lossy import skillpack
from weightvc.delta.lossy.skillpack import SkillPack
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt

SPEC = TensorSpec("t", "F32", (300, 200))


@pytest.fixture(scope="module")
def base():
    return np.random.default_rng(1).standard_normal(SPEC.shape).astype(np.float32)


def vectors(seed, *shape):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal(shape))[0]


def update(strengths):
    """A task vector with these singular values."""
    return (vectors(2, 300, len(strengths)) * strengths) @ vectors(3, 200, len(strengths)).T


def coded(base, moved, level="default"):
    target = (base + moved).astype(np.float32)
    data = b"".join(encode(SPEC, target.tobytes(), base.tobytes(), "skillpack", level))
    encoded = Encoded.parse(memoryview(data), "obj")
    out = np.empty_like(base)
    encoded.decode_into(out.data, base.data)
    lost = np.linalg.norm(out.astype(np.float64) - target) / np.linalg.norm(target.astype(np.float64) - base)
    return lost, len(data), struct.unpack_from("<h4H", encoded._side)[1:]


def test_stronger_directions_get_more_bits(base):
    squares = np.array([150.0] * 1 + [15.0] * 2 + [4.0] * 3 + [1.5] * 4 + [0.01] * 190)
    strengths = np.sqrt(squares * 200 / squares.sum())
    lost, _, counts = coded(base, 0.05 * update(strengths))
    mean = squares.sum() / 200
    bands = [int(((squares / mean >= least) & (squares / mean < most)).sum()) for least, most in
             ((64, np.inf), (8, 64), (2.5, 8), (1, 2.5))]  # fmt: skip
    assert list(counts) == bands
    assert lost < 0.25


def test_a_merged_low_rank_update_comes_back_within_a_hundredth(base):
    lost, size, counts = coded(base, 0.05 * update([5.0, 4.0]))
    assert counts == (2, 0, 0, 0)
    assert lost < 0.012
    assert size < 1300


def test_a_closer_look_is_no_worse(base):
    moved = 0.05 * update(np.linspace(3, 0.01, 200))
    found = [coded(base, moved, level)[0] for level in ("fast", "default", "best")]
    assert sorted(found, reverse=True) == found


def test_rows_that_did_not_move_cost_a_bit_each(base):
    moved = 0.05 * update(np.linspace(3, 0.01, 200))
    whole = coded(base, moved)[1]
    few = moved.copy()
    few[30:] = 0
    assert coded(base, few)[1] < 0.7 * whole


def test_nothing_that_moved_is_nothing_stored(base):
    data = b"".join(encode(SPEC, base.tobytes(), base.tobytes(), "skillpack"))
    encoded = Encoded.parse(memoryview(data), "obj")
    out = np.empty_like(base)
    encoded.decode_into(out.data, base.data)
    assert np.array_equal(out, base)
    assert len(data) < 150


def test_no_more_vectors_than_there_may_be(base, monkeypatch):
    monkeypatch.setattr(skillpack, "MAX_RANK", 3)
    assert sum(coded(base, 0.05 * update([1.0] * 10))[2]) == 3


def test_the_sign_of_a_pair_of_vectors_does_not_matter(base, monkeypatch):
    def bytes_of():
        target = base + 0.05 * update([3.0, 2.0, 1.0])
        return b"".join(encode(SPEC, target.astype(np.float32).tobytes(), base.tobytes(), "skillpack"))

    before, factors = bytes_of(), lowrank.factors

    def turned(*arguments):
        left, right = factors(*arguments)
        left[:, 1::2] *= -1
        right[1::2] *= -1
        return left, right

    monkeypatch.setattr(lowrank, "factors", turned)
    assert bytes_of() == before


def side(counts=(0, 0, 0, 1), weights=(5,), marks=None, left=b"", right=b""):
    """One vector of each kind that counts, of nothing but zeros unless other codes are given."""
    marks = np.ones(300, np.uint8) if marks is None else marks
    zeros = [planes.pack_long(np.full(size, 121, np.uint8)) for size in (60, 40)]
    head = struct.pack("<h4H", 3, *counts) + planes.pack_long(np.array(weights, np.uint32))
    return head + planes.pack_long(marks) + (left or zeros[0]) + (right or zeros[1])


def test_what_it_writes_itself_is_read():
    found = SkillPack.parse(SPEC, memoryview(side()))
    assert not found.factors.step(0, 60000).any()
    right = planes.pack_long(np.full(40, 242, np.uint8))
    left = planes.pack_long(np.full(60, 242, np.uint8))
    found = SkillPack.parse(SPEC, memoryview(side(left=left, right=right)))
    assert (found.factors.step(0, 60000) == 5 / 8).all()
    assert found.side == side(left=left, right=right)


ODD = np.ones(300, np.uint8)
ODD[7] = 2
HOSTILE = {
    "short": (side()[:9], "singular vectors are cut short"),
    "nothing": (b"", "singular vectors are cut short"),
    "too many": (side(counts=(0, 0, 0, 201)), "201 singular vectors"),
    "far too many": (side(counts=(65535, 65535, 65535, 65535)), "262140 singular vectors"),
    "heavy": (side(weights=(2**20 + 1,)), "a scale or a row's mark is out of range"),
    "odd mark": (side(marks=ODD), "a scale or a row's mark is out of range"),
    "cut": (side()[:-1], "an array is cut short"),
    "more": (side() + b"x", "bytes follow the singular vectors"),
    "codes": (side(left=planes.pack_long(np.full(60, 243, np.uint8))), "a code is out of range"),
    "codes after the last": (
        side(counts=(0, 0, 1, 0), left=planes.pack_long(np.full(150, 24, np.uint8)),
             right=planes.pack_long(np.full(100, 49, np.uint8))),
        "a code is out of range",
    ),
    "fewer vectors": (side(counts=(0, 0, 0, 0), weights=()), "bytes follow the singular vectors"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused(data, words):
    with pytest.raises(Corrupt, match=words):
        SkillPack.parse(SPEC, memoryview(data))


def test_rows_too_wide_for_factors_are_refused():
    wide = TensorSpec("t", "F32", (2, lowrank.MAX_WIDTH + 1))
    with pytest.raises(Corrupt, match="rows of 262145"):
        SkillPack.parse(wide, memoryview(struct.pack("<h4H", 0, 0, 0, 0, 0)))


def test_chunks_are_empty():
    found = SkillPack.parse(SPEC, memoryview(side()))
    zeros = np.zeros(9, np.uint32)
    with pytest.raises(Corrupt, match="a chunk of singular vectors is empty"):
        found.decode_chunk(0, memoryview(b"x"), zeros, zeros.copy())
    with pytest.raises(Corrupt, match="a chunk of singular vectors is empty"):
        found.decode_chunk(0, memoryview(b""), None, zeros)
