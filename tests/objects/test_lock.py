import hashlib
import json
from dataclasses import replace

import pytest

from weightvc.objects.lock import Lock, TensorLine
from weightvc.objects.manifest import Parent
from weightvc.objects.recipe import Recipe, Weighted
from weightvc.util import canon
from weightvc.util.errors import Corrupt, Unsupported

UUID = "076b1974-cdac-4648-ab83-22cbf1b986cc"
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)

MERGED = TensorLine("model.safetensors", "w", A, "projected", (1, 3))
PLAIN = TensorLine("model.safetensors", "b", B, "base")
HEAD = TensorLine("heads/support.safetensors", "score", C, "task")
LOCK = Lock(
    wvc="0.1.0",
    environment={"torch": "2.13.0", "cpu": "AVX2"},
    commit="e" * 40,
    base=A,
    recipe=Recipe((Weighted("support"), Weighted("sales", 0.7)), "opcm-s", {"alpha": 0.5}),
    tasks=(Parent("support", UUID, B), Parent("sales", UUID, C)),
    files={"model.safetensors": C, "heads/support.safetensors": D, "config.json": A},
    tensors=(MERGED, HEAD, PLAIN),
    max_shard_size=5_000_000_000,
)


def read(data):
    return Lock.from_bytes(data, "wvc.lock.json")


def changed(at=None, **members):
    value = json.loads(LOCK.to_bytes())
    inner = value
    for key in at or ():
        inner = inner[key]
    for key, item in members.items():
        inner[key] = item
    return canon.document({key: item for key, item in value.items() if item is not ...})


def refused(data, words):
    with pytest.raises(Corrupt, match=words) as caught:
        read(data)
    assert str(caught.value).startswith("wvc.lock.json: ")
    assert caught.value.hint == "build the directory again with `wvc checkout`"


def test_the_bytes_are_these():
    lines = LOCK.to_bytes().decode().split("\n")
    assert '"environment":{"cpu":"AVX2","torch":"2.13.0"},' in lines
    at = lines.index('"files":[')
    assert lines[at + 1 : at + 4] == [
        f'["config.json","{A}"],',
        f'["heads/support.safetensors","{D}"],',
        f'["model.safetensors","{C}"]',
    ]
    at = lines.index('"tensors":[')
    assert lines[at + 1 : at + 4] == [
        f'{{"digest":"{C}","file":"heads/support.safetensors","name":"score","rule":"task"}},',
        f'{{"digest":"{B}","file":"model.safetensors","name":"b","rule":"base"}},',
        f'{{"digest":"{A}","file":"model.safetensors","name":"w","ranks":[1,3],"rule":"projected"}}',
    ]


def test_the_tasks_of_the_recipe_are_those_that_are_pinned():
    words = "the tasks of its recipe are not those that it pins"
    refused(changed(tasks=[]), words)
    refused(changed(("recipe",), tasks=["support", "sales=0.7", "more"]), words)
    refused(changed(("recipe",), tasks=["sales=0.7", "support"]), words)


@pytest.mark.parametrize("commit", ["", "HEAD", "e" * 39, "E" * 40, "e" * 200_000])
def test_a_commit_is_named_in_full(commit):
    refused(changed(commit=commit), f"'{commit[:80]}' is not a commit id")


def test_what_is_written_is_read():
    ordered = replace(LOCK, tensors=(HEAD, PLAIN, MERGED))
    assert read(LOCK.to_bytes()) == ordered
    assert read(LOCK.to_bytes()).to_bytes() == LOCK.to_bytes()
    empty = replace(LOCK, environment={}, recipe=Recipe(()), tasks=(), files={}, tensors=(), max_shard_size=0)
    assert read(empty.to_bytes()) == empty


def test_the_digest_counts_no_heads():
    pairs = f'[["b","{B}"],["w","{A}"]]'
    assert LOCK.digest == hashlib.sha256(pairs.encode()).hexdigest()
    assert replace(LOCK, tensors=(PLAIN, MERGED)).digest == LOCK.digest
    assert replace(LOCK, tensors=(MERGED, PLAIN, replace(HEAD, digest=D))).digest == LOCK.digest
    assert replace(LOCK, tensors=(PLAIN, replace(MERGED, digest=D))).digest != LOCK.digest


def test_the_digest_knows_nothing_of_files_and_rules():
    elsewhere = (replace(MERGED, file="other.safetensors", rule="task", ranks=()), replace(PLAIN, file="x.safetensors"))
    assert replace(LOCK, tensors=elsewhere).digest == LOCK.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(b'"wvc":"0.1.0"', b'"wvc" :"0.1.0"'),
        lambda b: b.replace(b'"AVX2","torch":"2.13.0"', b'"AV\\u00582","torch":"2.13.0"'),
        lambda b: b.replace(b'{"cpu":"AVX2","torch":"2.13.0"}', b'{"torch":"2.13.0","cpu":"AVX2"}'),
        lambda b: b.replace(b'"max_shard_size":5000000000', b'"max_shard_size":5e9'),
        lambda b: b[:-1],
        lambda b: b + b"\n",
    ],
)
def test_another_spelling_is_refused(change):
    data = change(LOCK.to_bytes())
    assert json.loads(data) == json.loads(LOCK.to_bytes())
    refused(data, "not in canonical form")


@pytest.mark.parametrize(
    ("at", "members"),
    [
        ((), {"files": json.loads(LOCK.to_bytes())["files"][::-1]}),
        ((), {"tensors": json.loads(LOCK.to_bytes())["tensors"][::-1]}),
        ((), {"files": [*json.loads(LOCK.to_bytes())["files"], ["model.safetensors", C]]}),
        (("tensors", 1), {"ranks": []}),
        (("recipe",), {"on_int_mismatch": "error"}),
        (("recipe",), {"dtype": None}),
        (("recipe",), {"tasks": ["support=1.0", "sales=0.7"]}),
    ],
)
def test_a_redundant_or_unsorted_form_is_refused(at, members):
    refused(changed(at, **members), "not as wvc writes it: lists out of order, or a default spelled out")


def test_duplicate_names_are_refused():
    refused(LOCK.to_bytes().replace(b'"wvc"', b'"wvc":"1",\n"wvc"'), "duplicate name 'wvc'")


@pytest.mark.parametrize("key", sorted(json.loads(LOCK.to_bytes())))
def test_a_missing_key_is_refused(key):
    refused(changed(**{key: ...}), f"no {key}")


@pytest.mark.parametrize(
    ("at", "members", "words"),
    [
        ((), {"extra": 1}, "unknown extra"),
        ((), {"wvc": 1}, "1 is not of type str"),
        ((), {"environment": []}, "is not of type dict"),
        ((), {"environment": {"torch": 2}}, "2 is not of type str"),
        ((), {"commit": None}, "None is not of type str"),
        ((), {"base": "a"}, "'a' is not 64 hexadecimal digits"),
        ((), {"max_shard_size": None}, "None is not of type int"),
        ((), {"max_shard_size": -1}, "-1 is negative"),
        ((), {"max_shard_size": 5e9}, "5000000000.0 is not of type int"),
        ((), {"tasks": [{"task": "a"}]}, "no uuid, version"),
        ((), {"recipe": []}, "an object was expected"),
        (("recipe",), {"tasks": ["a=nan"]}, "the coefficient is not a finite number"),
        (("recipe",), {"tasks": ["a", "a"]}, "named twice: a"),
        ((), {"files": {"a": A}}, "is not of type list"),
        ((), {"files": [["a"]]}, "a file is a pair of path and digest"),
        ((), {"files": [[1, A]]}, "a file is a pair of path and digest"),
        ((), {"files": [["a", "A" * 64]]}, "is not 64 hexadecimal digits"),
        ((), {"files": [["../x", A]]}, "'../x' is not the path of a file in a model directory"),
        ((), {"files": [["a\0b", A]]}, "is not the path of a file in a model directory"),
        ((), {"files": [["A", A], ["a", A]]}, "cannot both be files"),
        (("tensors", 2), {"file": "a\0b"}, "a tensor in a file that is not among its files"),
        (("tensors", 2), {"file": "/etc/passwd"}, "a tensor in a file that is not among its files"),
        ((), {"tensors": None}, "None is not of type list"),
        (("tensors", 0), {"more": 1}, "unknown more"),
        (("tensors", 0), {"rule": 1}, "1 is not of type str"),
        (("tensors", 0), {"digest": ""}, "is not 64 hexadecimal digits"),
        (("tensors", 2), {"ranks": [1.0]}, "1.0 is not of type int"),
        (("tensors", 2), {"ranks": [-1]}, "-1 is negative"),
        (("tensors", 2), {"ranks": 3}, "3 is not of type list"),
        (("tensors", 2), {"digest": D}, "the tensors do not have the digest that the file states"),
        (("tensors", 2), {"name": "v"}, "the tensors do not have the digest that the file states"),
        ((), {"digest": D}, "the tensors do not have the digest that the file states"),
    ],
)
def test_what_is_no_lock_is_refused(at, members, words):
    refused(changed(at, **members), words)


def test_a_newer_schema_asks_for_an_upgrade():
    for data, words in (
        (changed(schema="weightvc/lock/2", more=1), "weightvc/lock/2"),
        (changed(("recipe",), schema="weightvc/recipe/2", more=1), "weightvc/recipe/2"),
    ):
        with pytest.raises(Unsupported, match=words) as caught:
            read(data)
        assert caught.value.hint == "upgrade weightvc"


@pytest.mark.parametrize("lossy", [(), ("sales",), ("support", "sales")])
def test_lossy_tasks_are_named(lossy):
    lock = replace(LOCK, lossy=lossy)
    assert read(lock.to_bytes()).lossy == lossy
    assert (b"lossy" in lock.to_bytes()) == bool(lossy)
    assert lock.digest == LOCK.digest


def test_lossy_tasks_are_those_of_the_recipe_in_its_order():
    words = "the lossy tasks are not tasks of its recipe, in its order"
    for names in (["other"], ["sales", "support"], ["sales", "sales"]):
        refused(changed(lossy=names), words)
    refused(changed(lossy=[]), "not as wvc writes it")
    refused(changed(lossy="sales"), "is not of type list")
    refused(changed(lossy=[1]), "is not of type str")
