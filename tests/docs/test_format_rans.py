"""Decodes entropy-coded chunks by the words of docs/format/rans.md alone, a bit at a time.

Only what makes the input comes from weightvc.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from rans_reader import decode

from weightvc.delta.rans.coder import pack

PAGE = Path(__file__).parents[2] / "docs" / "format" / "rans.md"


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [1, 2, 40, 300, 1000, 6000])
def test_the_page_decodes_what_was_packed(width, size):
    rng = np.random.default_rng(size)
    contexts = np.minimum(rng.geometric(0.4, size) * 20, 200).astype(np.uint8)
    spread = np.clip(rng.laplace(0, 2.0 ** (contexts / 20)), -127, 127).round().astype(np.int64)
    far = rng.integers(-(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1, size)
    for values in (spread, np.where(rng.random(size) < 0.1, far, spread), far, contexts % 3 - 1, np.full(size, 5)):
        words = values.astype(f"i{width}").view(f"u{width}")
        assert decode(pack(words, contexts), contexts.tolist(), width) == words.tolist()


def test_all_that_the_page_tells_of_is_written():
    rng = np.random.default_rng(9)
    contexts = np.repeat(np.array([4, 90], np.uint8), 2000)
    words = np.where(rng.random(4000) < 0.02, rng.integers(0, 2**63, 4000), contexts // 90).astype(np.uint64)
    body = pack(words, contexts)
    assert 1 <= body[0] <= 5  # tokens
    assert body[1] >= 4  # lanes enough to stop in several steps
    assert body[3:5] == b"\x01\x5a"  # two groups
    assert decode(body, contexts.tolist(), 8) == words.tolist()
    assert pack(far := rng.integers(0, 2**64, 100, np.uint64), contexts[:100]) == b"\0" + far.tobytes()
    same = pack((contexts // 90).astype(np.uint64), contexts)
    assert len(same) < 40
    assert decode(same, contexts.tolist(), 8) == (contexts // 90).tolist()


def test_the_example_is_what_is_written():
    block = re.search(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    body = b"".join(bytes.fromhex(re.match(r"(?:[0-9a-f]{2} )+", line)[0]) for line in block.splitlines())
    words = np.array([0, 1, 0, 0xFFFF] * 10, np.uint16)
    assert pack(words, np.zeros(40, np.uint8)) == body
    assert decode(body, [0] * 40, 2) == words.tolist()
    state = (int.from_bytes(bytes.fromhex("3eb34f759375e6a7"), "little") + 2**32).to_bytes(8, "big")
    assert f"0x{state.hex()}" in block
