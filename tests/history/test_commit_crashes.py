"""Commits beside other processes, interrupted ones, and the order in which they reach the disk."""

import fcntl
import itertools
import os
import shutil
import signal
import traceback

import pytest

from weightvc.history import commit as commit_module
from weightvc.history import process, refresh
from weightvc.history.commit import commit
from weightvc.history.process import GitFailed
from weightvc.util.errors import Conflict

TASK = ".wvc/tasks/a.json"
OTHER = ".wvc/tasks/b.json"


def plan(**files):
    """A plan that writes tasks by name; ``None`` deletes."""
    return lambda _: {f".wvc/tasks/{name}.json": text and text.encode() for name, text in files.items()}


# others at the same time


def test_the_plan_is_made_anew_when_the_branch_moved(repo):
    tips = []

    def changes(tip):
        tips.append(tip)
        if len(tips) < 3:
            repo.run("commit", "-q", "--allow-empty", "-m", f"race {len(tips)}")
        return {TASK: str(len(tips)).encode()}

    done = commit(repo.git, changes, "m")
    assert len(tips) == len(set(tips)) == 3
    assert repo.git.parents(done.commit) == (tips[-1],)
    assert (repo.path / TASK).read_text() == "3"
    assert repo.run("log", "--format=%s").split("\n") == ["m", "race 2", "race 1", "by hand"]
    repo.assert_clean()


def test_a_branch_that_never_rests(repo, monkeypatch):
    monkeypatch.setattr(commit_module, "PATIENCE", 0.0)

    def changes(_):
        repo.run("commit", "-q", "--allow-empty", "-m", "race")
        return {TASK: b"1"}

    with pytest.raises(
        Conflict, match="other git processes kept the branch from moving for 0 s: git update-ref failed"
    ) as caught:
        commit(repo.git, changes, "m")
    assert caught.value.hint.startswith("try again; if a lock file is named and no git process runs, remove that file")
    assert repo.git.read("HEAD", TASK) is None
    refresh.recover(repo.git)
    repo.assert_clean()


def test_a_ref_lock_left_by_a_killed_git(repo, monkeypatch):
    monkeypatch.setattr(commit_module, "PATIENCE", 0.0)
    lock = repo.path / ".git/refs/heads/main.lock"
    lock.touch()
    with pytest.raises(Conflict, match=f"{lock}': File exists"):
        commit(repo.git, plan(a="1"), "m")
    lock.unlink()
    commit(repo.git, plan(a="1"), "m")
    repo.assert_clean()


def test_git_refusing_for_its_own_reasons_is_no_race(repo):
    (repo.path / ".git/HEAD").write_text("ref: refs/heads/main/sub\n")
    with pytest.raises(GitFailed, match="git update-ref failed"):
        commit(repo.git, plan(a="1"), "m")
    assert not (repo.path / ".git/wvc/commit/index").exists()


def forked(work):
    """Run ``work`` in a child process and return its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must never return into the test runner
        traceback.print_exc()
        os._exit(1)


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_eight_processes_lose_nothing(repo):
    def worker(name):
        for n in range(5):
            path = f".wvc/tasks/w{name}-{n}.json"
            commit(repo.git, lambda tip, path=path: {path: tip.encode()}, f"{name}-{n}")

    workers = [forked(lambda name=name: worker(name)) for name in range(8)]
    assert [ended(child) for child in workers] == [0] * 8
    names = {f".wvc/tasks/w{w}-{n}.json" for w in range(8) for n in range(5)}
    assert repo.git.read_tree("HEAD").keys() == names
    log = list(repo.git.log())
    assert len(log) == 41
    assert all(len(entry.parents) == 1 for entry in log[:-1])
    # Each plan saw exactly the commit that became its parent.
    for entry in log[:-1]:
        assert repo.git.read(entry.commit, f".wvc/tasks/w{entry.subject}.json").decode() == entry.parents[0]
    repo.assert_clean()


# interruptions


def test_a_disk_that_fails_under_git_is_not_mistaken_for_a_race(repo, monkeypatch):
    """git names its lock file in these errors too; trying again would hide that the disk is failing."""
    real, calls = process.run, []

    def run(directory, *arguments, **options):
        calls.append(arguments[0])
        if arguments[0] == broken:
            raise GitFailed(broken, 128, "fatal: unable to write '.git/refs/heads/main.lock': Input/output error")
        return real(directory, *arguments, **options)

    monkeypatch.setattr(process, "run", run)
    broken = "update-ref"
    with pytest.raises(GitFailed, match=r"git update-ref failed .*Input/output error"):
        commit(repo.git, plan(a="1"), "m")
    assert calls.count("update-ref") == 1
    broken = "update-index"
    with pytest.raises(GitFailed, match=r"git update-index failed .*Input/output error"):
        commit(repo.git, plan(a="1"), "m")
    broken = ""
    commit(repo.git, plan(a="1"), "m")
    repo.assert_clean()


def killed_after(n, repo):
    """Make a commit and die of SIGKILL after the n-th git command."""
    git, real, count = repo.git, process.run, itertools.count(1)

    def run(*arguments, **options):
        out = real(*arguments, **options)
        if next(count) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return out

    process.run = run
    commit(git, plan(a="new", b=None), "killed")


def test_killed_after_any_git_command(sandbox):
    """Old or new, never in part; the next command repairs, and nothing of the user's is lost."""
    template = sandbox("template")
    commit(template.git, plan(a="old", b="old"), "first")
    template.write("mine", "staged")
    template.run("add", "mine")
    seen = set()
    for n in range(1, 100):
        repo = type(template)(template.path.with_name(f"repo{n}"))
        shutil.copytree(template.path, repo.path)
        status = ended(forked(lambda repo=repo, n=n: killed_after(n, repo)))
        state = {path: repo.git.read("HEAD", path) for path in (TASK, OTHER)}
        assert state in ({TASK: b"old", OTHER: b"old"}, {TASK: b"new", OTHER: None})
        seen.add(state[TASK])
        assert refresh.recover(repo.git) == ()
        assert repo.run("status", "--porcelain") == "A  mine"
        commit(repo.git, plan(c="1"), "next")
        assert repo.git.read("HEAD", TASK) == state[TASK]
        assert repo.run("status", "--porcelain") == "A  mine"
        repo.run("commit", "-q", "-m", "mine")
        repo.assert_clean()
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert n > 15
    assert seen == {b"old", b"new"}


def test_a_failure_at_any_step(sandbox, record):
    template = sandbox("template")
    commit(template.git, plan(a="old", b="old"), "first")
    total = None
    outcomes = set()
    n = -1
    while total is None or n < total:
        repo = type(template)(template.path.with_name(f"repo{n}"))
        shutil.copytree(template.path, repo.path)
        git = repo.git
        steps = record(fail_at=n)
        try:
            done = commit(git, plan(a="new", b=None), "second")
            outcomes.add("warned" if done.warnings else "done")
        except OSError:
            outcomes.add("raised")
        if total is None:
            total = len(steps.seen)
        record()
        assert {p: git.read("HEAD", p) for p in (TASK, OTHER)} in (
            {TASK: b"old", OTHER: b"old"},
            {TASK: b"new", OTHER: None},
        )
        assert commit(git, plan(c="1"), "next").warnings == ()
        assert git.read("HEAD", ".wvc/tasks/c.json") == b"1"
        repo.assert_clean()
        n += 1
    assert total > 20
    assert outcomes == {"done", "warned", "raised"}


# durability


def test_the_order_of_syncs(repo, record, monkeypatch):
    """Objects, their directories, the note, the ref, its directories, and only then the user's files."""
    steps = record()
    real = process.run

    def run(directory, *arguments, **options):
        steps.seen.append(("git", arguments[0]))
        return real(directory, *arguments, **options)

    monkeypatch.setattr(process, "run", run)
    made = commit(repo.git, plan(a="1"), "m").commit
    seen = steps.seen
    git_dir = repo.path / ".git"
    moved = seen.index(("git", "update-ref"))
    built = seen.index(("git", "commit-tree"))
    shard = git_dir / "objects" / made[:2]
    middle = seen[built:moved]
    order = [("fsync", str(shard / made[2:])), ("fsync", str(shard)), ("fsync", str(git_dir / "objects"))]
    assert [step for step in middle if step in order] == order
    new = repo.run("rev-list", "--objects", "--no-object-names", f"{made}", "^HEAD~1").split()
    assert len(new) == 5
    assert {("fsync", str(git_dir / "objects" / name[:2] / name[2:])) for name in new} <= set(middle)
    noted = middle.index(("rename", str(git_dir / "wvc/commit/pending.json")))
    assert middle.index(order[-1]) < noted < middle.index(("fsync", str(git_dir / "wvc/commit")), noted)
    after = seen[moved:]
    chain = [("fsync", str(git_dir / name)) for name in ("refs/heads/main", "refs/heads", "refs", ".")]
    places = [after.index(step) for step in chain]
    assert places == sorted(places)
    touched = next(n for n, (what, path) in enumerate(after) if str(repo.path / ".wvc") in path)
    indexed = after.index(("git", "update-index"))
    assert places[-1] < indexed < after.index(("fsync", str(git_dir)), indexed) < touched


def test_every_git_command_is_told(repo):
    for key, value in {"fsync": "all", "fsyncMethod": "fsync", "hooksPath": "/dev/null", "fsmonitor": "false"}.items():
        repo.run("config", f"core.{key}", "hostile")
        assert process.line(repo.path, "config", f"core.{key}") == value


def test_the_lock_is_held_while_the_plan_runs(repo):
    held = []

    def changes(_):
        fd = os.open(repo.path / ".git/wvc/refs.lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(False)
        except BlockingIOError:
            held.append(True)
        finally:
            os.close(fd)
        return {TASK: b"1"}

    commit(repo.git, changes, "m")
    assert held == [True]
