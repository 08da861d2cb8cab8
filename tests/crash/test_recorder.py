"""The recorder itself: it misses no change, and fails the one that it is told to; and the judge finds seeded bugs."""

import errno
import shutil

import disk
import judge
import pytest

EVERYTHING = """
import os, subprocess, sys
os.mkdir("a"); os.makedirs("b/c")
with open("a/one", "w") as file:
    file.write("one\\n"); file.flush(); file.write("two\\n"); os.fsync(file.fileno())
fd = os.open("a/two", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.pwrite(fd, b"abc", 3); os.writev(fd, [b"x", b"yz"]); os.ftruncate(fd, 5); os.fdatasync(fd); os.close(fd)
with open("a/one", "a") as file:
    file.write("three\\n")
directory = os.open("b", os.O_RDONLY)
os.mkdir("d", dir_fd=directory); os.rmdir("c", dir_fd=directory); os.fsync(directory)
os.link("a/one", "a/hard"); os.symlink("one", "a/soft"); os.rename("a/two", "b/two"); os.unlink("a/one")
os.replace("a/hard", "e", dst_dir_fd=directory); os.remove("a/soft")
open("a/gone", "w").close(); open("kept", "w").close()
os.unlink(os.path.abspath("a/gone"))
subprocess.run([sys.executable, "-c", "open('child', 'wb').write(bytes(70000))"], check=True)
subprocess.run(["git", "init", "-q"], check=True)
subprocess.run(["git", "config", "user.name", "Eve"], check=True)
subprocess.run(["git", "add", "."], check=True)
subprocess.run(["git", "commit", "-q", "-m", "m"], check=True)
subprocess.run(["git", "symbolic-ref", "HEAD", "refs/heads/other"], check=True)
subprocess.run(["git", "checkout", "-q", "-b", "more"], check=True)
open(os.path.dirname(os.getcwd()) + "/outside", "w").write("not watched")
os._exit(7)
"""


@pytest.fixture
def ground(arena):
    root = arena / "ground"
    (root / "watched").mkdir(parents=True)
    yield root / "watched"
    shutil.rmtree(root)


def test_no_change_is_missed(recorder, ground):
    held = disk.scan(ground)
    ran = recorder.run(ground, before=EVERYTHING)

    assert (ran.code, ran.err) == (7, "")
    assert disk.Disk(*held, ran.operations).tree() == disk.scan(ground)[0]
    assert {operation.kind for operation in ran.operations} == set("cwtsmlyrud")
    assert not any("outside" in operation.path for operation in ran.operations)
    assert (ran.tried, ran.fired) == (ran.operations[-1].number, False)


PAIR = 'import os; os.mkdir("one"); os.rmdir("one"); os.mkdir("two"); os.mkdir("three"); os._exit(7)'


def test_a_kill_takes_the_whole_group(recorder, ground):
    start = 'import os, subprocess; subprocess.Popen(["sh", "-c", "sleep 600; mkdir late"]); '
    ran = recorder.run(ground, at=3, before=start + PAIR)

    assert (ran.code, ran.fired, [str(operation) for operation in ran.operations]) == (-9, True, ["1m one", "2d one"])
    assert list(ground.iterdir()) == []


TRIES = """
import os
os.mkdir("one"); os.rmdir("one")
for name in ("two", "three", "four"):
    try:
        os.mkdir(name)
    except OSError as error:
        os.write(2, b"%d " % error.errno)
os.rmdir("two")
os._exit(7)
"""


@pytest.mark.parametrize(("lasting", "left"), [(False, ["four"]), (True, [])])
def test_an_error_once_or_from_then_on(recorder, ground, *, lasting, left):
    ran = recorder.run(ground, at=4, error=errno.ENOSPC, lasting=lasting, before=TRIES)

    assert (ran.code, ran.fired) == (7, True)
    assert ran.err == f"{errno.ENOSPC} " * (2 if lasting else 1)
    assert sorted(path.name for path in ground.iterdir()) == left


# seeded bugs

NO_DIRECTORY_SYNCS = "from weightvc.util import fsio; fsio.sync_dir = lambda path: None"
NO_FILE_SYNCS = "from weightvc.util import fsio; fsio.Ops.fsync = lambda self, fd: None"
UNSYNCED_GIT = "from weightvc.history import process; process._SETTINGS |= {'core.fsync': 'none'}"
REF_FIRST = """
from weightvc.history import commit
from weightvc.repo import commit as case
commit._sync_objects = lambda git, made, tip: None
commit.process._SETTINGS |= {'core.fsync': 'none'}
"""
OBJECTS_LATE = "from weightvc.store.local import LocalStore; LocalStore.sync = lambda self: None"


@pytest.mark.parametrize(
    ("seeded", "command", "found"),
    [
        (NO_DIRECTORY_SYNCS, ("staged", "commit", "-m", "Add beta"), "head is lost"),
        (NO_FILE_SYNCS, ("one", "add", "{models}/beta", "--task", "beta", "-j", "1"), "staged is"),
        (REF_FIRST, ("staged", "commit", "-m", "Add beta"), "git fsck"),
        (UNSYNCED_GIT, ("staged", "commit", "-m", "Add beta"), "index"),
        (OBJECTS_LATE, ("one", "add", "{models}/beta", "--task", "beta", "-j", "1"), "wvc fsck"),
        (NO_DIRECTORY_SYNCS, ("model", "checkout", "-j", "1"), "model is lost"),
    ],
)
def test_a_seeded_bug_is_found(record, judged, models, arena, *, seeded, command, found):
    start, *arguments = (part.format(models=models) for part in command)
    recorded = record(start, *arguments, before=seeded)
    crashes = disk.distinct(recorded.disk, judge.UNREAD.fullmatch)
    for n, crash in enumerate(sorted(crashes, key=lambda crash: not crash.ended)):
        root = arena / f"seeded {n}"
        disk.write(crash.tree, root)
        judge.restart(root)
        wrong = judged.violations(root, recorded.old, recorded.new, done=crash.ended, unaided=True)
        shutil.rmtree(root)
        if any(found in what for what in wrong):
            return
    pytest.fail(f"nothing found in {len(crashes)} states")


def test_a_missing_sync_is_on_record(record):
    whole = record("staged", "commit", "-m", "Add beta").run.operations
    lacking = record("staged", "commit", "-m", "Add beta", before=NO_DIRECTORY_SYNCS).run.operations

    assert sum(operation.kind == "s" for operation in lacking) < sum(operation.kind == "s" for operation in whole)
    assert ".git/refs/heads" in {operation.path for operation in whole if operation.kind == "s"}
    assert ".git/refs/heads" not in {operation.path for operation in lacking if operation.kind == "s"}


def test_what_is_left_over_is_seen(starts, arena):
    root = judge.copy(starts["two"].path, arena / "left")
    assert judge.left_over(root) == []
    left = [".git/index.lock", ".git/wvc/tmp/tmp-12-0123456789abcdef", ".model.wvc-12-01234567"]
    for name in left:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()

    assert judge.left_over(root) == sorted(left)
    shutil.rmtree(root)
