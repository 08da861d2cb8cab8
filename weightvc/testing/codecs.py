"""Laws of codecs. A package that provides one tests it by subclassing :class:`CodecLaws`.

Example:
    >>> from weightvc.testing.codecs import CodecLaws
    >>> class TestMine(CodecLaws):
    ...     codec = "mine"
"""

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.delta.codec import CHUNK, Level, codec_named
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.pair import Unsuited
from weightvc.delta.values import count_nonfinite, to_float, to_words
from weightvc.objects.tensors import BITS, TensorSpec
from weightvc.util.errors import Corrupt, Unsupported

LEVELS: tuple[Level, ...] = ("fast", "default", "best")

Case = tuple[TensorSpec, bytes, bytes]
"""A tensor's spec, its bytes and the base's."""

_SPECIAL = [0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x80000000, 0, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x3F800000]
"""Bit patterns of F32: quiet and signalling NaN with payloads, zeros, subnormals, infinities, one."""


@st.composite
def small(draw: Callable[..., Any]) -> Case:
    """Draw a tensor of any dtype with up to three small dimensions, and a base that is the same, near or unrelated."""
    dtype = draw(st.sampled_from(sorted(BITS)))
    shape = draw(st.lists(st.integers(0, 9), max_size=3))
    if BITS[dtype] < 8:
        shape.append(4)  # whole bytes
    spec = TensorSpec("t", dtype, tuple(shape))
    base = draw(st.binary(min_size=spec.nbytes, max_size=spec.nbytes))
    near = bytes(byte ^ (at % 7 == 0) for at, byte in enumerate(base))
    other = st.binary(min_size=spec.nbytes, max_size=spec.nbytes)
    return spec, draw(st.one_of(st.just(base), st.just(near), other)), base


def _weights(dtype: str, elements: int, seed: int) -> np.ndarray[Any, Any]:
    numbers = (0.05 * np.random.default_rng(seed).standard_normal(elements)).astype(np.float32)
    if dtype == "BF16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]).view(f"u{BITS[dtype] // 8}")


def _moves(base: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a fine-tune may make of the words of a base, by a name."""
    rng = np.random.default_rng(base.size)
    step = rng.integers(-300, 300, base.size).astype(base.dtype)
    few, rows = base.copy(), base.copy()
    few[:: base.size // 50 + 1] += base.dtype.type(1)
    rows[: base.size // 3] += step[: base.size // 3]
    return {
        "every word": base + step,
        "few words": few,
        "some rows": rows,
        "none": base.copy(),
        "all to zero": np.zeros_like(base),
        "noise": np.frombuffer(rng.bytes(base.nbytes), base.dtype),
    }


class CodecLaws:
    """The laws of :class:`weightvc.delta.codec.Codec`; set :attr:`codec` to the name of one, with its parameter.

    A lossy one is held to :class:`LossyCodecLaws`, which has these too.
    """

    codec: ClassVar[str]

    def roundtrip(self, spec: TensorSpec, target: Any, base: Any, level: Level = "default") -> bytes:
        """Encode, decode, compare, and return the object; nothing for what a lossy codec does not take."""
        kind = codec_named(self.codec)
        try:
            data = b"".join(encode(spec, target, base, self.codec, level))
        except Unsuited:
            assert kind.lossy
            return b""
        encoded = Encoded.parse(memoryview(data), "obj")
        assert (encoded.spec.dtype, encoded.spec.shape) == (spec.dtype, spec.shape)
        assert (encoded.codec, encoded.needs_base) == (self.codec, kind.uses_base)
        out = self.decoded(data, base)
        if kind.lossy:
            assert count_nonfinite(spec.dtype, out) == 0
            rows = (np.frombuffer(part, np.uint8).reshape(spec.shape[0], -1) for part in (out, target, base))
            found, wanted, before = rows
            still = (wanted == before).all(axis=1)
            assert (found[still] == before[still]).all()
        else:
            assert out == bytes(target)
        return data

    @staticmethod
    def decoded(data: bytes, base: Any) -> bytes:
        """Return what an object decodes to, as a whole."""
        encoded = Encoded.parse(memoryview(data), "obj")
        out = bytearray(encoded.spec.nbytes)
        encoded.decode_into(out, base)
        return bytes(out)

    @given(small(), st.sampled_from(LEVELS))
    @settings(max_examples=300, deadline=None)
    def test_every_dtype_and_shape_comes_back(self, case: Case, level: Level) -> None:
        """Empty, 0-d and packed tensors among them."""
        spec, target, base = case
        self.roundtrip(spec, target, base, level)

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
    @pytest.mark.parametrize("shape", [(300, 1000), (CHUNK,), (7, 40, 1001)])
    def test_fine_tunes_come_back(self, dtype: str, shape: tuple[int, ...], level: Level) -> None:
        """Moved everywhere, in a few words, in some rows, nowhere, to zero, to noise."""
        spec = TensorSpec("t", dtype, shape)
        base = _weights(dtype, spec.elements, 1)
        for target in _moves(base).values():
            self.roundtrip(spec, target.tobytes(), base.tobytes(), level)

    @pytest.mark.parametrize("level", LEVELS)
    def test_special_values_keep_every_bit(self, level: Level) -> None:
        """NaN payloads, -0.0, subnormals and infinities, against each other and against weights."""
        patterns = struct.pack("<10I", *_SPECIAL) * 2500
        turned = struct.pack("<10I", *reversed(_SPECIAL)) * 2500
        weights = _weights("F32", 25_000, 2).tobytes()
        subnormal = np.random.default_rng(3).integers(0, 2**23, 25_000, np.uint32).tobytes()
        spec = TensorSpec("t", "F32", (100, 250))
        for target in (patterns, turned, weights, subnormal):
            for base in (patterns, weights, subnormal):
                self.roundtrip(spec, target, base, level)

    @pytest.mark.parametrize("extra", [-1, 0, 1, CHUNK // 8 + 1])
    def test_sizes_around_a_chunk(self, extra: int) -> None:
        """One word less than a chunk, and some more."""
        base = _weights("F32", CHUNK // 4 + extra, 4)
        self.roundtrip(TensorSpec("t", "F32", (base.size,)), (base + np.uint32(3)).tobytes(), base.tobytes())

    @pytest.mark.parametrize("level", LEVELS)
    def test_same_input_same_bytes_in_every_thread_and_inputs_unchanged(self, level: Level) -> None:
        """Whatever scratch room a codec keeps is a thread's own."""
        spec = TensorSpec("t", "BF16", (1000, 700))
        room = bytearray(1 + _weights("BF16", spec.elements, 5).nbytes)
        base = memoryview(room)[1:]  # no alignment
        base[:] = _weights("BF16", spec.elements, 5).tobytes()
        targets = [move.tobytes() for move in _moves(np.frombuffer(base, "<u2")).values()]
        before = bytes(room)
        alone = [self.roundtrip(spec, target, base, level) for target in targets]
        with ThreadPoolExecutor(4) as pool:
            again = list(pool.map(lambda target: self.roundtrip(spec, target, base, level), targets * 3))
        assert again == alone * 3
        assert room == before

    def test_ranges_of_whole_chunks_decode_alike(self) -> None:
        """From any chunk on, in any order."""
        base = _weights("F32", CHUNK, 6)
        target = base + np.uint32(5)
        data = self.roundtrip(TensorSpec("t", "F32", (CHUNK // 256, 256)), target.tobytes(), base.tobytes())
        whole = np.frombuffer(self.decoded(data, base.data), np.uint32)
        encoded = Encoded.parse(memoryview(data), "obj")
        for start in (2, 0, 3, 1):
            words = slice(start * CHUNK // 4, (start + 1) * CHUNK // 4)
            out = np.empty(CHUNK // 4, np.uint32)
            encoded.decode_into(out.data, base[words].data, start * CHUNK)
            assert np.array_equal(out, whole[words])

    @pytest.mark.parametrize("level", LEVELS)
    def test_damage_is_found(self, level: Level) -> None:
        """Every cut and many flipped bits: refused, or of no consequence; never another tensor."""
        base = _weights("F32", 60 * 400, 7)
        for target in _moves(base).values():
            data = self.roundtrip(TensorSpec("t", "F32", (60, 400)), target.tobytes(), base.tobytes(), level)
            if not data:
                continue
            right = self.decoded(data, base.data)
            places = np.random.default_rng(len(data)).integers(0, len(data), 150)
            for at in places:
                flipped = bytearray(data)
                flipped[at] ^= 1 << int(at % 8)
                self._refused_or_right(bytes(flipped), right, base.tobytes())
                with pytest.raises((Corrupt, Unsupported)):
                    Encoded.parse(memoryview(data[:at]), "obj").decode_into(bytearray(target.nbytes), base.data)

    @staticmethod
    def _refused_or_right(data: bytes, right: bytes, base: bytes) -> None:
        out = bytearray(len(right))
        try:
            encoded = Encoded.parse(memoryview(data), "obj")
            if (encoded.spec.dtype, encoded.spec.shape) != ("F32", (60, 400)):
                return  # callers compare with the manifest first
            encoded.decode_into(out, base)
        except (Corrupt, Unsupported):
            return
        assert out == right


class LossyCodecLaws(CodecLaws):
    """The laws of a lossy codec.

    Attributes:
        bound: The largest error on normally distributed changes, relative to their norm.
    """

    bound: ClassVar[float]

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
    def test_a_loss_stays_within_its_bound_and_can_be_coded_again(self, dtype: str, level: Level) -> None:
        """For normally distributed changes, well above the dtype's own rounding."""
        spec = TensorSpec("t", dtype, (600, 500))
        base = _weights(dtype, spec.elements, 8)
        numbers = to_float(dtype, base.data)
        target = np.empty_like(base)
        to_words(dtype, numbers + 0.2 * np.random.default_rng(9).standard_normal(base.size), target)
        data = self.roundtrip(spec, target.tobytes(), base.tobytes(), level)
        assert data
        back = self.decoded(data, base.data)
        wanted = to_float(dtype, target.data)
        lost = np.linalg.norm(to_float(dtype, back) - wanted) / np.linalg.norm(wanted - numbers)
        assert lost <= self.bound
        assert self.roundtrip(spec, back, base.tobytes(), level)

    def test_a_lossy_codec_takes_finite_numbers_only(self) -> None:
        """In the tensor and in its base; and no small tensor, vector or other dtype."""
        spec = TensorSpec("t", "F32", (100, 100))
        base = _weights("F32", spec.elements, 10)
        for bits in (0x7FC00001, 0x7F800000, 0xFF800000):
            odd = base.copy()
            odd[-1] = bits
            for target, before in ((odd, base), (base, odd)):
                with pytest.raises(Unsuited, match="a value is not finite"):
                    encode(spec, target.tobytes(), before.tobytes(), self.codec)
        for dtype, shape in (("F32", (10000,)), ("F32", (50, 50)), ("F64", (50, 100)), ("I32", (100, 100))):
            other = TensorSpec("t", dtype, shape)
            with pytest.raises(Unsuited, match="no large matrix of floating-point numbers"):
                encode(other, base.tobytes()[: other.nbytes], bytes(other.nbytes), self.codec)
