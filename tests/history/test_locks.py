import os
import time

import pytest

from weightvc.history import locks, refresh
from weightvc.history.commit import commit
from weightvc.history.git import discover
from weightvc.history.locks import drop_stale

TASK = ".wvc/tasks/a.json"
LOCKS = ("index.lock", "HEAD.lock", "refs/heads/main.lock")


@pytest.fixture
def interrupted(repo, monkeypatch):
    """A repository in which a commit was cut off while git held its locks: ``interrupted(mtime)`` returns them."""

    def leave(mtime):
        made = commit(repo.git, lambda _: {TASK: b"1"}, "m").commit
        refresh.scratch(repo.git).mkdir(parents=True)
        monkeypatch.setattr(locks, "boot", lambda: "another start")
        refresh.note(repo.git, made, [TASK])
        monkeypatch.undo()
        os.utime(refresh.scratch(repo.git) / "pending.json", (_boot() - 60, _boot() - 60))
        files = [repo.path / ".git" / name for name in LOCKS]
        for file in files:
            file.touch()
            os.utime(file, (mtime, mtime))
        return files

    return leave


def _drop(git, note):
    drop_stale(git, note, "another start")


def _boot():
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def test_locks_older_than_the_start_of_the_machine_are_freed_by_the_next_commit(repo, interrupted):
    files = interrupted(_boot() - 60)
    assert commit(repo.git, lambda _: {TASK: b"2"}, "next").warnings == ()
    assert not any(file.exists() for file in files)
    repo.assert_clean()


def test_they_are_freed_by_a_command_that_only_reads(repo, interrupted):
    files = interrupted(_boot() - 60)
    assert refresh.recover(repo.git) == ()
    assert not any(file.exists() for file in files)
    repo.assert_clean()


def test_locks_that_a_process_may_hold_stay(repo, interrupted):
    files = interrupted(time.time())
    files[0].unlink()
    repo.run("rm", "-q", "--cached", TASK)  # as it was before the commit
    files[0].touch()
    (warning,) = refresh.recover(repo.git)
    assert f"delete {files[0]}" in warning
    assert all(file.exists() for file in files)


def test_locks_of_others_stay(repo, interrupted):
    files = interrupted(_boot() - 60)
    (refresh.scratch(repo.git) / "pending.json").unlink()
    assert refresh.recover(repo.git) == ()
    assert all(file.exists() for file in files)


def test_nothing_is_freed_where_the_start_of_the_machine_is_not_known(repo, interrupted, monkeypatch):
    files = interrupted(_boot() - 60)
    monkeypatch.setattr("sys.platform", "darwin")
    _drop(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert all(file.exists() for file in files)


def test_all_that_head_stands_for_is_freed(repo, interrupted):
    files = interrupted(_boot() - 60)
    repo.run("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    (repo.path / ".git/HEAD").write_text("ref: refs/heads/alias\n")
    alias = repo.path / ".git/refs/heads/alias.lock"
    alias.touch()
    os.utime(alias, (1, 1))
    assert refresh.recover(repo.git) == ()
    assert not any(file.exists() for file in (*files, alias))


def test_a_detached_head_has_no_branch_to_free(repo, interrupted):
    files = interrupted(_boot() - 60)
    repo.run("update-ref", "--no-deref", "refs/heads/other", "HEAD")
    (repo.path / ".git/HEAD").write_text(repo.run("rev-parse", "refs/heads/other") + "\n")
    assert refresh.recover(repo.git) == ()
    assert [file.exists() for file in files] == [False, False, True]


def test_nothing_is_freed_for_a_commit_that_was_cut_off_after_the_start(repo, interrupted):
    files = interrupted(_boot() - 60)
    os.utime(refresh.scratch(repo.git) / "pending.json")
    _drop(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("name", ["", "this start"])
def test_nothing_is_freed_where_only_the_clock_was_set(repo, interrupted, monkeypatch, name):
    files = interrupted(_boot() - 60)
    monkeypatch.setattr(locks, "boot", lambda: "this start")
    drop_stale(repo.git, refresh.scratch(repo.git) / "pending.json", name)
    assert all(file.exists() for file in files)


def test_a_note_names_the_start_of_the_machine(repo, interrupted, monkeypatch):
    files = interrupted(_boot() - 60)
    monkeypatch.setattr(locks, "boot", lambda: "another start")
    refresh.recover(repo.git)
    assert all(file.exists() for file in files)


def test_a_start_has_one_name():
    assert locks.boot() == locks.boot() != ""


def test_where_starts_have_no_name_they_are_not_told_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(locks, "_BOOT", tmp_path / "none")
    assert locks.boot() == ""


@pytest.mark.parametrize("note", ["", "{}", "whole"])
def test_nothing_outside_the_repository_is_removed(repo, interrupted, tmp_path, note):
    """A repository from a stranger, whose branch lies behind a link."""
    interrupted(_boot() - 60)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "Cargo.lock").write_text("precious")
    os.utime(outside / "Cargo.lock", (1, 1))
    (repo.path / ".git/refs/heads/x").symlink_to(outside)
    (repo.path / ".git/HEAD").write_text("ref: refs/heads/x/Cargo\n")
    if note != "whole":
        (refresh.scratch(repo.git) / "pending.json").write_text(note)
        os.utime(refresh.scratch(repo.git) / "pending.json", (1, 1))
    refresh.recover(repo.git)
    assert (outside / "Cargo.lock").read_text() == "precious"


@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "link"])
def test_what_is_no_file_stays(repo, interrupted, make):
    lock, *_ = interrupted(_boot() - 60)
    lock.unlink()
    match make:
        case "mkdir":
            lock.mkdir()
        case "mkfifo":
            os.mkfifo(lock)
        case _:
            lock.symlink_to("elsewhere")
    os.utime(lock, (1, 1), follow_symlinks=False)
    _drop(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert os.path.lexists(lock)


@pytest.mark.parametrize("name", ["{outside}/Cargo", "../outside/Cargo", "refs/../../../outside/Cargo", "wvc/refs"])
def test_a_branch_that_is_none_frees_nothing(repo, interrupted, name):
    """git looks at ``HEAD`` alone; what a branch of a stranger's says it stands for may be anything."""
    interrupted(_boot() - 60)
    outside = repo.path.parent / "outside"
    outside.mkdir()
    others = [outside / "Cargo.lock", repo.path / ".git/wvc/refs.lock"]
    for file in others:
        file.touch()
        os.utime(file, (1, 1))
    (repo.path / ".git/refs/heads/main").write_text(f"ref: {name.format(outside=outside)}\n")
    _drop(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert all(file.exists() for file in others)


def test_a_linked_work_tree_frees_nothing_of_the_main_one(repo, interrupted, tmp_path):
    files = interrupted(_boot() - 60)
    files[2].unlink()
    note = refresh.scratch(repo.git) / "pending.json"
    for file in files[:2]:
        file.rename(file.with_suffix(".kept"))
    repo.run("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    for file in files[:2]:
        file.with_suffix(".kept").rename(file)
    _drop(discover(tmp_path / "linked"), note)
    assert all(file.exists() for file in files[:2])


def test_a_name_that_no_file_can_have_frees_nothing(repo, interrupted):
    files = interrupted(_boot() - 60)
    (repo.path / ".git/HEAD").write_bytes(b"ref: refs/heads/main\0\n")
    _drop(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert [file.exists() for file in files] == [False, False, True]


def test_a_branch_whose_name_is_no_text_is_freed(repo, interrupted):
    files = interrupted(_boot() - 60)
    (repo.path / ".git/HEAD").write_bytes(b"ref: refs/heads/caf\xe9\n")
    lock = files[2].rename(files[2].with_name(os.fsdecode(b"caf\xe9.lock")))
    _drop(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert not lock.exists()


def test_a_ref_that_a_work_tree_has_for_itself_is_freed_there(repo, interrupted, tmp_path):
    note = refresh.scratch(repo.git) / "pending.json"
    interrupted(_boot() - 60)
    for name in LOCKS:
        (repo.path / ".git" / name).unlink()
    repo.run("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    linked = discover(tmp_path / "linked")
    (linked.git_dir / "HEAD").write_text("ref: refs/worktree/w\n")
    lock = linked.git_dir / "refs/worktree/w.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (1, 1))
    _drop(linked, note)
    assert not lock.exists()
