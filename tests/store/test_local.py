import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from weightvc.store.local import FETCH, LocalStore
from weightvc.util import fsio
from weightvc.util.errors import Conflict, Corrupt, Missing

DATA = b"weights" * 1000
OID = hashlib.sha256(DATA).hexdigest()


def test_the_layout_is_sha256sum(store, file_of):
    store.put([DATA])
    file = file_of(store, OID)
    assert file == store.root / OID[:2] / OID[2:]
    assert file.read_bytes() == DATA
    assert os.stat(file).st_nlink == 1
    assert list(store.tmp.iterdir()) == []


def test_nothing_is_made_before_the_first_put(store):
    list(store.ids())
    store.size(OID)
    store.sync()
    assert not store.root.parent.exists()


def test_a_deduplicated_object_is_freshened(store, file_of):
    store.put([DATA])
    os.utime(file_of(store, OID), (1, 1))
    assert not store.put([DATA]).new
    assert os.stat(file_of(store, OID)).st_mtime > 10**9


@pytest.mark.parametrize("damage", [b"", DATA[:-1], DATA + b"x", b"W" + DATA[1:]], ids=["cut", "short", "long", "flip"])
def test_damage_is_found_and_a_put_repairs_it(store, file_of, damage):
    store.put([DATA])
    file_of(store, OID).write_bytes(damage)
    with pytest.raises(
        Corrupt, match=f"object {OID}: its bytes hash to {hashlib.sha256(damage).hexdigest()}"
    ) as caught:
        store.verify(OID)
    assert caught.value.hint == "run wvc fsck"
    assert store.put([DATA]).new
    store.verify(OID)
    assert [path.name for path in store.tmp.iterdir()] == ["mend.lock"]


def test_an_object_that_cannot_be_freshened_is_stored_again(store, file_of, record):
    store.put([DATA])
    before = os.stat(file_of(store, OID)).st_ino
    steps = record()
    store.put([DATA])
    touch = next(n for n, step in enumerate(steps.seen) if step[0] == "utime")
    record(fail_at=touch, error=PermissionError(1, "not yours"))
    assert store.put([DATA]).new
    assert os.stat(file_of(store, OID)).st_ino != before
    store.verify(OID)


def test_a_lost_race_is_not_new(store, monkeypatch):
    other = LocalStore(store.root, store.tmp)
    real = store.verify

    def verify(oid):
        try:
            real(oid)
        finally:
            other.put([DATA])

    monkeypatch.setattr(store, "verify", verify)
    assert not store.put([DATA]).new
    assert list(store.tmp.iterdir()) == []


def test_foreign_names_are_not_ids(store):
    store.put([DATA])
    (store.root / "zz").mkdir()
    (store.root / "zz" / ("0" * 62)).touch()
    (store.root / "README").touch()
    shard = store.root / OID[:2]
    (shard / "tmp-1").touch()
    (shard / ("A" * 62)).touch()
    (shard / ("1" * 62)).mkdir()
    (shard / ("2" * 62)).symlink_to(shard / OID[2:])
    assert list(store.ids()) == [OID]


def test_what_is_no_regular_file_is_refused(store, file_of, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    file = file_of(store, OID)
    file.parent.mkdir(parents=True)
    words = "symbolic link or special file on the way|not a regular file"
    for place in (lambda: file.symlink_to(secret), lambda: os.mkfifo(file), file.mkdir):
        place()
        for act in (store.open, store.verify, store.size):
            with pytest.raises(Corrupt, match=words) as caught:
                act(OID)
            assert caught.value.hint == "move it away and run wvc fsck"
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_socket_is_refused(store, file_of, monkeypatch):
    import socket

    file_of(store, OID).parent.mkdir(parents=True)
    monkeypatch.chdir(file_of(store, OID).parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(OID[2:])
        with pytest.raises(Corrupt, match="symbolic link or special file"):
            store.open(OID)


def test_a_link_under_an_objects_name_is_replaced_not_followed(store, file_of, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    file_of(store, OID).parent.mkdir(parents=True)
    file_of(store, OID).symlink_to(secret)
    assert store.put([DATA]).new
    assert secret.read_bytes() == b"mine"
    assert not file_of(store, OID).is_symlink()
    store.verify(OID)


def test_what_is_put_while_damage_is_put_aside_stays(store, file_of, tmp_path, monkeypatch):
    store.put([DATA])
    file_of(store, OID).write_bytes(b"damaged")
    real, puts = fsio.ops.rename, []

    def rename(old, new):
        if not puts:
            puts.append(threading.Thread(target=store.put, args=([DATA],)))
            puts[0].start()
            puts[0].join(0.2)  # long enough to end, were it not waiting
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(fsio.ops, "rename", rename)
        assert store.put_aside(OID, tmp_path / "quarantine")
    puts[0].join()
    store.verify(OID)
    (aside,) = (tmp_path / "quarantine").iterdir()
    assert aside.read_bytes() == b"damaged"


@pytest.mark.parametrize("present", [None, DATA], ids=["absent", "whole"])
def test_what_is_not_damaged_is_not_put_aside(store, tmp_path, present):
    if present is not None:
        store.put([present])
    assert not store.put_aside(OID, tmp_path / "quarantine")
    assert (store.size(OID) is None) == (present is None)


@pytest.mark.parametrize("where", ["root", "shard"])
def test_nothing_is_put_aside_through_a_link(store, file_of, tmp_path, where):
    """Into somebody else's store, whose objects are whole."""
    store.put([DATA])
    directory = {"root": store.root, "shard": file_of(store, OID).parent}[where]
    directory.rename(tmp_path / "theirs")
    directory.symlink_to(tmp_path / "theirs")
    with pytest.raises(Conflict, match=f"{directory} is not a plain directory") as caught:
        store.put_aside(OID, tmp_path / "quarantine")
    assert caught.value.hint == "move it away"
    assert file_of(store, OID).read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_only_a_fault_of_the_disk_is_damage(store, file_of, tmp_path, monkeypatch, code):
    store.put([DATA])

    monkeypatch.setattr(store, "verify", Mock(side_effect=OSError(code, os.strerror(code))))
    if code == errno.EIO:
        assert store.put_aside(OID, tmp_path / "quarantine")
        assert store.put([DATA]).new
        return
    with pytest.raises(OSError, match=os.strerror(code)):
        store.put_aside(OID, tmp_path / "quarantine")
    assert file_of(store, OID).read_bytes() == DATA


def test_a_bad_sector_is_mended_by_a_put(store, file_of, monkeypatch):
    store.put([DATA])
    before = file_of(store, OID).stat().st_ino
    monkeypatch.setattr(store, "verify", Mock(side_effect=OSError(errno.EIO, "bad sector")))
    assert store.put([DATA]).new
    assert file_of(store, OID).stat().st_ino != before
    monkeypatch.setattr(store, "verify", Mock(side_effect=OSError(errno.EMFILE, "too many")))
    with pytest.raises(OSError, match="too many"):
        store.put([DATA])


def test_a_directory_in_the_place_of_an_object_is_named(store, file_of):
    file_of(store, OID).mkdir(parents=True)
    with pytest.raises(Conflict, match="is a directory where the file of an object belongs") as caught:
        store.put([DATA])
    assert caught.value.hint == "move it away"


@pytest.mark.parametrize("where", ["root", "shard", "tmp"])
@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_directories_must_be_plain(store, tmp_path, where, kind):
    store.put([b"another"])
    place = {"root": store.root, "shard": store.root / OID[:2], "tmp": store.tmp}[where]
    elsewhere = tmp_path / "elsewhere"
    if place.exists():
        place.rename(elsewhere)
    else:
        elsewhere.mkdir()
    if kind == "file":
        place.touch()
    else:
        place.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(Conflict, match="not a plain directory; wvc writes nothing through it") as caught:
        store.put([DATA])
    assert caught.value.hint == "move it away"
    assert sorted(elsewhere.rglob("*")) == before
    if where != "tmp":
        with pytest.raises(Corrupt, match="on the way to this object"):
            store.open(OID)


def test_other_system_errors_are_passed_on(store, monkeypatch):
    store.put([DATA])

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(OSError, match="Input/output error"):
        store.verify(OID)


def test_a_scratch_store_adopts_objects(store, tmp_path, file_of):
    scratch = LocalStore(tmp_path / "wvc/scratch", store.tmp)
    store.put([DATA])
    scratch.adopt(store, OID)
    assert list(scratch.ids()) == [OID]
    assert os.path.samefile(file_of(scratch, OID), file_of(store, OID))
    with pytest.raises(Missing, match=f"object {'0' * 64} is not in the store") as caught:
        scratch.adopt(store, "0" * 64)
    assert caught.value.hint == FETCH


def test_a_store_that_was_never_made_is_that_of_a_fresh_clone(store, tmp_path):
    never = LocalStore(tmp_path / "never/objects", tmp_path / "never/tmp")
    for act in (never.open, never.verify, lambda oid: store.adopt(never, oid)):
        with pytest.raises(Missing, match="this clone has no objects yet: only git history was cloned") as caught:
            act(OID)
        assert (
            caught.value.hint
            == f"`wvc remote add NAME URL` and `wvc fetch` bring them, or copy another clone's to {never.root}"
        )


def test_bytes_then_name_then_directories(store, record):
    """The order that makes an acknowledged object survive a power cut."""
    steps = record()
    store.put([DATA])
    root, shard, tmp = (str(p) for p in (store.root, store.root / OID[:2], store.tmp))
    scratch = next(path for what, path, *_ in steps.seen if what == "create")
    put = [step for step in steps.seen if scratch in step]
    assert put[:5] == [
        ("create", scratch),
        ("pwrite", scratch),
        ("fsync", scratch),
        ("link", scratch, f"{shard}/{OID[2:]}"),
        ("unlink", scratch),
    ]
    assert {what for what, *_ in put[5:]} <= {"unlink"}
    assert scratch.startswith(tmp + "/")
    made = steps.seen.index(("mkdir", shard))
    assert steps.seen[made + 1] == ("fsync", root)

    del steps.seen[:]
    store.sync()
    assert steps.seen == [("fsync", shard), ("fsync", root), ("fsync", os.path.dirname(root))]
    store.sync()
    assert len(steps.seen) == 3


def test_a_deduplicated_object_is_synced_too(store, record):
    store.put([DATA])
    again = LocalStore(store.root, store.tmp)
    again.put([DATA])
    steps = record()
    again.sync()
    assert ("fsync", str(store.root / OID[:2])) in steps.seen


def test_a_failed_sync_is_not_forgotten(store, record):
    store.put([DATA])
    record(fail_at=1)
    with pytest.raises(OSError, match="No space left"):
        store.sync()
    steps = record()
    store.sync()
    assert ("fsync", str(store.root / OID[:2])) in steps.seen


def put_and_sync(store):
    store.put([DATA])
    store.sync()


@pytest.mark.parametrize("present", [None, DATA, b"damaged"], ids=["absent", "present", "damaged"])
def test_a_failure_at_any_step_leaves_the_old_state_or_the_new(tmp_path, record, file_of, present):
    def prepared(n):
        store = LocalStore(tmp_path / str(n) / "objects", tmp_path / str(n) / "tmp")
        if present is not None:
            record()
            store.put([DATA])
            store.sync()
            file_of(store, OID).write_bytes(present)
        return store

    store = prepared("all")
    steps = record()
    store.put([DATA])
    store.sync()
    assert len(steps.seen) > 5
    for n in range(len(steps.seen)):
        store = prepared(n)
        recorder = record(fail_at=n)
        with pytest.raises(OSError, match="No space left"):
            put_and_sync(store)
        assert len(recorder.seen) > n
        file = file_of(store, OID)
        assert (file.read_bytes() if file.exists() else None) in (present, DATA)
        record()
        store.put([DATA])
        store.sync()
        store.verify(OID)


def test_the_page_tells_how_to_check_a_store(tmp_path):
    page = (Path(__file__).parents[2] / "docs/format/store.md").read_text()
    script = page.split("```sh\n")[1].split("```")[0]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    store = LocalStore(tmp_path / ".git/wvc/objects", tmp_path / ".git/wvc/tmp")
    for data in (DATA, b"", b"x"):
        store.put([data])
    assert subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False).returncode == 0
    (store.root / OID[:2] / OID[2:]).write_bytes(b"damaged")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{OID[:2]}/{OID[2:]}: FAILED" in done.stdout


def test_no_torch():
    code = "import sys, weightvc.store.local, weightvc.objects.tensors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
