"""Writes the golden objects: run once for each released format, never to make a failing test pass.

python tests/golden/make.py tests/golden/objects-1
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from weightvc.delta.encoding import encode
from weightvc.objects.tensors import TensorSpec

CASES = {
    "raw": ("raw", "F64", (30,), "noise", "default"),
    "full": ("full", "BF16", (40, 50), "noise", "default"),
    "planes": ("intdelta", "F32", (40, 50), "steps", "fast"),
    "changed": ("intdelta", "BF16", (40, 50), "few", "fast"),
    "coded": ("intdelta", "F32", (100, 80), "spread", "best"),
    "decay": ("intdelta", "F32", (128, 128), "decayed", "default"),
    "lowrank": ("intdelta", "F32", (128, 128), "lora", "default"),
    **{name: (name, "F32", (64, 100), "steps", "default") for name in ("int8", "int4", "int2", "bitdelta", "t-switch")},
    "skillpack": ("skillpack", "F32", (64, 100), "steps", "default"),
    "svd": ("svd:4", "BF16", (64, 100), "lora", "default"),
}
"""Name to codec, dtype, shape, what a fine-tune did, level."""


def base_words(dtype: str, count: int) -> np.ndarray:
    """Return patterns of weights of many sizes, the same for ever."""
    if dtype == "F64":
        return np.frombuffer(hashlib.shake_128(b"base").digest(8 * count), "<u8")
    single = np.frombuffer(hashlib.shake_128(b"base").digest(4 * count), "<u4")
    single = (single & 0x807FFFFF) | (0x3A000000 + (single >> 8 & 7) * 0x00800000)
    return single if dtype == "F32" else (single >> 16).astype(np.uint16)


def tuned_words(base: np.ndarray, shape: tuple[int, ...], how: str) -> np.ndarray:
    """Return what a fine-tune made of them."""
    at = np.arange(base.size, dtype=np.uint64)
    steps = np.frombuffer(hashlib.shake_128(b"steps").digest(base.size), np.uint8).astype(np.int64) - 128
    if how == "noise":
        return base
    if how == "few":
        return base + (at % np.uint64(9) == 0).astype(base.dtype)
    if how == "steps":
        return base + (steps**3 // 400).astype(base.dtype)
    if how == "spread":
        four = np.frombuffer(hashlib.shake_128(b"spread").digest(4 * base.size), np.uint8).reshape(-1, 4)
        return base + (four.sum(axis=1, dtype=np.int64) - 510).astype(base.dtype)
    wide = base.view(np.float32) if base.itemsize == 4 else (base.astype(np.uint32) << 16).view(np.float32)
    if how == "decayed":
        return (wide * np.float32(1 - 2e-5)).view(np.uint32)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    update = sum((rows * (3 + k) % 17 - 8) * (columns * (5 + k) % 23 - 11) for k in range(3)) * 2.0**-14
    moved = (wide.astype(np.float64) + update.reshape(-1)).astype(np.float32).view(np.uint32)
    return moved if base.itemsize == 4 else (moved >> 16).astype(np.uint16)


def main() -> None:
    """Write every object, and what each decodes to."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    index = {}
    for name, (codec, dtype, shape, how, level) in CASES.items():
        base = base_words(dtype, int(np.prod(shape)))
        data = tuned_words(base, shape, how).tobytes()
        object_ = b"".join(encode(TensorSpec(name, dtype, shape), data, base.tobytes(), codec, level))
        (folder / f"{name}.object").write_bytes(object_)
        index[name] = {"dtype": dtype, "count": int(np.prod(shape)), "added": hashlib.sha256(data).hexdigest()}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
