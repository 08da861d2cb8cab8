import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightvc.util import canon
from weightvc.util.errors import BadInput

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=8)
DOCUMENTS = st.dictionaries(TEXT, VALUES, max_size=4)


@given(VALUES)
def test_what_is_dumped_parses_to_itself(value):
    data = canon.dumps(value)
    assert canon.parse(data, "x") == value
    assert canon.dumps(canon.parse(data, "x")) == data


@given(DOCUMENTS)
def test_a_document_has_one_form(value):
    data = canon.document(value)
    assert canon.parse_document(data, "x") == value
    assert canon.document(dict(reversed(value.items()))) == data


def test_dumps_is_compact_sorted_utf8():
    assert canon.dumps({"b": [1, 2.5, None, True], "a": "ä"}) == '{"a":"ä","b":[1,2.5,null,true]}'.encode()


def test_a_document_has_a_line_for_each_item():
    value = {"tensors": [["a", 1], ["b", 2]], "empty": [], "meta": {"y": 1, "x": 2}}
    assert canon.document(value) == b'{\n"empty":[],\n"meta":{"x":2,"y":1},\n"tensors":[\n["a",1],\n["b",2]\n]\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\ud800"])
def test_what_json_cannot_hold_is_not_dumped(value):
    with pytest.raises(ValueError, match=r"Out of range|surrogates not allowed"):
        canon.dumps(value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a":1,"b":2,"a":3}', "duplicate name 'a'"),
        (b'[{"x":{"k":1,"k":1}}]', "duplicate name 'k'"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "a number beyond double precision"),
        (b"-1e999", "a number beyond double precision"),
        (b"9223372036854775808", "an integer beyond 64 bits"),
        (b"-9223372036854775809", "an integer beyond 64 bits"),
        (b"[-0]", "-0 is no integer"),
        (b"1" * 5000, "an integer beyond 64 bits"),
        (b"[" * 200_000, "JSON nested too deeply"),
        (b'{"a":' * 200_000, "JSON nested too deeply"),
        (b'"\xff"', "not valid JSON"),
        (b'"\xed\xa0\x80"', "not valid JSON"),
        (b'"\\ud800"', "not valid JSON"),
        (b'{"\\uDFFF":1}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"{} x", "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
    ],
    ids=repr,
)
def test_hostile_json_is_refused_by_name(data, words):
    with pytest.raises(BadInput, match=r"^the manifest: ") as caught:
        canon.parse(data, "the manifest")
    assert words in str(caught.value)


def test_a_surrogate_pair_is_one_character():
    assert canon.parse(b'"\\ud83d\\ude00"', "x") == "\U0001f600"


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1])
def test_64_bits_are_enough(number):
    assert canon.parse(str(number).encode(), "x") == number


def test_too_much_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(canon, "MAX_BYTES", 10)
    assert canon.parse(b"1234567890", "x") == 1234567890
    with pytest.raises(BadInput, match="x: 11 bytes of JSON, more than the limit of 10"):
        canon.parse(b" 1234567890", "x")


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"{}"'])
def test_a_document_is_an_object(data):
    with pytest.raises(BadInput, match=r"base\.json: a JSON object was expected"):
        canon.parse_document(data, "base.json")


@pytest.mark.parametrize(
    "data", [b"{}", b'{"b":1,"a":2}', b'{\n"a":1\n}', b'{\n"a":1.0\n}\r\n', b'{\n"a":"\\u0041"\n}\n']
)
def test_any_other_spelling_is_refused(data):
    json.loads(data)
    with pytest.raises(
        BadInput, match=r"base\.json: not in canonical form; it was changed by something other than wvc"
    ):
        canon.parse_document(data, "base.json")
