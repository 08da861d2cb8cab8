import pytest

from weightvc.util import fields
from weightvc.util.errors import BadInput, Unsupported


def test_an_object_has_all_it_must_and_no_more():
    value = {"a": 1, "b": 2}
    assert fields.mapping(value, "x", ("a",), ("b", "c")) is value
    assert fields.mapping(value, "x", ["a", "b"]) is value
    assert fields.mapping({}, "x", ()) == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "^x: no a, b$"),
        ({"b": 0}, "^x: no a$"),
        ({"a": 0, "b": 0, "z": 0, "\x1b[2J": 0}, r"^x: unknown \\u001b\[2J, z$"),
        ([], "^x: an object was expected$"),
        (None, "^x: an object was expected$"),
    ],
)
def test_what_is_no_such_object_is_refused(value, words):
    with pytest.raises(BadInput, match=words):
        fields.mapping(value, "x", ("a", "b"), ("c",))


@pytest.mark.parametrize(("value", "kind"), [(1, int), (True, bool), ("a", str), (1.0, float), ([], list), ({}, dict)])
def test_a_value_of_exactly_the_type_is_given_back(value, kind):
    assert fields.typed(value, kind, "x") is value
    assert fields.optional(value, kind, "x") is value


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (True, int, "^x: True is not of type int$"),
        (1.0, int, "^x: 1.0 is not of type int$"),
        (1, float, "^x: 1 is not of type float$"),
        (1, bool, "^x: 1 is not of type bool$"),
        ("1", int, "^x: '1' is not of type int$"),
        ({"a": 1}, list, "is not of type list$"),
        ("\u202e" * 3, int, r"^x: '\\u202e\\u202e\\u202e' is not of type int$"),
        ("a" * 100, int, f"^x: '{'a' * 59} is not of type int$"),
    ],
)
def test_a_value_of_another_type_is_refused(value, kind, words):
    with pytest.raises(BadInput, match=words):
        fields.typed(value, kind, "x")
    with pytest.raises(BadInput, match=words):
        fields.optional(value, kind, "x")


def test_nothing_is_refused_unless_optional():
    assert fields.optional(None, int, "x") is None
    with pytest.raises(BadInput, match="x: None is not of type int"):
        fields.typed(None, int, "x")


def test_naturals():
    assert [fields.natural(n, "x") for n in (0, 1, 2**63)] == [0, 1, 2**63]
    with pytest.raises(BadInput, match="x: -1 is negative"):
        fields.natural(-1, "x")
    for value in (1.0, True, None, "1"):
        with pytest.raises(BadInput, match="is not of type int"):
            fields.natural(value, "x")


def test_a_schema_from_the_future_is_unsupported():
    for value in ({"schema": "s/1", "more": 0}, {}, [], None, "s/2"):
        fields.schema(value, "s/1", "x")  # what is no object at all, or has no schema, is refused by mapping
    for found, shown in (("s/2", "'s/2'"), (None, "'None'"), (["s/1"], r"\"\['s/1'\]\""), ("\x1b", r"'\\x1b'")):
        with pytest.raises(Unsupported, match=f"^x: schema {shown}; this wvc reads s/1$") as caught:
            fields.schema({"schema": found}, "s/1", "x")
        assert caught.value.hint == "upgrade weightvc"


def test_a_message_is_located_once():
    assert fields.located("bad", "x.json") == "x.json: bad"
    assert fields.located("x.json: 'w': bad", "x.json") == "x.json: 'w': bad"
