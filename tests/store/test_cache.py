import errno
import hashlib
import os
import threading

import pytest

from weightvc.store import cache
from weightvc.store.cache import Cache, forget
from weightvc.util import fsio

DATA = bytes(range(250)) * 8
SIZE = len(DATA)
ABOUT = [["0x1.8p+1"], [3]]
BIG = 2**30


def key(name):
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def opened(tmp_path):
    return lambda limit=BIG: Cache(tmp_path / "wvc/cache", tmp_path / "wvc/tmp", limit)


@pytest.fixture
def path(tmp_path):
    return lambda name: tmp_path / "wvc/cache" / key(name)


def put(found, *names, data=DATA):
    for name in names:
        found.put(key(name), [f"{name}-tag", "all"], ABOUT, memoryview(data))


def get(found, name, *, nbytes=SIZE, **options):
    out = memoryview(bytearray(nbytes))
    about = found.get(key(name), out, **options)
    return None if about is None else (about, bytes(out))


def age(path, *names):
    """Give the files times of use long ago, in this order."""
    for at, name in enumerate(names):
        os.utime(path(name), (at, at))


@pytest.fixture
def size(opened, path):
    """Return the bytes of one file."""
    put(opened(), "s")
    found = path("s").stat().st_size
    path("s").unlink()
    return found


def test_what_is_put_is_found_by_this_process_and_the_next(opened, tmp_path):
    first = opened()
    assert get(first, "a") is None
    assert not (tmp_path / "wvc").exists()
    put(first, "a")
    for found in (first, opened()):
        assert get(found, "a") == (ABOUT, DATA)
        assert get(found, "b") is None
    assert list((tmp_path / "wvc/tmp").iterdir()) == []


def test_every_changed_byte_and_every_cut_is_found(opened, path):
    put(opened(), "a")
    whole = path("a").read_bytes()
    for at in range(len(whole)):
        for bad in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            path("a").write_bytes(bad)
            assert get(opened(), "a") is None, at
            assert not path("a").exists()


def test_another_keys_file_is_not_taken(opened, path):
    put(opened(), "a", "b")
    path("a").replace(path("b"))
    assert get(opened(), "b") is None
    assert not path("b").exists()


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_data_of_another_size_is_not_taken(opened, path, size):
    put(opened(), "a")
    assert get(opened(), "a", nbytes=size) is None
    assert not path("a").exists()


def test_a_header_beyond_all_bounds_is_not_read(opened, path):
    put(opened(), "a")
    path("a").write_bytes(b"weightvc cache 1" + b"\xff" * 100)
    assert get(opened(), "a") is None


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_counts_as_absent(opened, path, kind):
    put(opened(), "a", "b")
    path("a").unlink()
    if kind == "link":
        path("a").symlink_to(path("b"))
    elif kind == "fifo":
        os.mkfifo(path("a"))
    else:
        path("a").mkdir()
    assert get(opened(), "a") is None
    assert get(opened(), "b") == (ABOUT, DATA)


def test_what_cannot_be_read_counts_as_absent(opened, path, monkeypatch):
    found = opened()
    put(found, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        assert get(found, "a") is None
    assert not path("a").exists()
    put(found, "a")
    assert get(found, "a") == (ABOUT, DATA)


def test_the_least_recently_used_goes_first(opened, path, size):
    found = opened(3 * size)
    put(found, "a", "b", "c")
    get(found, "a")
    get(found, "b", keep=False)
    put(found, "d")
    assert [path(name).exists() for name in "abcd"] == [True, False, True, True]
    put(found, "e")
    assert [path(name).exists() for name in "abcde"] == [True, False, False, True, True]


def test_use_is_remembered_between_processes(opened, path, size):
    put(opened(), "a", "b", "c", "d")
    age(path, "c", "a", "d", "b")
    found = opened(4 * size)
    get(found, "c")
    get(found, "a", keep=False)
    put(opened(4 * size), "e")
    assert [path(name).exists() for name in "abcde"] == [False, True, True, True, True]


def test_putting_again_takes_no_room(opened, path, size):
    found = opened(2 * size)
    put(found, "a", "b", "b", "b")
    assert get(found, "a") == (ABOUT, DATA)
    get(found, "b")
    path("a").write_bytes(b"x")
    get(found, "a")
    put(found, "c")
    assert [path(name).exists() for name in "abc"] == [False, True, True]


def test_a_smaller_limit_makes_room_at_once(opened, path, size):
    put(opened(), "a", "b", "c")
    age(path, "b", "c", "a")
    opened(2 * size)
    assert [path(name).exists() for name in "abc"] == [True, False, True]
    opened(2 * size - 1)
    assert [path(name).exists() for name in "abc"] == [True, False, False]
    opened(0)
    assert list(path("a").parent.iterdir()) == []


def test_what_exceeds_the_limit_alone_drops_nothing(opened, path, size):
    found = opened(size)
    put(found, "a")
    put(found, "b", data=DATA + b"x")
    assert [path(name).exists() for name in "ab"] == [True, False]
    put(opened(0), "c")
    assert not path("c").exists()


def test_files_of_other_names_do_not_count(opened, path, size):
    put(opened(), "a")
    other = path("a").with_name("README")
    other.write_bytes(bytes(10 * size))
    assert get(opened(size), "a") == (ABOUT, DATA)
    assert other.exists()


@pytest.mark.parametrize("step", ["mkdir", "create", "pwrite", "rename"])
def test_a_disk_that_fails_ends_writing_and_nothing_else(opened, record, tmp_path, step):
    put(opened(), "a")
    if step == "mkdir":
        (tmp_path / "wvc/tmp").rmdir()
    steps = record()
    put(opened(), "b")
    at = next(n for n, seen in enumerate(steps.seen) if seen[0] == step)
    (tmp_path / "wvc/cache" / key("b")).unlink()
    if step == "mkdir":
        (tmp_path / "wvc/tmp").rmdir()

    steps = record(fail_at=at, error=OSError(errno.EIO, "Input/output error"))
    found = opened()
    put(found, "b", "c")

    assert [seen for seen in steps.seen[at + 1 :] if seen[0] != "unlink"] == []  # nothing more was tried
    assert get(found, "a") == (ABOUT, DATA)
    assert get(found, "b") is None
    assert [file.name for file in (tmp_path / "wvc/cache").iterdir()] == [key("a")]
    assert not list((tmp_path / "wvc").glob("tmp/*"))


def test_a_full_disk_gets_all_of_it_back(opened, record, tmp_path):
    put(opened(), "a", "b")
    steps = record(fail_at=1)
    found = opened()
    put(found, "c", "d")
    assert [seen[0] for seen in steps.seen] == ["create", "pwrite", "unlink", "unlink", "unlink"]
    assert [*(tmp_path / "wvc/cache").iterdir(), *(tmp_path / "wvc/tmp").iterdir()] == []
    assert get(found, "a") is None


def test_nothing_is_written_through_a_link(opened, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wvc").mkdir()
    (tmp_path / "wvc/cache").symlink_to(tmp_path / "elsewhere")
    put(opened(), "a")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_synced(opened, record):
    put(opened(), "a")
    steps = record()
    put(opened(), "b")
    assert {seen[0] for seen in steps.seen} == {"create", "pwrite", "rename", "unlink"}


def test_a_time_that_cannot_be_set_is_no_failure(opened, record):
    put(opened(), "a")
    record(fail_at=0, error=PermissionError(1, "not yours"))
    assert get(opened(), "a") == (ABOUT, DATA)


def test_processes_meet_in_one_directory(opened, path):
    one, other = opened(), opened()
    put(one, "a", "b")
    assert get(other, "a") == (ABOUT, DATA)
    path("b").unlink()
    assert get(one, "b") is None
    put(other, "b")
    assert get(one, "b") == (ABOUT, DATA)


def test_threads_share_one(opened, path, size):
    found = opened(5 * size)
    wrong = []

    def work(at):
        for turn in range(20):
            put(found, chr(65 + 4 * turn + at))
            wrong.extend(
                seen
                for name in range(4)
                if (seen := get(found, chr(65 + 4 * turn + name))) not in (None, (ABOUT, DATA))
            )

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(file.stat().st_size for file in path("x").parent.iterdir()) <= 5 * size


def test_forgetting_takes_what_has_a_tag_and_nothing_else(opened, path, tmp_path):
    assert forget(tmp_path / "wvc/cache", ["a-tag"]) == []
    put(opened(), "a", "b", "c")
    assert forget(path("a").parent, []) == []
    assert forget(path("a").parent, ["a-tag", "c-tag", "d-tag"]) == []
    assert [path(name).exists() for name in "abc"] == [False, True, False]
    put(opened(), "a")
    assert forget(path("a").parent, ["all"]) == []
    assert list(path("a").parent.iterdir()) == []


def test_forgetting_takes_what_cannot_say_its_tags(opened, path):
    put(opened(), "a", "b")
    whole = path("a").read_bytes()
    path("a").write_bytes(whole.replace(b"a-tag", b"x-tag"))
    path("b").write_bytes(b"")
    path("a").with_name("README").write_text("mine")
    assert forget(path("a").parent, ["c-tag"]) == []
    assert [file.name for file in path("a").parent.iterdir()] == ["README"]


def test_forgetting_names_what_it_cannot_remove(opened, path, record):
    put(opened(), "a")
    record(fail_at=0, error=PermissionError(1, "not yours"))
    assert forget(path("a").parent, ["a-tag"]) == [path("a")]


def test_what_goes_while_it_is_forgotten_is_gone(opened, path, monkeypatch):
    put(opened(), "a")
    monkeypatch.setattr(cache, "_files", lambda _: [(0, 0, path("gone"))])
    assert forget(path("a").parent, ["a-tag"]) == []


def test_what_goes_before_it_is_removed_is_gone(opened, path, monkeypatch):
    put(opened(), "a")

    class Racing(fsio.Ops):
        def unlink(self, path):
            os.unlink(path)
            super().unlink(path)

    monkeypatch.setattr(fsio, "ops", Racing())
    assert forget(path("a").parent, ["a-tag"]) == []
