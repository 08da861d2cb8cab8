"""Every built-in codec keeps the laws that strangers' codecs are held to."""

import pytest

from weightvc.delta.codec import CODECS, FAMILIES, codec_named
from weightvc.testing.codecs import CodecLaws

# Theory for normal numbers: 127 steps of 4 sigma / 127, uniform quantizers of 15 and 3 steps, sqrt(1 - 2 / pi), the
# top tenth of each sign at the scale that keeps its norm; of noise, a low rank keeps little.
BOUNDS = {"int8": 0.01, "int4": 0.15, "int2": 0.44, "bitdelta": 0.605, "t-switch": 0.8, "svd:4": 1.0}


@pytest.fixture(autouse=True, params=sorted({*CODECS, *BOUNDS}))
def _codec(request):
    CodecLaws.codec = request.param
    CodecLaws.bound = BOUNDS.get(request.param, 0.0)


class TestBuiltIn(CodecLaws):
    """The whole table."""


def test_every_lossy_codec_has_a_bound():
    assert {name.partition(":")[0] for name in BOUNDS} == {name for name in CODECS if codec_named(name).lossy} | {
        *FAMILIES
    }
