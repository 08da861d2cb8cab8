import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.objects.removal import Removal
from weightvc.util import canon
from weightvc.util.errors import Corrupt, Unsupported

UUID = "076b1974-cdac-4648-ab83-22cbf1b986cc"
VERSION = "c" * 64
FULL = Removal(
    task="support",
    uuid=UUID,
    version=VERSION,
    removed="2026-01-31T09:30:00.000000+00:00",
    parent="b" * 40,
    recipes=("prod", "test"),
    dependants=("sales",),
    reason='Contract ended: "§ 7"\n',
    requester="legal@example.com",
)
BARE = Removal("support", UUID, VERSION, "2026-01-31T09:30:00+00:00", "b" * 40)


def changed(**members):
    value = {key: item for key, item in (json.loads(FULL.to_bytes()) | members).items() if item is not ...}
    return canon.document(value)


def refused(data, words):
    with pytest.raises(Corrupt, match=words) as caught:
        Removal.from_bytes(data, "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert caught.value.hint == "restore the file with git"


def test_the_bytes_are_these():
    assert FULL.to_bytes().decode() == (
        '{\n"dependants":[\n"sales"\n],\n"parent":"' + "b" * 40 + '",\n"reason":"Contract ended: \\"§ 7\\"\\n",\n'
        '"recipes":[\n"prod",\n"test"\n],\n"removed":"2026-01-31T09:30:00.000000+00:00",\n'
        '"requester":"legal@example.com",\n"schema":"weightvc/removal/1",\n"task":"support",\n'
        f'"uuid":"{UUID}",\n"version":"{VERSION}"\n}}\n'
    )


@pytest.mark.parametrize("removal", [FULL, BARE])
def test_what_is_written_is_read(removal):
    assert Removal.from_bytes(removal.to_bytes(), "r.json") == removal


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(b'"task":"support"', b'"task": "support"'),
        lambda b: b.replace(b'"prod",\n', b'"prod",'),
        lambda b: b.replace("§".encode(), b"\\u00a7"),
        lambda b: b.replace(b"\\n", b"\\u000a"),
        lambda b: b[:-1],
        lambda b: b + b"\n",
        lambda b: b" " + b,
        lambda b: b.replace(b'"dependants":[\n"sales"\n],\n', b"").replace(b"\n}", b',\n"dependants":["sales"]\n}'),
    ],
)
def test_another_spelling_is_refused(change):
    data = change(FULL.to_bytes())
    assert json.loads(data) == json.loads(FULL.to_bytes())
    refused(data, "not in canonical form")


def test_duplicate_names_are_refused():
    refused(FULL.to_bytes().replace(b'"task"', b'"task":"x",\n"task"'), "duplicate name 'task'")


@pytest.mark.parametrize("key", sorted(json.loads(FULL.to_bytes())))
def test_a_missing_key_is_refused(key):
    refused(changed(**{key: ...}), f"no {key}")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"extra": 1}, "unknown extra"),
        ({"task": "Not A Task"}, "'Not A Task' cannot name a task"),
        ({"task": 1}, "1 is not of type str"),
        ({"uuid": "../up"}, "'../up' is not a UUID"),
        ({"uuid": None}, "None is not of type str"),
        ({"version": "c"}, "'c' is not 64 hexadecimal digits"),
        ({"removed": 0}, "0 is not of type str"),
        ({"parent": None}, "None is not of type str"),
        ({"reason": None}, "None is not of type str"),
        ({"requester": []}, "is not of type str"),
        ({"recipes": "prod"}, "'prod' is not of type list"),
        ({"dependants": [1]}, "1 is not of type str"),
    ],
)
def test_what_is_no_record_is_refused(members, words):
    refused(changed(**members), words)


def test_a_newer_schema_asks_for_an_upgrade():
    with pytest.raises(Unsupported, match="weightvc/removal/2") as caught:
        Removal.from_bytes(changed(schema="weightvc/removal/2", who="x"), "r.json")
    assert caught.value.hint == "upgrade weightvc"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        lambda a, b, c, d: Removal("t", UUID, VERSION, a, b, tuple(c), (), d, a), texts, texts, st.lists(texts), texts
    )
)
def test_any_record_round_trips(removal):
    assert Removal.from_bytes(removal.to_bytes(), "r.json") == removal
