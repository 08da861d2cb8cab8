"""Raw bytes as numbers, checked against other implementations and the formats' own definitions."""

import math
import struct

import numpy as np
import pytest
import torch

from weightvc.delta.values import count_bad_bools, count_nonfinite, to_float
from weightvc.objects.tensors import BITS, MERGED

TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def every_pattern(dtype):
    """All patterns of 8 and 16 bits; for wider ones, all upper 16 bits with four kinds of lower bits."""
    width = BITS[dtype] // 8
    if width == 1:
        return np.arange(256, dtype=np.uint8)
    upper = np.arange(65536, dtype=f"<u{width}") << (8 * width - 16)
    lows = [0] if width == 2 else [0, 1, 2 ** (8 * width - 17), 2 ** (8 * width - 16) - 1]
    return np.concatenate([upper | upper.dtype.type(low) for low in lows])


@pytest.mark.parametrize("dtype", sorted(MERGED))
def test_every_value_is_exact(dtype):
    words = every_pattern(dtype)
    want = torch.frombuffer(bytearray(words.tobytes()), dtype=TORCH[dtype]).double().numpy()
    got = to_float(dtype, words.tobytes())
    assert got.dtype == np.float64
    finite = np.isfinite(want)
    assert np.array_equal(got[finite].view(np.int64), want[finite].view(np.int64))
    assert np.array_equal(got, want, equal_nan=True)
    room = np.ones(words.size)
    assert to_float(dtype, memoryview(words).cast("B"), room) is room
    assert np.array_equal(room, want, equal_nan=True)


@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_nonfinite_values_are_counted_as_torch_sees_them(dtype):
    words = every_pattern(dtype)
    values = torch.frombuffer(bytearray(words.tobytes()), dtype=TORCH[dtype]).double()
    want = int((~torch.isfinite(values)).sum())
    assert count_nonfinite(dtype, words.tobytes()) == want > 0
    for word, bad in zip(words[:256].tolist(), (~torch.isfinite(values[:256])).tolist(), strict=True):
        assert count_nonfinite(dtype, word.to_bytes(BITS[dtype] // 8, "little")) == bad


def test_both_parts_of_a_complex_number_count():
    assert count_nonfinite("C64", struct.pack("<6f", 1, math.nan, math.inf, 0, math.nan, -math.inf)) == 4


@pytest.mark.parametrize("dtype", sorted(BITS.keys() - TORCH.keys() - {"C64"}))
def test_other_dtypes_have_no_such_values(dtype):
    assert count_nonfinite(dtype, b"\xff" * 24) == 0


def test_counts_over_many_spans_and_unaligned():
    values = np.ones(300_001, "<f4")
    values[[0, 32767, 32768, 300_000]] = [math.nan, math.inf, -math.inf, math.nan]
    assert count_nonfinite("F32", memoryview(b"x" + values.tobytes())[1:]) == 4
    assert count_nonfinite("F32", b"") == 0


def test_bad_bools():
    assert count_bad_bools(bytes([0, 1, 1, 0])) == 0
    assert count_bad_bools(bytes([0, 1, 2, 7, 255])) == 3
    assert count_bad_bools(b"") == 0
