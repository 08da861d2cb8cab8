"""A manifest has exactly one valid encoding; everything else is refused, with words."""

import json
from dataclasses import replace

import pytest

from weightvc.objects.loss import Loss
from weightvc.objects.manifest import Entry, Manifest, Parent, Place
from weightvc.objects.tensors import TensorSpec
from weightvc.objects.updates import Update
from weightvc.util import canon
from weightvc.util.errors import BadInput, Corrupt, Unsupported

UUID = "076b1974-cdac-4648-ab83-22cbf1b986cc"
TIME = "2026-01-31T09:30:00.000000Z"
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)

SAME = Entry(TensorSpec("embed", "BF16", (4, 2)), A, "same", "embed")
DELTA = Entry(TensorSpec("model.h", "F32", (2, 2)), B, "delta", "h", Place("intdelta", C, 112, 0))
WHOLE = Entry(TensorSpec("score", "F32", ()), C, "whole", None, Place("raw", D, 70))
CONFIG = Entry(TensorSpec("config.json", "U8", (3,)), A, "same", "config.json")
HEADER = Entry(TensorSpec("model.safetensors", "U8", (120,)), D, "whole", None, Place("intdelta", C, 140, 1))
LOSSY = replace(DELTA, lossy=Loss(A, 0.125, 3e-05))
TASK = Manifest(
    tensors=(SAME, DELTA, WHOLE),
    files=(CONFIG,),
    headers=(HEADER,),
    source="safetensors",
    task="support",
    uuid=UUID,
    added=TIME,
    base=A,
    lineage=(Parent("older", UUID, B),),
    nonfinite=2,
)
FACTORS = (
    Entry(TensorSpec("up.A", "F32", (4, 8)), A, "whole", None, Place("full", D, 70)),
    Entry(TensorSpec("up.B", "F16", (6, 4)), B, "whole", None, Place("full", D, 70)),
)
UPDATE = Update("up", "up.A", "up.B", 2.0)
LORA = replace(TASK, tensors=(SAME, DELTA, WHOLE, *FACTORS), updates=(UPDATE,))
BASE = Manifest((WHOLE,), (), (HEADER,), "torch")


def read(data):
    return Manifest.from_bytes(data, "x.json")


def changed(manifest=TASK, at=None, **members):
    """The canonical document of ``manifest`` with members replaced, or dropped if ``...``, there or ``at`` an item."""
    value = json.loads(manifest.to_bytes())
    inner = value
    for key in at or ():
        inner = inner[key]
    inner.update(members)
    for key in [key for key, item in members.items() if item is ...]:
        del inner[key]
    return canon.document(value)


def refused(data, words):
    with pytest.raises(Corrupt, match=words) as caught:
        read(data)
    assert str(caught.value).startswith("x.json: ")
    assert caught.value.hint == "run `wvc fsck`, or restore the file with git"


def test_the_bytes_are_these():
    lines = TASK.to_bytes().decode().split("\n")
    assert lines[:5] == ["{", f'"added":"{TIME}",', f'"base":"{A}",', '"features":[],', '"files":[']
    assert f'{{"digest":"{A}","dtype":"BF16","name":"embed","shape":[4,2],"state":"same"}},' in lines
    assert (
        f'{{"codec":"intdelta","digest":"{B}","dtype":"F32","name":"model.h","object":"{C}","of":"h","part":0,'
        '"shape":[2,2],"size":112,"state":"delta"},' in lines
    )
    score = f'{{"codec":"raw","digest":"{C}","dtype":"F32","name":"score","object":"{D}","shape":[],"size":70,'
    assert score + '"state":"whole"}' in lines
    assert lines[-4:] == [f'"uuid":"{UUID}",', f'"version":"{TASK.version}"', "}", ""]
    assert [line.partition(":")[0] for line in lines if line.startswith('"')] == sorted(
        f'"{key}"' for key in json.loads(TASK.to_bytes())
    )


@pytest.mark.parametrize(
    "manifest", [TASK, BASE, replace(TASK, tensors=(), files=(), lineage=()), replace(TASK, tensors=(LOSSY,)), LORA]
)
def test_what_is_written_is_read(manifest):
    assert read(manifest.to_bytes()) == manifest


def test_the_version_depends_on_names_and_digests_of_tensors_only():
    moved = replace(DELTA, state="whole", of=None, place=Place("raw", A, 9))
    other = Manifest((SAME, moved, WHOLE), (), (), "torch")
    assert other.version == TASK.version
    assert replace(TASK, tensors=(SAME, replace(DELTA, digest=C), WHOLE)).version != TASK.version


def test_updates_are_part_of_the_version_and_their_factors_are_no_heads():
    assert LORA.version != replace(LORA, updates=()).version
    assert LORA.version != replace(LORA, updates=(replace(UPDATE, scale=1.0),)).version
    assert LORA.by_update == {"up": UPDATE}
    assert (LORA.heads, TASK.heads) == ((WHOLE,), (WHOLE,))
    assert b'"features":[\n"updates"\n],' in LORA.to_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"of": 1}, "1 is not of type str"),
        ({"scale": 2}, "2 is not of type float"),
        ({"transposed": None}, "None is not of type bool"),
        ({"more": 1}, "unknown more"),
        ({"b": ...}, "no b"),
        ({"a": "up"}, "'up': no two whole tensors of numbers that are its factors"),
        ({"a": "model.h"}, "no two whole tensors"),
        ({"a": "score"}, "no two whole tensors"),
        ({"a": "up.B", "b": "up.A"}, "no two whole tensors"),
        ({"of": "h"}, "a tensor is both updated and replaced"),
    ],
)
def test_updates_that_cannot_be(change, words):
    refused(changed(LORA, ("updates", 0), **change), words)


def test_updates_are_listed_once_in_order_and_by_tasks_alone():
    other = replace(UPDATE, of="down")
    twice = replace(LORA, updates=(UPDATE, UPDATE))
    for manifest in (twice, replace(LORA, updates=(UPDATE, other))):
        refused(manifest.to_bytes(), "updates are not sorted and distinct")
    assert read(replace(LORA, updates=(other, UPDATE)).to_bytes()).updates == (other, UPDATE)
    refused(changed(LORA, updates=[]), "left out where there are none")
    refused(changed(LORA, features=[]), "unknown updates")
    refused(changed(TASK, features=["updates"]), "no updates")
    refused(replace(BASE, tensors=(WHOLE, *FACTORS), updates=(UPDATE,)).to_bytes(), "updates are a task's")


def test_integers_are_no_factors():
    whole = replace(FACTORS[0], spec=replace(FACTORS[0].spec, dtype="I32"))
    refused(replace(LORA, tensors=(SAME, DELTA, WHOLE, whole, FACTORS[1])).to_bytes(), "no two whole tensors")


def test_views_of_a_manifest():
    assert TASK.by_name == {"embed": SAME, "model.h": DELTA, "score": WHOLE}
    assert TASK.by_base_name == {"embed": SAME, "h": DELTA}
    assert TASK.nbytes == 16 + 16 + 4
    assert list(TASK.entries()) == [SAME, DELTA, WHOLE, CONFIG, HEADER]
    assert TASK.objects() == {C: 112 + 140, D: 70}


def test_a_part_used_twice_counts_once():
    twin = replace(DELTA, spec=replace(DELTA.spec, name="twin"))
    assert replace(TASK, tensors=(DELTA, twin)).objects() == {C: 112 + 140}


BYTES = {
    "spaces": lambda b: b.replace(b'"nonfinite":2', b'"nonfinite": 2'),
    "order of keys": lambda b: b.replace(b'"nonfinite":2,\n', b"").replace(b"{\n", b'{\n"nonfinite":2,\n', 1),
    "order in a line": lambda b: b.replace(b'"shape":[],"size":70', b'"size":70,"shape":[]'),
    "line break gone": lambda b: b.replace(b",\n", b",", 1),
    "line break more": lambda b: b.replace(b'"shape":[4,2]', b'"shape":[4,\n2]'),
    "CRLF": lambda b: b.replace(b"\n", b"\r\n"),
    "escaped letter": lambda b: b.replace(b'"embed"', b'"\\u0065mbed"'),
    "escaped slash": lambda b: b.replace(b"manifest/1", b"manifest\\/1"),
    "no newline at the end": lambda b: b[:-1],
    "two newlines at the end": lambda b: b + b"\n",
    "exponent": lambda b: b.replace(b'"size":70', b'"size":7e1'),
}


@pytest.mark.parametrize("change", BYTES.values(), ids=BYTES)
def test_another_spelling_of_the_same_value_is_refused(change):
    data = change(TASK.to_bytes())
    assert data != TASK.to_bytes()
    assert json.loads(data) == json.loads(TASK.to_bytes())
    refused(data, "not in canonical form; it was changed by something other than wvc")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.replace(b'"nonfinite":2,', b'"nonfinite":2,\n"nonfinite":2,'), "duplicate name 'nonfinite'"),
        (lambda b: b.replace(b'"shape":[]', b'"shape":[],"shape":[]'), "duplicate name 'shape'"),
        (lambda b: b.replace(b'"part":0', b'"part":-0'), "-0 is no integer"),
        (lambda b: b"\xef\xbb\xbf" + b, "not valid JSON"),
        (lambda b: b[:-3], "not valid JSON"),
        (lambda b: b + b"{}", "not valid JSON"),
        (lambda b: b.replace(b"embed", b"emb\xff"), "not valid JSON"),
        (lambda b: b.replace(b"embed", b"\\ud800"), "not valid JSON"),
        (lambda b: b.replace(b'"nonfinite":2', b'"nonfinite":NaN'), "NaN is not JSON"),
        (lambda b: b.replace(b'"size":70', b'"size":9223372036854775808'), "an integer beyond 64 bits"),
        (lambda _: b"[" * 100_000, "nested too deeply"),
        (lambda _: b"[]", "a JSON object was expected"),
        (lambda _: b"", "not valid JSON"),
    ],
)
def test_no_json_of_ours_is_refused(change, words):
    refused(change(TASK.to_bytes()), words)


@pytest.mark.parametrize("key", sorted(json.loads(TASK.to_bytes())))
def test_a_missing_key_is_refused(key):
    refused(changed(**{key: ...}), f"no {key}")


def test_an_unknown_key_is_refused():
    refused(changed(extra=1), "unknown extra")
    refused(changed(at=("tensors", 0), extra=1), "x.json: unknown extra")
    refused(changed(at=("lineage", 0), extra=1), "unknown extra")


@pytest.mark.parametrize("key", ["name", "dtype", "shape", "digest", "state"])
def test_a_line_without_a_key_is_refused(key):
    refused(changed(at=("tensors", 0), **{key: ...}), f"no {key}")


def test_a_newer_schema_asks_for_an_upgrade():
    for data in (
        changed(schema="weightvc/manifest/2", surprise=True),
        changed(schema=None),
        changed(features=["sparse"], surprise=True),
    ):
        with pytest.raises(Unsupported, match=r"weightvc/manifest/2|None|sparse") as caught:
            read(data)
        assert caught.value.hint == "upgrade weightvc"


@pytest.mark.parametrize("features", [None, False, 0, "", {}])
def test_no_features_are_an_empty_list(features):
    refused(changed(features=features), "is not of type list")


LINE = {
    "float for int in a shape": (0, {"shape": [4.0, 2]}, "4.0 is not of type int"),
    "bool for int in a shape": (0, {"shape": [True, 2]}, "True is not of type int"),
    "negative dimension": (0, {"shape": [-1]}, "-1 is negative"),
    "shape no list": (0, {"shape": 8}, "8 is not of type list"),
    "unknown dtype": (0, {"dtype": "F31"}, "dtype 'F31' is unknown"),
    "packed with a remainder": (0, {"dtype": "F4", "shape": [3]}, "do not fill whole bytes"),
    "beyond the limit": (0, {"shape": [2**47, 2]}, "more than the limit"),
    "name empty": (0, {"name": ""}, "a name has 1 to 1024 bytes"),
    "name with a newline": (0, {"name": "a\nb"}, "no control characters"),
    "name no string": (0, {"name": 3}, "3 is not of type str"),
    "digest in capitals": (0, {"digest": "A" * 64}, "is not 64 hexadecimal digits"),
    "digest short": (0, {"digest": "a" * 63}, "is not 64 hexadecimal digits"),
    "digest null": (0, {"digest": None}, "is not 64 hexadecimal digits"),
    "unknown state": (0, {"state": "sparse"}, "'embed': unknown state 'sparse'"),
    "state no string": (0, {"state": ["same"]}, "unknown state"),
    "place on same": (0, {"codec": "raw", "object": A, "size": 1}, "a tensor equal to the base's has no object"),
    "part on same": (0, {"part": 0}, "a tensor equal to the base's has no object"),
    "of its own name": (0, {"of": "embed"}, "`of` and `part` are left out where they say nothing"),
    "of null": (0, {"of": None}, "None is not of type str"),
    "of on whole": (2, {"of": "score"}, "'score': a whole tensor refers to no base tensor"),
    "part null": (1, {"part": None}, "`of` and `part` are left out where they say nothing"),
    "part negative": (1, {"part": -1}, "-1 is negative"),
    "part boolean": (1, {"part": False}, "False is not of type int"),
    "size float": (1, {"size": 112.0}, "112.0 is not of type int"),
    "size missing": (1, {"size": ...}, "None is not of type int"),
    "object missing": (1, {"object": ...}, "is not 64 hexadecimal digits"),
    "codec missing": (2, {"codec": ...}, "None is not of type str"),
}


@pytest.mark.parametrize(("line", "change", "words"), LINE.values(), ids=LINE)
def test_a_line_that_says_something_else_is_refused(line, change, words):
    refused(changed(at=("tensors", line), **change), words)


def test_a_loss_is_part_of_a_line():
    lossy = replace(TASK, tensors=(SAME, LOSSY, WHOLE))
    assert lossy.lossy == (LOSSY,)
    assert TASK.lossy == ()
    assert (
        f'"lossy":{{"maximum":3e-05,"original":"{A}","relative":0.125}},"name":"model.h"'.encode() in lossy.to_bytes()
    )
    assert b"lossy" not in TASK.to_bytes()
    assert lossy.version == TASK.version


LOSS = {"original": A, "relative": 0.125, "maximum": 3e-05}
BAD_LOSS = {
    "null": (1, None, "an object was expected"),
    "nothing": (1, {}, "no maximum, original, relative"),
    "more": (1, LOSS | {"mean": 0.1}, "unknown mean"),
    "integer": (1, LOSS | {"relative": 0}, "0 is not of type float"),
    "boolean": (1, LOSS | {"maximum": True}, "True is not of type float"),
    "negative": (1, LOSS | {"relative": -0.5}, "an error of -0.5"),
    "minus zero": (1, LOSS | {"maximum": -0.0}, "an error of -0.0"),
    "no digest": (1, LOSS | {"original": "a"}, "is not 64 hexadecimal digits"),
    "nothing lost": (1, LOSS | {"original": B}, "lossy, but the tensor that was added"),
    "of same": (0, LOSS, "only a delta of floating-point numbers is lossy"),
    "of whole": (2, LOSS, "only a delta of floating-point numbers is lossy"),
}


@pytest.mark.parametrize(("line", "lossy", "words"), BAD_LOSS.values(), ids=BAD_LOSS)
def test_a_loss_that_cannot_be_is_refused(line, lossy, words):
    refused(changed(at=("tensors", line), lossy=lossy), words)


def test_integers_lose_nothing():
    refused(changed(at=("tensors", 1), dtype="I32", lossy=LOSS), "only a delta of floating-point numbers is lossy")


def test_lists_and_lines_have_their_types():
    refused(changed(tensors={}), "is not of type list")
    refused(changed(tensors=["embed"]), "an object was expected")
    refused(changed(source=None), "is not of type str")
    refused(changed(nonfinite=-1), "-1 is negative")
    refused(changed(nonfinite=2.0), "2.0 is not of type int")
    refused(changed(lineage=None), "is not of type list")


def test_unsorted_and_repeated_names_are_refused():
    for order in ((DELTA, SAME, WHOLE), (SAME, SAME, DELTA)):
        refused(replace(TASK, tensors=order).to_bytes(), "names are not sorted and distinct")
    refused(replace(TASK, files=(CONFIG, CONFIG)).to_bytes(), "names are not sorted and distinct")


def test_names_are_sorted_by_code_point():
    high = replace(WHOLE, spec=replace(WHOLE.spec, name="\U0001f600"))
    private = replace(WHOLE, spec=replace(WHOLE.spec, name="\ufb00"))
    good = replace(TASK, tensors=(private, high))
    assert read(good.to_bytes()) == good
    refused(replace(TASK, tensors=(high, private)).to_bytes(), "names are not sorted and distinct")


def test_a_version_that_does_not_match_is_refused():
    words = "the tensors do not have the version that the file states"
    refused(changed(version=A), words)
    refused(changed(at=("tensors", 0), digest=B), words)
    refused(changed(at=("tensors", 2), name="scorf"), words)


@pytest.mark.parametrize("key", ["uuid", "added", "base"])
def test_a_task_without_its_identity_is_refused(key):
    refused(changed(**{key: None}), "a task has a UUID, a time and a base")


@pytest.mark.parametrize(("key", "value"), [("uuid", UUID), ("added", TIME), ("base", A)])
def test_a_base_with_an_identity_is_refused(key, value):
    refused(changed(BASE, **{key: value}), "the base has no UUID, time, base or lineage")


def test_a_base_refers_to_nothing():
    refused(replace(BASE, lineage=TASK.lineage).to_bytes(), "the base has no UUID, time, base or lineage")
    refused(replace(BASE, tensors=(SAME,)).to_bytes(), "'embed': there is nothing that the base could refer to")
    refused(replace(BASE, files=(CONFIG,)).to_bytes(), "'config.json': there is nothing that the base could refer to")


@pytest.mark.parametrize("uuid", ["", "../../../x", UUID.upper(), UUID[:-1], UUID + "\n", UUID.replace("-", "")])
def test_a_uuid_names_a_file_and_is_nothing_else(uuid):
    refused(changed(uuid=uuid), "is not a UUID")
    refused(changed(at=("lineage", 0), uuid=uuid), "is not a UUID")


@pytest.mark.parametrize(
    "added",
    [
        "2026-01-31T09:30:00Z",
        "2026-01-31T09:30:00.0Z",
        "2026-01-31 09:30:00.000000Z",
        "2026-01-31T09:30:00.000000+00:00",
        "2026-1-31T09:30:00.000000Z",
        "2026-13-31T09:30:00.000000Z",
        "2026-02-30T09:30:00.000000Z",
        "",
    ],
)
def test_a_time_has_one_spelling(added):
    refused(changed(added=added), "is not a time such as 2026-01-31T09:30:00.000000Z")


@pytest.mark.parametrize("name", ["Not A Task", "../up", "con", ""])
def test_names_of_tasks_are_checked(name):
    with pytest.raises(Corrupt, match="cannot name a task"):
        read(changed(task=name))
    with pytest.raises(Corrupt, match="cannot name a task"):
        read(changed(at=("lineage", 0), task=name))


@pytest.mark.parametrize(
    "entry",
    [
        replace(CONFIG, spec=TensorSpec("config.json", "I8", (3,))),
        replace(CONFIG, spec=TensorSpec("config.json", "U8", (1, 3))),
        replace(CONFIG, of="other.json"),
        replace(CONFIG, state="delta", place=Place("raw", A, 3)),
    ],
)
def test_files_and_headers_are_bytes_whole_or_the_base_s(entry):
    words = "'config.json': a file or header is U8 of one dimension, whole or the base's own"
    refused(replace(TASK, files=(entry,)).to_bytes(), words)
    refused(replace(TASK, headers=(entry,)).to_bytes(), words)


def named(entry, name):
    return replace(entry, spec=replace(entry.spec, name=name), of=None, state="whole", place=Place("raw", A, 3))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x", "is not the path of a file in a model directory"),
        ("/etc/x", "is not the path of a file in a model directory"),
        ("a/./b", "is not the path of a file in a model directory"),
        ("wvc.lock.json", "is a name that wvc or git keeps for itself"),
        ("a/.git/config", "is a name that wvc or git keeps for itself"),
        ("Model.safetensors", "'model.safetensors' and 'Model.safetensors' cannot both be files of one directory"),
        ("model.safetensors/x", "'model.safetensors' and 'model.safetensors/x' cannot both be files"),
    ],
)
def test_files_that_could_not_be_written_are_refused(name, words):
    refused(replace(TASK, files=(named(CONFIG, name),)).to_bytes(), words)


@pytest.mark.parametrize("name", ["a/b", "..", "/x", "a\\b"])
def test_weight_files_that_are_paths_are_refused(name):
    refused(replace(TASK, headers=(named(HEADER, name),)).to_bytes(), "cannot name a weight file")


def test_a_weight_file_does_not_take_the_locks_place():
    refused(replace(TASK, headers=(named(HEADER, "wvc.lock.json"),)).to_bytes(), "wvc or git keeps for itself")


def test_a_refused_line_is_bad_input_on_its_own():
    with pytest.raises(BadInput, match="an object was expected"):
        Entry.from_json([], "line")
