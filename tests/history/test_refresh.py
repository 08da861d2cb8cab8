import os
import subprocess

import pytest

from weightvc.history import refresh
from weightvc.history.commit import commit
from weightvc.util import canon
from weightvc.util.errors import Conflict, Corrupt

TASK = ".wvc/tasks/a.json"


def plan(**files):
    """A plan that writes tasks by name."""
    return lambda _: {f".wvc/tasks/{name}.json": text.encode() for name, text in files.items()}


def test_a_held_index_is_a_warning_and_the_next_commit_catches_up(repo, monkeypatch):
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 0.1)
    lock = repo.path / ".git/index.lock"
    lock.touch()
    done = commit(repo.git, plan(a="1"), "m")
    (warning,) = done.warnings
    assert "a commit is made, but git's index or the files in" in warning
    assert f"run `git restore --staged --worktree .wvc && rm -r {refresh.scratch(repo.git)}`" in warning
    assert repo.run("rev-parse", "HEAD") == done.commit
    with pytest.raises(Conflict, match="nothing was committed now: an earlier commit is made, but") as caught:
        commit(repo.git, plan(b="1"), "m")
    assert caught.value.hint == "end the git command that holds the index, then try again"
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 60.0)
    (warning,) = refresh.recover(repo.git)  # at once: commands that only read do not wait
    assert f"if no git command is running, delete {lock}; the next wvc command tries again" in warning
    lock.unlink()
    assert commit(repo.git, plan(b="1"), "m").warnings == ()
    assert (repo.path / TASK).read_text() == "1"
    repo.assert_clean()


def test_the_advice_in_the_warning_works(repo, monkeypatch):
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 0.0)
    commit(repo.git, plan(a="1"), "m")
    lock = repo.path / ".git/index.lock"
    lock.touch()
    commit(repo.git, plan(a="2", b="1"), "m")
    lock.unlink()
    repo.run("restore", "--staged", "--worktree", ".wvc")
    assert repo.run("status", "--porcelain") == ""
    assert refresh.recover(repo.git) == ()
    repo.assert_clean()


def test_after_the_advice_nothing_is_left_that_could_undo_the_users_work(repo, monkeypatch):
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 0.0)
    commit(repo.git, plan(a="1"), "m")
    lock = repo.path / ".git/index.lock"
    lock.touch()
    (warning,) = commit(repo.git, plan(a="2"), "m").warnings
    lock.unlink()
    subprocess.run(["sh", "-ec", warning.split("`")[-2]], cwd=repo.path, check=True)
    repo.run("revert", "-n", "HEAD")
    staged = repo.run("diff", "--cached")
    assert staged
    assert refresh.recover(repo.git) == ()
    assert repo.run("diff", "--cached") == staged


def interrupted(repo, monkeypatch):
    """Leave a commit of a task whose index and file are as they were before it."""
    commit(repo.git, plan(a="1", b="1"), "m")
    with monkeypatch.context() as patch:
        patch.setattr(refresh, "settle", lambda *_, **__: ())
        commit(repo.git, plan(a="2", b="2"), "m")
    assert repo.run("status", "--porcelain").split() == ["M", TASK, "M", ".wvc/tasks/b.json"]


def test_nothing_is_touched_while_git_waits_to_be_continued(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    (repo.path / ".git/MERGE_HEAD").write_text(repo.run("rev-parse", "HEAD") + "\n")
    before = repo.run("status", "--porcelain")
    (warning,) = refresh.recover(repo.git)
    assert warning.startswith(f"{TASK}, .wvc/tasks/b.json: git's index or files are as they were before a commit")
    assert "`git merge --continue` or `git commit` would take that commit back" in warning
    assert repo.run("status", "--porcelain") == before
    subprocess.run(["sh", "-ec", warning.split("`")[-2]], cwd=repo.path, check=True)
    assert refresh.recover(repo.git) == ()
    (repo.path / ".git/MERGE_HEAD").unlink()
    assert refresh.recover(repo.git) == ()
    repo.assert_clean()


def test_what_somebody_has_changed_since_is_theirs(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    repo.write(TASK, "edited")
    repo.run("add", TASK)
    repo.write(TASK, "edited again")
    assert refresh.recover(repo.git) == ()
    assert repo.run("show", f":{TASK}") == "edited"
    assert (repo.path / TASK).read_text() == "edited again"
    assert (repo.path / ".wvc/tasks/b.json").read_text() == "2"
    assert not refresh.scratch(repo.git).exists()


def test_a_conflict_stays_one(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    (ours,) = repo.git.indexed((TASK,))[TASK]
    lines = f"0 {'0' * len(ours)}\t{TASK}\n" + "".join(f"100644 {ours} {side}\t{TASK}\n" for side in (1, 2, 3))
    subprocess.run(["git", "update-index", "--index-info"], cwd=repo.path, check=True, input=lines.encode())
    assert refresh.recover(repo.git) == ()
    assert repo.git.unmerged() == (TASK,)


def test_a_commit_that_is_stopped_in_the_middle_stops_no_reader(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 0.1)
    with refresh.refs_locked(repo.git):
        (warning,) = refresh.recover(repo.git)
    assert "another wvc command holds this lock; what an interrupted commit left is not up to date" in warning
    assert refresh.recover(repo.git) == ()
    repo.assert_clean()


def test_scratch_files_of_a_killed_process_are_swept(repo):
    commit(repo.git, plan(a="1"), "m")
    (repo.path / ".wvc/tasks/tmp-12-0123456789abcdef").touch()
    repo.write(".wvc/tasks/tmp-notes", "the user's own")
    commit(repo.git, plan(a="2"), "m")
    assert sorted(p.name for p in (repo.path / ".wvc/tasks").iterdir()) == ["a.json", "tmp-notes"]


def test_a_stale_private_index_lock_is_recovered(repo):
    scratch = refresh.scratch(repo.git)
    scratch.mkdir(parents=True)
    (scratch / "index.lock").touch()
    (scratch / "index").write_text("junk")
    (scratch / "tmp-1").touch()
    commit(repo.git, plan(a="1"), "m")
    repo.assert_clean()


def test_a_note_about_a_commit_that_is_gone_is_dropped(repo):
    old = commit(repo.git, plan(a="1"), "m").commit
    repo.run("reset", "-q", "--hard", "HEAD~1")
    repo.write(TASK, "mine now")
    for gone in (old, "0" * 40):
        refresh.scratch(repo.git).mkdir(parents=True)
        refresh.note(repo.git, gone, [TASK])
        assert refresh.recover(repo.git) == ()
        assert (repo.path / TASK).read_text() == "mine now"
        assert not refresh.scratch(repo.git).exists()


def test_a_hostile_note_cannot_reach_outside(repo):
    victim = repo.path / "README"
    refresh.scratch(repo.git).mkdir(parents=True)
    refresh.note(repo.git, repo.run("rev-parse", "HEAD"), ["README", "../x"])
    (warning,) = refresh.recover(repo.git)
    assert "is not the path of a tracked file of wvc" in warning
    assert victim.read_text() == "hello\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"boot":"","commit":"HEAD","paths":[]}', "not in canonical form"),
        (canon.document({"boot": "", "commit": "HEAD"}), "no paths"),
        (canon.document({"commit": "HEAD", "paths": []}), "no boot"),
        (canon.document({"boot": 1, "commit": "HEAD", "paths": []}), "1 is not of type str"),
        (canon.document({"boot": "", "commit": 1, "paths": []}), "1 is not of type str"),
        (canon.document({"boot": "", "commit": "HEAD", "paths": "README"}), "'README' is not of type list"),
        (canon.document({"boot": "", "commit": "HEAD", "paths": [TASK, None]}), "None is not of type str"),
    ],
)
def test_a_note_that_is_none_is_said_and_stops_no_reader(repo, data, says):
    file = refresh.scratch(repo.git) / "pending.json"
    repo.write(str(file.relative_to(repo.path)), data.decode())
    (warning,) = refresh.recover(repo.git)
    assert warning.startswith(f"{file}: ")
    assert says in warning
    assert f"delete {file}; if `git status` then shows changes below .wvc" in warning
    with pytest.raises(Corrupt, match=says) as caught:
        commit(repo.git, plan(a="1"), "m")
    assert warning.endswith(caught.value.hint)
    assert file.read_bytes() == data
    file.unlink()
    assert refresh.recover(repo.git) == ()
    assert commit(repo.git, plan(a="1"), "m").warnings == ()


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "large"])
def test_a_note_that_is_no_small_file_hangs_nobody(repo, kind):
    file = refresh.scratch(repo.git) / "pending.json"
    file.parent.mkdir(parents=True)
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "directory":
            file.mkdir()
        case "large":
            file.touch()
            os.truncate(file, 5 * 2**30)
    (warning,) = refresh.recover(repo.git)
    says = "5368709120 bytes, more than the limit of 16777216" if kind == "large" else "not a regular file"
    assert warning.startswith(f"{file}: {says}: delete {file}; ")
    with pytest.raises(Corrupt, match=says):
        commit(repo.git, plan(a="1"), "m")


def test_nothing_to_recover(repo):
    assert refresh.recover(repo.git) == ()
    assert not (repo.path / ".git/wvc").exists()


def test_lines_that_git_ends_otherwise_are_no_change(repo, monkeypatch):
    repo.run("config", "core.autocrlf", "true")
    interrupted_lines = {".wvc/tasks/a.json": b"one\ntwo\n"}
    commit(repo.git, lambda _: interrupted_lines, "m")
    (repo.path / TASK).unlink()
    repo.run("checkout", "--", TASK)
    assert (repo.path / TASK).read_bytes() == b"one\r\ntwo\r\n"
    with monkeypatch.context() as patch:
        patch.setattr(refresh, "settle", lambda *_, **__: ())
        commit(repo.git, plan(a="2\n"), "m")
    assert refresh.recover(repo.git) == ()
    assert (repo.path / TASK).read_text() == "2\n"
    repo.assert_clean()


def test_a_commit_whose_message_was_changed_since(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    repo.run("commit", "-q", "--amend", "--only", "-m", "better")
    assert refresh.recover(repo.git) == ()
    assert (repo.path / TASK).read_text() == "2"
    repo.assert_clean()


def test_another_branch_is_no_business_of_an_interrupted_commit(repo, monkeypatch):
    """Of one that removes a task, which the other branch never had, and whose files are the user's."""
    start = repo.run("rev-parse", "HEAD")
    commit(repo.git, plan(a="1"), "m")
    with monkeypatch.context() as patch:
        patch.setattr(refresh, "settle", lambda *_, **__: ())
        commit(repo.git, lambda _: {TASK: None, ".wvc/removals/r.json": b"r"}, "m")
    repo.run("reset", "-q", "--hard", start)
    repo.write(TASK, "1")
    repo.run("add", TASK)
    assert refresh.recover(repo.git) == ()
    assert repo.run("status", "--porcelain") == f"A  {TASK}"


def test_an_index_that_is_damaged_stops_no_reader(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    (repo.path / ".git/index").write_bytes(b"garbage" * 20)
    (warning,) = refresh.recover(repo.git)
    assert "git ls-files failed" in warning
    assert refresh.scratch(repo.git).exists()


def test_a_directory_in_the_way_is_said_at_once(repo, monkeypatch):
    interrupted(repo, monkeypatch)
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 60.0)
    (repo.path / TASK).unlink()
    (repo.path / TASK).mkdir()
    (warning,) = refresh.recover(repo.git)
    assert "is a directory where wvc keeps a file" in warning
