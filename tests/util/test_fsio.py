import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from weightvc.util import fsio
from weightvc.util.errors import Conflict


def test_a_file_is_written_then_synced_then_named(tmp_path, record):
    steps = record()
    fsio.write_file(tmp_path / "f", b"data")
    scratch = steps.seen[0][1]
    assert scratch.startswith(f"tmp-{os.getpid()}-")
    assert steps.seen[:5] == [
        ("create", scratch), ("pwrite", scratch), ("fsync", scratch), ("rename", scratch, "f"), ("unlink", scratch)
    ]  # fmt: skip
    assert steps.seen[5:] == [("fsync", tmp_path.name)]
    assert (tmp_path / "f").read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failure_at_any_step_leaves_the_old_file_or_the_new(tmp_path, record, old):
    steps = record()
    fsio.write_file(tmp_path / "count", b"new")
    for n in range(len(steps.seen)):
        file = tmp_path / str(n) / "f"
        file.parent.mkdir()
        if old is not None:
            file.write_bytes(old)
        record(fail_at=n)
        with pytest.raises(OSError, match="Input/output error"):
            fsio.write_file(file, b"new")
        assert (file.read_bytes() if file.exists() else None) in (old, b"new")
        record()
        fsio.write_file(file, b"new")
        assert file.read_bytes() == b"new"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    class Short(fsio.Ops):
        def pwrite(self, fd, data, offset):
            return super().pwrite(fd, data[:3], offset)

    monkeypatch.setattr(fsio, "ops", Short())
    data = bytes(range(256))
    fsio.write_file(tmp_path / "f", memoryview(data).cast("I"))
    assert (tmp_path / "f").read_bytes() == data


def test_pwrite_from_several_threads(tmp_path):
    with fsio.NewFile(tmp_path, "scratch") as new:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda n: new.pwrite(bytes([n]) * 1000, n * 1000), range(32))) == [1000] * 32
        new.replace(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"".join(bytes([n]) * 1000 for n in range(32))


def test_append(tmp_path):
    with fsio.NewFile(tmp_path) as new:
        for part in (b"ab", bytearray(b"cd"), memoryview(b"ef")):
            new.write(part)
        assert os.pread(new.fileno(), 3, 2) == b"cde"
        new.replace(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_what_was_written_is_read_back(tmp_path, monkeypatch):
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: whole(fd, [buffers[0][:3]], offset))
    with fsio.NewFile(tmp_path) as new:
        new.write(bytes(range(100)))
        out = bytearray(10)
        new.pread_into(out, 7)
        assert out == bytes(range(7, 17))
        with pytest.raises(OSError, match="ends too early") as caught:
            new.pread_into(out, 95)
        assert caught.value.filename == str(new.path)


def test_an_unpublished_file_vanishes(tmp_path):
    def give_up():
        with fsio.NewFile(tmp_path) as new:
            new.write(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert os.listdir(tmp_path) == []


def test_a_scratch_file_is_never_someone_elses(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "scratch").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        fsio.NewFile(tmp_path, "scratch")
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_link_keeps_what_is_there(tmp_path):
    for n, new_one in enumerate([True, False]):
        with fsio.NewFile(tmp_path) as new:
            new.write(b"%d" % n)
            assert new.link(tmp_path / "f") is new_one
    assert (tmp_path / "f").read_bytes() == b"0"
    assert os.listdir(tmp_path) == ["f"]


def test_link_reports_other_failures(tmp_path):
    with fsio.NewFile(tmp_path) as new, pytest.raises(FileNotFoundError):
        new.link(tmp_path / "no" / "f")
    assert os.listdir(tmp_path) == []


def test_a_failed_sync_publishes_nothing(tmp_path, record):
    steps = record()
    fsio.write_file(tmp_path / "f", b"1")
    record(fail_at=steps.seen.index(next(s for s in steps.seen if s[0] == "fsync")))
    with pytest.raises(OSError, match="Input/output"):
        fsio.write_file(tmp_path / "g", b"1")
    assert os.listdir(tmp_path) == ["f"]


def test_make_dirs_syncs_every_new_name(tmp_path, record):
    steps = record()
    fsio.make_dirs(tmp_path / "a" / "b")
    assert steps.seen == [("mkdir", "a"), ("fsync", tmp_path.name), ("mkdir", "b"), ("fsync", "a")]
    fsio.make_dirs(tmp_path / "a" / "b")
    assert len(steps.seen) == 4


def test_make_dirs_survives_a_race(tmp_path, monkeypatch):
    class Raced(fsio.Ops):
        def mkdir(self, path):
            super().mkdir(path)
            super().mkdir(path)

    monkeypatch.setattr(fsio, "ops", Raced())
    fsio.make_dirs(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_sync_file_follows_no_link(tmp_path, record):
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to(tmp_path / "f")
    steps = record()
    fsio.sync_file(tmp_path / "f")
    assert steps.seen == [("fsync", "f")]
    with pytest.raises(OSError, match="symbolic links"):
        fsio.sync_file(tmp_path / "l")


def test_remove_file(tmp_path, record):
    (tmp_path / "f").touch()
    steps = record()
    fsio.remove_file(tmp_path / "f")
    assert steps.seen == [("unlink", "f"), ("fsync", tmp_path.name)]
    fsio.remove_file(tmp_path / "f")
    assert os.listdir(tmp_path) == []


def test_remove_tree(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").touch()
    for _ in range(2):
        fsio.remove_tree(tmp_path / "d")
    assert os.listdir(tmp_path) == []


def test_locks(tmp_path):
    lock = tmp_path / "lock"
    shared = fsio.locked(lock, shared=True)
    with shared, fsio.locked(lock, shared=True, wait=False):
        with pytest.raises(Conflict) as caught, fsio.locked(lock, shared=False, wait=False):
            pass
        assert str(caught.value) == f"{lock}: another wvc command holds this lock"
        assert caught.value.hint == "try again when it has ended"
    with fsio.locked(lock, shared=False, wait=False):
        pass


def test_a_killed_process_frees_its_lock(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from weightvc.util import fsio
with fsio.locked(Path({str(tmp_path / "lock")!r}), shared=False):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with fsio.locked(tmp_path / "lock", shared=False, wait=False):
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), fsio.locked(tmp_path / "lock", shared=True):
        pass
    assert not (tmp_path / "victim").exists()


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="No locks available"), fsio.locked(tmp_path / "lock", shared=True):
        pass


def test_is_regular(tmp_path):
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to(tmp_path / "f")
    os.mkfifo(tmp_path / "p")
    assert [fsio.is_regular(tmp_path / name) for name in ("f", "l", "p", ".", "no", "f/x")] == [True] + [False] * 5


def test_utime_touches_a_link_not_its_target(tmp_path):
    (tmp_path / "f").touch()
    os.utime(tmp_path / "f", (1, 1))
    (tmp_path / "l").symlink_to(tmp_path / "f")
    fsio.ops.utime(tmp_path / "l")
    assert os.stat(tmp_path / "f").st_mtime == 1
    fsio.ops.utime(tmp_path / "f")
    assert os.stat(tmp_path / "f").st_mtime > 10**9
