import os
import subprocess
import sys

import pytest

from weightvc.util import fsio, scratch
from weightvc.util.errors import Conflict


def directory(path, text):
    path.mkdir()
    (path / "f").write_text(text)
    return path


def test_publish_a_new_directory(tmp_path):
    scratch.publish_dir(directory(tmp_path / "made", "new"), tmp_path / "final")
    assert (tmp_path / "final" / "f").read_text() == "new"
    assert os.listdir(tmp_path) == ["final"]


def test_publish_over_a_directory(tmp_path):
    directory(tmp_path / "final", "old")
    scratch.publish_dir(directory(tmp_path / "made", "new"), tmp_path / "final")
    assert (tmp_path / "final" / "f").read_text() == "new"
    assert os.listdir(tmp_path) == ["final"]


def test_a_failed_publication_puts_the_old_directory_back(tmp_path, record):
    directory(tmp_path / "final", "old")
    directory(tmp_path / "made", "new")
    record(fail_at=1)
    with pytest.raises(OSError, match="Input/output"):
        scratch.publish_dir(tmp_path / "made", tmp_path / "final")
    assert (tmp_path / "final" / "f").read_text() == "old"
    record(fail_at=0)
    with pytest.raises(OSError, match="Input/output"):
        scratch.publish_dir(tmp_path / "made", tmp_path / "final")
    assert sorted(os.listdir(tmp_path)) == ["final", "made"]


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupted_publication_leaves_the_old_directory_or_the_new(tmp_path, monkeypatch, after):
    class Interrupted(fsio.Ops):
        renames = 0

        def rename(self, old, new):
            super().rename(old, new)
            self.renames += 1
            if self.renames == after + 1:
                raise KeyboardInterrupt

    directory(tmp_path / "final", "old")
    directory(tmp_path / "made", "new")
    monkeypatch.setattr(fsio, "ops", Interrupted())

    with pytest.raises(KeyboardInterrupt):
        scratch.publish_dir(tmp_path / "made", tmp_path / "final")

    assert (tmp_path / "final/f").read_text() == ["old", "new"][after]


def test_a_check_keeps_the_old_directory(tmp_path):
    directory(tmp_path / "final", "old")
    seen = []

    def check(aside):
        seen.append((aside.name, (aside / "f").read_text(), (tmp_path / "final").exists()))
        raise Conflict("keep it")

    with pytest.raises(Conflict, match="keep it"):
        scratch.publish_dir(directory(tmp_path / "made", "new"), tmp_path / "final", check)

    ((aside, text, there),) = seen
    assert (aside[: aside.rindex("-")], text, there) == (f".final.old-{os.getpid()}", "old", False)
    assert (tmp_path / "final/f").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["final", "made"]


@pytest.fixture
def dead():
    """The id of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, stdout=-1).stdout)


@pytest.fixture
def another():
    """Run code in a process of its own until it prints; it is killed in the end."""
    running = []

    def run(code):
        code = f"from pathlib import Path\nfrom weightvc.util import fsio, scratch\n{code}\nprint(flush=True)\ninput()"
        running.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        running[-1].stdout.readline()
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def contained(monkeypatch, pid):
    """Give this process an id as in a container, where the ids of others say nothing."""
    monkeypatch.setattr(os, "getpid", lambda: pid)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("mine", [True, False])
def test_a_sweep_takes_what_dead_processes_left_whoever_has_their_ids(tmp_path, dead, mine, there):
    pid = os.getpid() if mine else dead
    kept = [f".g.wvc-{pid}-0123abcd", f".f.wvc-0{pid}-0123abcd", f".f.wvc-{pid}-0-0123abcd", f".f.new-{pid}-0123abcd"]
    gone = [f".f.wvc-{pid}-0123abcd", f".f.wvc-{pid}-11111111"]
    for name in [*kept, *gone]:
        directory(tmp_path / name, "x")
    directory(tmp_path / f".f.old-{pid}-0123abcd", "old")
    if there:
        directory(tmp_path / "f", "new")

    scratch.sweep(tmp_path / "f")

    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "f"])
    assert (tmp_path / "f/f").read_text() == ("new" if there else "old")


def test_a_sweep_takes_the_files_of_dead_processes_only(tmp_path, another, monkeypatch):
    another(f"new = fsio.NewFile(Path({str(tmp_path)!r}))")
    (kept,) = os.listdir(tmp_path)
    (tmp_path / "tmp-1-0123456789abcdef").touch()
    directory(tmp_path / "tmp-1-1123456789abcdef", "x")
    os.mkfifo(tmp_path / "tmp-1-2123456789abcdef")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process id was asked for"))

    scratch.sweep_files(tmp_path)

    assert sorted(os.listdir(tmp_path)) == sorted([kept, "tmp-1-2123456789abcdef"])


def test_a_directory_of_a_live_process_is_kept_until_that_is_killed(tmp_path, another, dead):
    made = tmp_path / f".f.wvc-{dead}-0123abcd"
    process = another(f"held = scratch.directory(Path({str(made)!r}))\nheld.__enter__()")
    scratch.sweep(tmp_path / "f")
    assert os.listdir(tmp_path) == [made.name]

    process.kill()
    process.wait()
    scratch.sweep(tmp_path / "f")
    assert os.listdir(tmp_path) == []


def test_a_directory_moved_aside_is_kept_while_its_process_lives(tmp_path, monkeypatch):
    seen = []

    class Watched(fsio.Ops):
        def rename(self, old, new):
            super().rename(old, new)
            scratch.sweep(tmp_path / "final")
            seen.append(sorted(os.listdir(tmp_path)))

    directory(tmp_path / "final", "old")
    contained(monkeypatch, 2**22 + 1)  # beyond every id there can be
    monkeypatch.setattr(fsio, "ops", Watched())
    scratch.publish_dir(directory(tmp_path / "made", "new"), tmp_path / "final")

    aside = seen[0][0]
    assert aside.startswith(f".final.old-{2**22 + 1}-")
    assert seen == [[aside, "made"], [aside, "final"]]
    assert (tmp_path / "final/f").read_text() == "new"


@pytest.mark.parametrize("how", ["write_file", "link"])
def test_a_file_is_held_until_it_has_its_name(tmp_path, monkeypatch, how):
    class Swept(fsio.Ops):
        def fsync(self, fd):
            super().fsync(fd)
            scratch.sweep_files(tmp_path)

    monkeypatch.setattr(fsio, "ops", Swept())
    contained(monkeypatch, 2**22 + 1)
    if how == "link":
        with fsio.NewFile(tmp_path) as new:
            assert new.link(tmp_path / "f")
    else:
        fsio.write_file(tmp_path / "f", b"")
    assert os.listdir(tmp_path) == ["f"]


def test_what_a_sweep_takes_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    class Raced(fsio.Ops):
        left = 2

        def create(self, path):
            fd = super().create(path)
            self.sweep(scratch.sweep_files, tmp_path)
            return fd

        def mkdir(self, path):
            super().mkdir(path)
            self.sweep(scratch.sweep, tmp_path / "f")

        def sweep(self, how, where):
            self.left -= 1
            if self.left > 0:
                how(where)

    monkeypatch.setattr(fsio, "ops", Raced())
    fsio.write_file(tmp_path / "f", b"data")
    assert (tmp_path / "f").read_bytes() == b"data"
    monkeypatch.setattr(fsio, "ops", Raced())
    with scratch.directory(scratch.beside(tmp_path / "f", "wvc")):
        assert len(os.listdir(tmp_path)) == 2


def test_without_locks_process_ids_decide(tmp_path, monkeypatch, dead):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    directory(tmp_path / f".f.wvc-{dead}-0123abcd", "x")
    (tmp_path / f"tmp-{dead}-0123456789abcdef").touch()
    with scratch.directory(scratch.beside(tmp_path / "f", "wvc")), fsio.NewFile(tmp_path) as new:
        scratch.sweep(tmp_path / "f")
        scratch.sweep_files(tmp_path)
        kept = sorted(os.listdir(tmp_path))
        assert (len(kept), kept[1]) == (2, new.path.name)


def test_a_sweep_leaves_the_processes_of_others_alone(tmp_path, monkeypatch, dead):
    def refuse(*_):
        raise PermissionError

    def flock(*_):
        raise OSError(37, "No locks available")

    directory(tmp_path / f".f.wvc-{dead}-0123abcd", "x")
    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(os, "kill", refuse)
    scratch.sweep(tmp_path / "f")
    assert os.listdir(tmp_path) == [f".f.wvc-{dead}-0123abcd"]


def test_what_may_not_be_opened_is_left_alone(tmp_path, monkeypatch, dead):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    directory(tmp_path / f".f.old-{dead}-0123abcd", "x")
    monkeypatch.setattr(os, "open", refuse)
    scratch.sweep(tmp_path / "f")
    assert os.listdir(tmp_path) == [f".f.old-{dead}-0123abcd"]


def test_an_unknown_failure_of_a_lock_is_reported(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output"):
        fsio.write_file(tmp_path / "f", b"")


def test_a_sweep_that_cannot_does_nothing(tmp_path):
    scratch.sweep(tmp_path / "nowhere/f")
    scratch.sweep_files(tmp_path / "nowhere")
    assert os.listdir(tmp_path) == []


def test_publication_does_not_follow_a_link(tmp_path):
    directory(tmp_path / "elsewhere", "mine")
    (tmp_path / "final").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        scratch.publish_dir(directory(tmp_path / "made", "new"), tmp_path / "final")
    assert (tmp_path / "elsewhere" / "f").read_text() == "mine"
