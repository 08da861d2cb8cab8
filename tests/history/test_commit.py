import os
import subprocess

import pytest

from weightvc.history import refresh
from weightvc.history.commit import Committed, commit
from weightvc.util.errors import BadInput, Conflict, RequestError, UsageError

TASK = ".wvc/tasks/a.json"
OTHER = ".wvc/tasks/b.json"


def plan(**files):
    """A plan that writes tasks by name; ``None`` deletes."""
    return lambda _: {f".wvc/tasks/{name}.json": text and text.encode() for name, text in files.items()}


# what a commit does


def test_a_commit(repo):
    before = repo.run("rev-parse", "HEAD")
    tips = []

    def changes(tip):
        tips.append(tip)
        return {TASK: b"one\n", ".wvc/config.toml": b""}

    done = commit(repo.git, changes, "Add a\n\n# not a comment\n\n")
    assert done == Committed(repo.run("rev-parse", "HEAD"))
    assert tips == [before]
    assert repo.git.read("HEAD", TASK) == b"one\n"
    assert repo.git.read("HEAD", "README") == b"hello\n"
    assert (repo.path / TASK).read_bytes() == b"one\n"
    assert (
        repo.run("log", "-1", "--format=%an <%ae>|%P|%B") == f"Ada <ada@example.com>|{before}|Add a\n\n# not a comment"
    )
    assert repo.run("reflog", "-1", "--format=%gs") == "wvc: Add a"
    assert repo.run("symbolic-ref", "HEAD") == "refs/heads/main"
    repo.assert_clean()


def test_deletion_and_replacement(repo):
    commit(repo.git, plan(a="1", b="1"), "add")
    commit(repo.git, plan(a=None, b="2", c="3"), "change")
    assert {p.name: p.read_text() for p in (repo.path / ".wvc/tasks").iterdir()} == {"b.json": "2", "c.json": "3"}
    assert repo.run("diff", "--name-status", "HEAD~1").split() == ["D", TASK, "M", OTHER, "A", ".wvc/tasks/c.json"]
    repo.assert_clean()


def test_the_first_commit_of_a_repository(sandbox):
    repo = sandbox()
    commit(repo.git, plan(a="1"), "first")
    assert repo.git.parents("HEAD") == ()
    repo.assert_clean()


def test_an_unborn_branch_with_staged_files(sandbox):
    repo = sandbox()
    repo.write("mine", "x")
    repo.run("add", "mine")
    commit(repo.git, plan(a="1"), "first")
    assert repo.run("ls-tree", "-r", "--name-only", "HEAD") == TASK
    assert repo.run("status", "--porcelain") == "A  mine"


def test_the_users_staged_changes_stay_staged(repo):
    """And their next plain commit takes only those, and keeps the task."""
    repo.write("mine", "staged")
    repo.run("add", "mine")
    repo.write("README", "not staged")
    commit(repo.git, plan(a="1"), "task")
    assert repo.run("show", "--name-only", "--format=", "HEAD") == TASK
    assert repo.run("status", "--porcelain", "-z").split("\0") == [" M README", "A  mine", ""]
    repo.run("commit", "-q", "-m", "by hand")
    assert repo.run("show", "--name-only", "--format=", "HEAD") == "mine"
    assert repo.git.read("HEAD", TASK) == b"1"
    repo.assert_clean()


def test_what_the_user_did_to_our_own_files_is_overwritten(repo):
    commit(repo.git, plan(a="1"), "task")
    repo.write(TASK, "meddled")
    repo.run("add", TASK)
    commit(repo.git, plan(a="2"), "again")
    assert (repo.path / TASK).read_text() == "2"
    repo.assert_clean()


def test_a_file_that_is_a_link_is_replaced_not_followed(repo, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (repo.path / ".wvc/tasks").mkdir(parents=True)
    (repo.path / TASK).symlink_to(victim)
    commit(repo.git, plan(a="1"), "task")
    assert victim.read_text() == "mine"
    assert not (repo.path / TASK).is_symlink()
    repo.assert_clean()


def test_a_detached_head(repo):
    repo.run("switch", "-q", "--detach")
    done = commit(repo.git, plan(a="1"), "task")
    assert repo.run("rev-parse", "HEAD") == done.commit
    assert repo.run("rev-parse", "main") != done.commit
    repo.assert_clean()


def test_a_branch_in_a_folder_and_packed_refs(repo):
    repo.run("switch", "-q", "-c", "deep/er/branch")
    repo.run("pack-refs", "--all")
    done = commit(repo.git, plan(a="1"), "task")
    assert repo.run("rev-parse", "deep/er/branch") == done.commit
    repo.assert_clean()


def test_a_linked_worktree(repo, tmp_path):
    repo.run("worktree", "add", "-q", "-b", "two", str(tmp_path / "two"))
    two = type(repo)(tmp_path / "two")
    commit(two.git, plan(a="1"), "there")
    commit(repo.git, plan(b="1"), "here")
    assert two.git.read("HEAD", TASK) == b"1"
    assert two.git.read("HEAD", OTHER) is None
    assert repo.git.read("HEAD", OTHER) == b"1"
    assert not (repo.path / TASK).exists()
    two.run("switch", "-q", "--detach")
    commit(two.git, plan(c="1"), "detached")
    repo.assert_clean()
    two.assert_clean()


def test_a_sha256_repository(sandbox):
    repo = sandbox("repo", "--object-format=sha256")
    first = commit(repo.git, plan(a="1", b="1"), "first").commit
    assert len(first) == 64
    commit(repo.git, plan(a=None), "second")
    assert repo.git.parents("HEAD") == (first,)
    assert repo.git.read_tree("HEAD").keys() == {OTHER}
    assert [len(b) for b in repo.git.all_blobs()[TASK]] == [64]
    repo.assert_clean()


@pytest.mark.parametrize(
    "setting",
    [
        "core.splitIndex=true",
        "core.untrackedCache=true",
        "index.version=4",
        "core.autocrlf=true",
        "commit.gpgsign=true",
        "user.useConfigOnly=false",
        "index.sparse=true",
        "i18n.commitEncoding=latin1",
    ],
)
def test_the_users_settings(repo, setting):
    key, value = setting.split("=")
    repo.run("config", key, value)
    commit(repo.git, plan(a="über\n"), "Füge a hinzu")
    assert repo.git.read("HEAD", TASK) == "über\n".encode()
    assert next(repo.git.log()).subject == "Füge a hinzu"
    repo.run("config", "--unset", key)
    repo.run("update-index", "--refresh")
    repo.assert_clean()


def test_a_shallow_and_partial_clone(repo, tmp_path):
    for n in range(3):
        commit(repo.git, plan(a=str(n)), "task")
    repo.run("config", "uploadpack.allowFilter", "true")
    url = f"file://{repo.path}"
    subprocess.run(["git", "clone", "-q", "--filter=blob:none", "--no-checkout", url, tmp_path / "part"], check=True)
    part = type(repo)(tmp_path / "part")
    part.run("config", "user.name", "Bo")
    part.run("config", "user.email", "bo@example.com")
    commit(part.git, plan(b="new"), "on nothing")
    assert part.git.read("HEAD", OTHER) == b"new"
    assert part.run("diff", "--name-only", "HEAD~1", "HEAD") == OTHER
    with pytest.raises(Exception, match=r"git has no file contents|git cat-file failed"):
        part.git.read_blobs([repo.run("rev-parse", f"HEAD~1:{TASK}")])


# what a commit refuses


@pytest.mark.parametrize("empty", [{}, {TASK: b"1"}, {OTHER: None}], ids=["none", "same", "absent"])
def test_nothing_to_commit(repo, empty):
    before = commit(repo.git, plan(a="1"), "task").commit
    with pytest.raises(RequestError, match=r"^nothing to commit$") as caught:
        commit(repo.git, lambda _: empty, "again")
    assert caught.value.hint == "`wvc add` stages a task"
    assert repo.run("rev-parse", "HEAD") == before
    refresh.recover(repo.git)
    repo.assert_clean()


def test_nothing_to_commit_on_an_unborn_branch(sandbox):
    with pytest.raises(RequestError, match=r"^nothing to commit$"):
        commit(sandbox().git, lambda _: {}, "m")


@pytest.mark.parametrize("message", ["", " \n", "a\0b"])
def test_no_message(repo, message):
    with pytest.raises(UsageError, match="a commit needs a message") as caught:
        commit(repo.git, plan(a="1"), message)
    assert caught.value.hint == "give one with -m"


def test_a_message_that_is_not_utf_8(repo):
    with pytest.raises(UsageError, match=r"the message is not valid UTF-8: 'caf\\udce9'"):
        commit(repo.git, plan(a="1"), os.fsdecode(b"caf\xe9"))
    assert refresh.recover(repo.git) == ()


@pytest.mark.parametrize("key", ["user.name", "user.email"])
def test_nobody(repo, key):
    repo.run("config", "--unset", key)
    with pytest.raises(RequestError, match="git does not know who you are") as caught:
        commit(repo.git, plan(a="1"), "m")
    assert caught.value.hint.startswith('run `git config --global user.name "Your Name"` and `git config --global')


def test_identity_from_the_environment(repo, monkeypatch):
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Env")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "e@x")
        monkeypatch.setenv(f"GIT_{role}_DATE", "1600000000 +0000")
    commit(repo.git, plan(a="1"), "m")
    assert repo.run("log", "-1", "--format=%an %ae %at %cn %ce %ct") == "Env e@x 1600000000 Env e@x 1600000000"


def conflicting(repo, command):
    repo.commit("f", "base")
    repo.run("switch", "-q", "-c", "side")
    repo.commit("f", "side")
    repo.commit("f", "side2")
    repo.run("switch", "-q", "main")
    repo.commit("f", "main")
    repo.run(*command, check=False)


@pytest.mark.parametrize(
    ("command", "doing"),
    [
        (["merge", "side"], "merge"),
        (["rebase", "side"], "rebase"),
        (["rebase", "--apply", "side"], "rebase"),
        (["cherry-pick", "side"], "cherry-pick"),
        (["revert", "--no-edit", "HEAD~1"], "revert"),
    ],
    ids=["merge", "rebase", "rebase-apply", "cherry-pick", "revert"],
)
def test_in_the_middle_of_something(repo, command, doing):
    conflicting(repo, command)
    before = repo.run("rev-parse", "HEAD")
    with pytest.raises(Conflict, match=f"a git {doing} is under way in {repo.path}") as caught:
        commit(repo.git, plan(a="1"), "m")
    assert caught.value.hint == (
        f"finish it with `git {doing} --continue` or undo it with `git {doing} --abort`, then try again"
    )
    assert repo.run("rev-parse", "HEAD") == before
    repo.run(doing, "--abort")
    commit(repo.git, plan(a="1"), "m")
    repo.assert_clean()


def test_in_the_middle_of_am_and_of_several_picks(repo):
    conflicting(repo, ["cherry-pick", "side~1", "side"])
    repo.run("checkout", "--theirs", "f")
    repo.run("commit", "-q", "-a", "-m", "resolved")
    with pytest.raises(Conflict, match="a git cherry-pick is under way"):
        commit(repo.git, plan(a="1"), "m")
    repo.run("cherry-pick", "--quit")
    patch = repo.path.with_name("patch")
    patch.write_text(repo.run("format-patch", "--stdout", "-1", "side~1") + "\n")
    repo.run("am", str(patch), check=False)
    with pytest.raises(Conflict, match="a git am is under way"):
        commit(repo.git, plan(a="1"), "m")


def test_bisecting_is_no_obstacle(repo):
    repo.run("bisect", "start")
    commit(repo.git, plan(a="1"), "m")
    repo.assert_clean()


@pytest.mark.parametrize(
    "path",
    [
        "README",
        "../x",
        "/etc/passwd",
        ".wvc",
        ".wvc/",
        ".wvc//a",
        ".wvc/../a",
        ".wvc/./a",
        ".wvc/.git/x",
        ".wvc/a\nb",
        ".WVC/a",
    ],
)
def test_only_our_own_paths(repo, path):
    with pytest.raises(BadInput, match="is not the path of a tracked file of wvc"):
        commit(repo.git, lambda _: {path: b"x"}, "m")
    assert repo.run("status", "--porcelain") == ""


@pytest.mark.parametrize("where", [".wvc", ".wvc/tasks"])
@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_symbolic_links_on_the_way_are_refused(repo, tmp_path, where, kind):
    victim = tmp_path / "victim"
    victim.mkdir()
    place = repo.path / where
    place.parent.mkdir(exist_ok=True)
    place.touch() if kind == "file" else place.symlink_to(victim if kind == "link" else tmp_path / "no")
    before = repo.run("rev-parse", "HEAD")
    with pytest.raises(Conflict, match=f"{place} is not a plain directory; wvc writes nothing through it") as caught:
        commit(repo.git, plan(a="1"), "m")
    assert caught.value.hint == "move it away"
    assert repo.run("rev-parse", "HEAD") == before
    assert repo.run("count-objects").startswith("3 objects")
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("where", [".git/wvc", ".git/wvc/commit"])
def test_our_own_directories_may_not_be_links(repo, tmp_path, where):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "keep").touch()
    place = repo.path / where
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(victim)
    with pytest.raises(Conflict, match=f"{place} is not a plain directory"):
        commit(repo.git, plan(a="1"), "m")
    assert [p.name for p in victim.iterdir()] == ["keep"]


def test_a_directory_in_a_files_place(repo):
    (repo.path / TASK).mkdir(parents=True)
    with pytest.raises(Conflict, match="is a directory where wvc keeps a file") as caught:
        commit(repo.git, plan(a="1"), "m")
    assert caught.value.hint == "move it away, then try again"


@pytest.mark.parametrize(("todo", "doing"), [("revert 1234567 m\n", "revert"), ("pick 1234567 m\n", "cherry-pick")])
def test_a_list_of_commits_under_way_is_named_by_what_is_left_of_it(repo, todo, doing):
    (repo.path / ".git/sequencer").mkdir()
    (repo.path / ".git/sequencer/todo").write_text(todo)
    with pytest.raises(Conflict) as caught:
        commit(repo.git, lambda _: {TASK: b"1"}, "m")
    assert caught.value.what.startswith(f"a git {doing} is under way")
