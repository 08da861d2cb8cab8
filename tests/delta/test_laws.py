"""Every built-in codec keeps the laws that strangers' codecs are held to."""

import pytest

from weightvc.delta.codec import CODECS, FAMILIES
from weightvc.testing.codecs import CodecLaws, LossyCodecLaws

LOSSLESS = sorted(name for name, codec in CODECS.items() if not codec.lossy)

# Theory for normal numbers: 127 steps of 4 sigma / 127, uniform quantizers of 15 and 3 steps, sqrt(1 - 2 / pi), the
# top tenth of each sign at the scale that keeps its norm; of noise, directions keep little.
BOUNDS = {"int8": 0.01, "int4": 0.15, "int2": 0.44, "bitdelta": 0.605, "t-switch": 0.8, "skillpack": 0.85, "svd:4": 1.0}


class TestLossless(CodecLaws):
    """All that give everything back."""

    @pytest.fixture(autouse=True, params=LOSSLESS)
    def _codec(self, request):
        type(self).codec = request.param


class TestLossy(LossyCodecLaws):
    """All others."""

    @pytest.fixture(autouse=True, params=sorted(BOUNDS))
    def _codec(self, request):
        type(self).codec, type(self).bound = request.param, BOUNDS[request.param]


def test_every_codec_is_held_to_the_laws():
    assert {*LOSSLESS, *(name.partition(":")[0] for name in BOUNDS)} == {*CODECS, *FAMILIES}
