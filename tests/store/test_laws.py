"""What every object store must do. Add a store to ``STORES`` and it is held to all of it."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from weightvc.objects.store import ObjectStore, Stored
from weightvc.store.local import FETCH, LocalStore
from weightvc.util.errors import BadInput, Missing

STORES = {"local": lambda base: LocalStore(base / "objects", base / "tmp")}
CONTENTS = [b"", b"\0", b"hello", random.Random(0).randbytes(3 * 2**20 + 1)]
ABSENT = "0" * 64


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
def any_store(request, tmp_path) -> ObjectStore:
    return request.param(tmp_path)


@pytest.mark.parametrize("data", CONTENTS, ids=len)
def test_get_returns_what_was_put_under_its_sha256(any_store, data):
    stored = any_store.put([data])
    assert stored == Stored(hashlib.sha256(data).hexdigest(), len(data), new=True)
    any_store.sync()
    with any_store.open(stored.object) as view:
        assert view == data
        assert view.readonly
    assert any_store.size(stored.object) == len(data)
    any_store.verify(stored.object)


def test_chunking_does_not_matter(any_store):
    data = CONTENTS[-1]
    whole = any_store.put([data])
    words = memoryview(data[: 2**20]).cast("I")
    parts = any_store.put(iter([words, memoryview(data)[2**20 : 2**21], b"", data[2**21 :]]))
    assert parts == Stored(whole.object, len(data), new=False)


def test_put_is_idempotent(any_store):
    assert [any_store.put([b"x"]).new for _ in range(3)] == [True, False, False]
    assert len(list(any_store.ids())) == 1


def test_an_empty_store_has_nothing(any_store):
    assert list(any_store.ids()) == []
    assert any_store.size(ABSENT) is None
    any_store.sync()
    for act in (any_store.open, any_store.verify):
        with pytest.raises(Missing):
            act(ABSENT)
    any_store.put([b"x"])
    for act in (any_store.open, any_store.verify):
        with pytest.raises(Missing, match=f"object {ABSENT} is not in the store") as caught:
            act(ABSENT)
        assert caught.value.hint == FETCH


@pytest.mark.parametrize("oid", ["", "ab", "A" * 64, "../" * 21 + "x", "0" * 63 + "\n"])
def test_only_ids_are_looked_up(any_store, oid):
    for act in (any_store.open, any_store.verify, any_store.size):
        with pytest.raises(BadInput, match=r"object id: .* is not 64 hexadecimal digits"):
            act(oid)


def test_ids_lists_every_object_once(any_store):
    put = [any_store.put([bytes([n])]).object for n in range(200)]
    assert sorted(any_store.ids()) == sorted(put)


def test_concurrent_puts_agree_and_one_is_new(any_store):
    contents = [bytes([n % 5]) * 10_000 for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda data: any_store.put([data]), contents))
    any_store.sync()
    assert [s.object for s in stored] == [hashlib.sha256(data).hexdigest() for data in contents]
    assert sum(s.new for s in stored) == 5
    for oid in any_store.ids():
        any_store.verify(oid)


def test_a_put_that_fails_midway_stores_nothing(any_store):
    def chunks():
        yield b"a" * 100_000
        raise RuntimeError

    with pytest.raises(RuntimeError):
        any_store.put(chunks())
    assert list(any_store.ids()) == []
