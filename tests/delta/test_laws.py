"""Every built-in codec keeps the laws that strangers' codecs are held to."""

import pytest

from weightvc.delta.codec import CODECS
from weightvc.testing.codecs import CodecLaws


@pytest.fixture(autouse=True, params=sorted(CODECS))
def _codec(request):
    CodecLaws.codec = request.param


class TestBuiltIn(CodecLaws):
    """The whole table."""
