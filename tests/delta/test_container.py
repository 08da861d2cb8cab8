"""Bundles: several tensor objects in one."""

import struct

import pytest

from weightvc.delta import container
from weightvc.delta.encoding import Encoded, encode
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt, Unsupported


def tensor(data):
    return b"".join(encode(TensorSpec("t", "U8", (len(data),)), data, None, "full"))


def lying(text, body=b"abc"):
    return struct.pack("<4sBBI", b"WVC\x00", 1, 2, len(text)) + text + body


@pytest.mark.parametrize("values", [[], [b""], [b"one"], [b"one", b"", b"three" * 99, b"one"]])
def test_members_come_back_in_order(values):
    objects = [tensor(value) for value in values]
    views = container.members(memoryview(container.bundle(objects)), "obj")
    assert [bytes(view) for view in views] == objects
    for view, value in zip(views, values, strict=True):
        encoded = Encoded.parse(view, "member")
        out = bytearray(encoded.spec.nbytes)
        encoded.decode_into(out, None)
        assert out == value


def test_a_bundle_begins_as_documented():
    assert container.bundle([b"ab", b"c"]) == b'WVC\x00\x01\x02\x0f\x00\x00\x00{"sizes":[2,1]}abc'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tensor(b"x"), r"an object of kind 1, kind 2 \(bundle\) was expected"),
        (lying(b'{"sizes":3}'), "bundle sizes are not a list of positive integers"),
        (lying(b'{"sizes":[3,0]}'), "bundle sizes are not a list of positive integers"),
        (lying(b'{"sizes":[4,-1]}'), "bundle sizes are not a list of positive integers"),
        (lying(b'{"sizes":[true,2]}'), "bundle sizes are not a list of positive integers"),
        (lying(b'{"sizes":[3.0]}'), "bundle sizes are not a list of positive integers"),
        (lying(b'{"sizes":["abc"]}'), "bundle sizes are not a list of positive integers"),
        (lying(b'{"sizes":[2]}'), "bundle sizes add up to 2 bytes, the body has 3"),
        (lying(b'{"sizes":[]}'), "bundle sizes add up to 0 bytes, the body has 3"),
        (
            lying(b'{"sizes":[9223372036854775807,9223372036854775807]}'),
            "bundle sizes add up to 18446744073709551614 bytes, the body has 3",
        ),
        (lying(b'{"sizes":[99999999999999999999]}'), "header: an integer beyond 64 bits"),
        (lying(b'{"size":[3]}'), "the header does not have exactly the names sizes"),
        (lying(b'{"sizes":[3 ]}'), "the header is not in canonical form"),
    ],
)
def test_hostile_bundles(data, words):
    with pytest.raises(Corrupt, match=f"^obj: {words}$"):
        container.members(memoryview(data), "obj")


def test_every_truncation_and_junk_is_refused():
    data = container.bundle([tensor(b"one"), tensor(b"two")])
    for wrong in [*(data[:end] for end in range(len(data))), data + b"x"]:
        with pytest.raises(Corrupt, match=r"^obj: "):
            container.members(memoryview(wrong), "obj")


def test_a_bundle_is_no_tensor_and_holds_no_bundle():
    data = container.bundle([container.bundle([tensor(b"x")])])
    (inner,) = container.members(memoryview(data), "obj")
    for wrong in (memoryview(data), inner):
        with pytest.raises(Corrupt, match=r"^obj: an object of kind 2, kind 1 \(tensor\) was expected$"):
            Encoded.parse(wrong, "obj")


def test_a_newer_bundle_asks_for_an_upgrade():
    data = bytearray(container.bundle([]))
    data[4] = 2
    with pytest.raises(Unsupported, match=r"^obj: object format version 2 is unknown$") as caught:
        container.members(memoryview(data), "obj")
    assert caught.value.hint == "upgrade weightvc"


def test_a_header_that_is_remembered_is_refused_under_each_objects_own_name():
    for where in ("one", "two"):
        with pytest.raises(Corrupt, match=f"^{where}: the header is not in canonical form$"):
            container.members(memoryview(lying(b'{"sizes":[3 ]}')), where)


def test_long_headers_are_read_each_time_and_not_kept():
    before = container._remembered.cache_info().currsize
    made = container.bundle([b"x"] * 5_000)

    assert len(container.members(memoryview(made), "one")) == 5_000
    assert container._remembered.cache_info().currsize == before
