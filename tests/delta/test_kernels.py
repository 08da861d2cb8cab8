"""The compiled loops and those in NumPy do the same, and neither reaches beyond an array."""

import importlib
import math
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.delta import kernels
from weightvc.delta.codec import CODECS
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.kernels import portable
from weightvc.objects.tensors import TensorSpec
from weightvc.testing.codecs import CodecLaws

try:
    from weightvc.delta.kernels import compiled
except ImportError:
    if shutil.which("cc"):
        raise
    pytest.skip("weightvc was installed without a C compiler", allow_module_level=True)

COSTS = np.array([0, *(round(c * math.log2(c) * 2**16) for c in range(1, 4097))], np.int64)
SIZES = st.sampled_from([1, 2, 7, 8, 9, 63, 255, 2047, 2048, 2049, 5000])
WIDTHS = st.sampled_from([1, 2, 4, 8])


def draw_words(data, size, width, *, zeros=0.0):
    """Return random words at an address that no word may stand at."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    raw = bytearray(1) + bytearray(rng.bytes(size * width))
    words = np.frombuffer(memoryview(raw)[1:], f"<u{width}")
    words[rng.random(size) < zeros] = 0
    return words


def both(call):
    """Call with each kind of loops and return both results."""
    return call(compiled), call(portable)


def same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


@given(st.data(), SIZES, WIDTHS)
def test_differences(data, size, width):
    target, zeros = draw_words(data, size, width), data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    guess = np.where(draw_words(data, size, width, zeros=zeros) == 0, target, draw_words(data, size, width))

    def call(loops):
        out = np.zeros_like(target)
        return [loops.difference(target, guess, out), out]

    one, other = both(call)
    same(one, other)
    np.testing.assert_array_equal(one[1] + guess, target)
    assert one[0] == np.count_nonzero(target != guess)


@given(st.data(), SIZES, WIDTHS)
def test_words_become_planes_and_planes_words(data, size, width):
    words, base = draw_words(data, size, width), draw_words(data, size, width)
    bias = data.draw(st.integers(0, 2 ** (8 * width) - 1))

    def split(loops):
        planes = np.zeros((width, size), np.uint8)
        return [loops.split(words.copy(), bias, planes, COSTS), planes]

    found, expected = both(split)
    same(found, expected)
    spreads, one = found
    assert [spread for spread, _ in spreads] == [int(plane.max()) - int(plane.min()) for plane in one]
    np.testing.assert_array_equal(one.T.tobytes(), (words + words.dtype.type(bias)).tobytes())

    constant = data.draw(st.sets(st.integers(0, width - 1)))
    parts = tuple(plane[:1] if k in constant else plane for k, plane in enumerate(one))
    for beside in (None, base):

        def merge(loops, beside=beside):
            out = np.zeros_like(words)
            loops.merge(parts, out, -bias % 2 ** (8 * width), beside)
            return [out]

        same(*both(merge))
        if not constant and beside is None:
            np.testing.assert_array_equal(merge(compiled)[0], words)


@given(st.data(), st.sampled_from([16383, 16384, 20001]), st.integers(0, 8))
def test_samples(data, size, shift):
    plane = draw_words(data, size, 1) >> shift

    def call(loops):
        return [loops.split(plane.copy(), 0, np.zeros((1, size), np.uint8), COSTS)]

    (one,), _ = found = both(call)
    same(*found)
    assert bool(one[0][1]) == (size >= 16384)


@given(st.data(), SIZES, WIDTHS, st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_changed_words_are_taken_out_and_put_back(data, size, width, zeros):
    words = draw_words(data, size, width, zeros=zeros)
    if data.draw(st.booleans()):
        words[: size // 2] = 0  # in runs
    bias = data.draw(st.integers(0, 2 ** (8 * width) - 1))

    def call(loops):
        which = np.full(-(-size // 8), 0xAA, np.uint8)
        loops.mark(words, which)
        changed = np.zeros(loops.count(which), words.dtype)
        loops.gather(which, words, bias, changed)
        out = np.zeros_like(words)
        loops.scatter(which, changed - words.dtype.type(bias), out)
        return [which, changed, out]

    one, other = both(call)
    same(one, other)
    np.testing.assert_array_equal(one[2], words)


@given(st.data(), SIZES, WIDTHS)
def test_turns(data, size, width):
    words, left = draw_words(data, size, width), data.draw(st.integers(1, 8 * width - 1))

    def call(loops):
        out, back = np.zeros_like(words), np.zeros_like(words)
        loops.turn(words, left, out)
        loops.turn(out, 8 * width - left, back)
        return [out, back]

    one, other = both(call)
    same(one, other)
    np.testing.assert_array_equal(one[1], words)


@given(st.data(), SIZES, st.integers(0, 24))
def test_tables(data, size, down):
    base, table = draw_words(data, size, 4), draw_words(data, 256, 4)

    def call(loops):
        out = np.zeros_like(base)
        loops.shifted(base, table, down, out)
        return [out]

    same(*both(call))


W2, W4, B = np.zeros(16, np.uint16), np.zeros(16, np.uint32), np.zeros(16, np.uint8)
REFUSED = {
    "difference": [(W2, W4, W2), (W4, W4[:8], W4), (W4, W4, W4[:8])],
    "split": [
        (W2, 0, np.zeros((2, 8), np.uint8), COSTS),
        (W2, 0, np.zeros((2, 16), np.uint16), COSTS),
        (W2[:0], 0, np.zeros((2, 0), np.uint8), COSTS),
        (B, 0, np.zeros((1, 16), np.uint8), COSTS[:-1]),
    ],
    "merge": [((B,), W2, 0, None), ((B, B[:2]), W2, 0, None), ((B, W2), W2, 0, None), ((B, B), W2, 0, W4)],
    "mark": [(W2, B[:1]), (W2, np.zeros(2, np.uint16))],
    "gather": [(B[:2], W2, 0, W2[:1]), (B[:1], W2, 0, W2[:0]), (B[:2], W2, 0, W4[:0])],
    "scatter": [(B[:2], W2[:1], W2), (np.array([0, 255], np.uint8), W2[:8], W2[:9]), (B[:2], W4[:0], W2)],
    "turn": [(W2, 1, W4), (W2, 0, W2), (W2, 16, W2)],
    "shifted": [(W4, W4, 0, W4), (W2, np.zeros(256, np.uint32), 0, W4), (W4, np.zeros(256, np.uint32), 25, W4)],
}


@pytest.mark.parametrize(("name", "arguments"), [(name, case) for name, cases in REFUSED.items() for case in cases])
def test_compiled_loops_refuse_arrays_of_other_sizes(name, arguments):
    with pytest.raises(ValueError, match=r"size|table|bytes|map"):
        getattr(compiled, name)(*arguments)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_compiled_loops_refuse_what_is_no_array_and_what_may_not_be_written(name):
    loop = getattr(compiled, name)
    with pytest.raises(TypeError):
        loop(*[None] * len(REFUSED[name][0]))
    with pytest.raises(TypeError):
        loop()
    frozen = W4.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        compiled.difference(W4, W4, frozen)
    with pytest.raises(ValueError, match="contiguous"):
        compiled.difference(W4[::2], W4[::2], W4[:8])


@pytest.mark.parametrize("dtype", [object, ">u8", "f8", "?", "V8"])
def test_arrays_of_anything_but_integers_are_refused(dtype):
    strange = np.zeros(16, dtype)
    with pytest.raises(ValueError, match="something else than little-endian integers"):
        compiled.count(strange)
    with pytest.raises(ValueError, match="something else than little-endian integers"):
        compiled.merge((B,) * strange.itemsize, strange, 0, None)


def test_a_map_that_changes_meanwhile_leads_nowhere_else():
    room = np.zeros(4096 + 64, np.uint8)
    which = room[:4096]
    which[0] = 255
    compiled.gather(which, np.full(4096 * 8, 255, np.uint8), 0, which[-8:])  # writes into the map that it reads
    assert not room[4096:].any()
    inside = np.zeros(4096 * 8, np.uint8)
    inside[1] = 255
    compiled.scatter(inside[:4096], np.full(8, 255, np.uint8), inside)
    assert not inside[4096:].any()


def test_maps_that_do_not_fit_are_refused_by_numpy_too():
    for which, changed, out in REFUSED["scatter"][:2]:
        with pytest.raises(ValueError, match="map of another size"):
            portable.scatter(which, changed, out)


def test_every_loop_has_both_kinds():
    loops = {name for name in dir(compiled) if not name.startswith("_")}
    assert loops == set(REFUSED) | {"count"}
    assert all(callable(getattr(portable, name)) for name in loops)


def test_numpy_stands_in_for_the_compiled_loops(monkeypatch):
    assert kernels.loops is compiled
    with monkeypatch.context() as patch:
        patch.delattr(kernels, "compiled")
        patch.setitem(sys.modules, "weightvc.delta.kernels.compiled", None)
        assert importlib.reload(kernels).loops is portable
    assert importlib.reload(kernels).loops is compiled


class TestPortable(CodecLaws):
    """The lossless codecs keep their laws without a compiler."""

    @pytest.fixture(autouse=True, params=["full", "intdelta"])
    def _codec(self, request, monkeypatch):
        monkeypatch.setattr(kernels, "loops", portable)
        type(self).codec = request.param


@settings(max_examples=30)
@given(st.data(), st.sampled_from(["F32", "BF16", "F64", "I8"]), st.sampled_from([0.0, 0.6, 0.97]))
def test_objects_are_the_same_bytes(data, dtype, zeros):
    spec = TensorSpec("w", dtype, (300, 500))
    width = spec.itemsize
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    base = rng.standard_normal(spec.elements).astype(np.float64).view(np.uint8)[: spec.nbytes].view(f"<u{width}")
    moved = rng.integers(-90, 90, spec.elements)
    moved[rng.random(spec.elements) < zeros] = 0
    tuned = base + moved.astype(f"<i{width}").view(base.dtype)
    made = []
    for loops in (compiled, portable):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "loops", loops)
            for codec in sorted(name for name in CODECS if not CODECS[name].lossy):
                stored = b"".join(encode(spec, tuned, base, codec))
                back = bytearray(spec.nbytes)
                Encoded.parse(memoryview(stored), "object").decode_into(back, base)
                assert back == tuned.tobytes()
                made.append(stored)
    half = len(made) // 2
    assert made[:half] == made[half:]
