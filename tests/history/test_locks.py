import os
import time

import pytest

from weightvc.history import refresh
from weightvc.history.commit import commit
from weightvc.history.locks import drop_stale

TASK = ".wvc/tasks/a.json"
LOCKS = ("index.lock", "HEAD.lock", "refs/heads/main.lock")


@pytest.fixture
def interrupted(repo):
    """A repository in which a commit was cut off while git held its locks: ``interrupted(mtime)`` returns them."""

    def leave(mtime):
        made = commit(repo.git, lambda _: {TASK: b"1"}, "m").commit
        refresh.scratch(repo.git).mkdir(parents=True)
        refresh.note(repo.git, made, [TASK])
        files = [repo.path / ".git" / name for name in LOCKS]
        for file in files:
            file.touch()
            os.utime(file, (mtime, mtime))
        return files

    return leave


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
    drop_stale(repo.git, refresh.scratch(repo.git) / "pending.json")
    assert all(file.exists() for file in files)


def test_a_detached_head_has_no_branch_to_free(repo, interrupted):
    files = interrupted(_boot() - 60)
    repo.run("update-ref", "--no-deref", "refs/heads/other", "HEAD")
    (repo.path / ".git/HEAD").write_text(repo.run("rev-parse", "refs/heads/other") + "\n")
    assert refresh.recover(repo.git) == ()
    assert [file.exists() for file in files] == [False, False, True]
