import subprocess
import sys

import pytest

from weightvc.history.create import init
from weightvc.history.git import GitDir, LogEntry, discover
from weightvc.history.process import GitFailed
from weightvc.util.errors import Conflict, Missing, NotARepository, NotFound, RequestError

TASK = ".wvc/tasks/a.json"


# discover and init


def test_discover_from_a_subdirectory(repo):
    (repo.path / "deep" / "er").mkdir(parents=True)
    assert discover(repo.path / "deep" / "er") == GitDir(repo.path, repo.path / ".git", repo.path / ".git")


def test_discover_through_a_symbolic_link(repo, tmp_path):
    (tmp_path / "link").symlink_to(repo.path)
    assert discover(tmp_path / "link").work_tree == repo.path


def test_discover_a_linked_worktree(repo, tmp_path):
    repo.run("worktree", "add", "-q", str(tmp_path / "other"))
    found = discover(tmp_path / "other")
    assert found == GitDir(tmp_path / "other", repo.path / ".git" / "worktrees" / "other", repo.path / ".git")


@pytest.mark.parametrize("where", ["", "not/there"])
def test_no_repository(tmp_path, where):
    with pytest.raises(NotARepository, match="is not in a git repository") as caught:
        discover(tmp_path / where)
    assert caught.value.hint == "name a repository with -C DIR, or make one with `wvc init --base PATH`"


def test_a_bare_repository_is_refused(tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare")], check=True)
    for act in (discover, init):
        with pytest.raises(NotARepository, match="in a git repository without a work tree") as caught:
            act(tmp_path / "bare")
        assert caught.value.hint == "use a clone with one"


def test_a_work_tree_elsewhere_is_refused(repo, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    repo.run("config", "core.worktree", str(victim))
    for act in (discover, init):
        with pytest.raises(
            NotARepository, match="whose work tree is elsewhere, or whose path has a line break"
        ) as caught:
            act(repo.path)
        assert "git config core.worktree" in caught.value.hint


def test_a_line_break_in_the_path_is_refused(sandbox):
    with pytest.raises(NotARepository, match="has a line break"):
        discover(sandbox("two\nlines").path)


def test_a_repository_that_git_refuses(repo):
    (repo.path / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 99\n")
    with pytest.raises(GitFailed, match=r"git rev-parse failed .*Expected git repo version <= 1, found 99"):
        discover(repo.path)


def test_init_makes_a_repository(tmp_path):
    made = init(tmp_path / "new" / "one")
    assert made.work_tree == tmp_path / "new" / "one"
    assert made.head() is None
    assert (made.git_dir / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert [path.name for path in made.work_tree.iterdir()] == [".git"]


@pytest.mark.parametrize("count", ["abc", "-1", "1" * 20])
def test_a_count_of_settings_that_is_none(repo, monkeypatch, count):
    monkeypatch.setenv("GIT_CONFIG_COUNT", count)
    with pytest.raises(RequestError, match=f"GIT_CONFIG_COUNT is '{count}', which is no number") as caught:
        repo.git.head()
    assert caught.value.hint == "unset it"


def test_init_keeps_the_users_branch_name(tmp_path, scrubbed):
    (scrubbed / ".gitconfig").write_text("[init]\n\tdefaultBranch = trunk\n")
    assert (init(tmp_path / "new").git_dir / "HEAD").read_text() == "ref: refs/heads/trunk\n"


@pytest.mark.parametrize("there", ["repository", "file"])
def test_init_keeps_what_is_there(repo, tmp_path, there):
    path = repo.path
    if there == "file":
        (tmp_path / "other").mkdir()
        path = tmp_path / "other"
        (path / ".git").write_text("mine")
    before = sorted(path.rglob("*"))
    with pytest.raises((Conflict, GitFailed)):
        init(path)
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("existing", [False, True])
def test_init_in_a_repository_makes_another(repo, existing):
    if existing:
        (repo.path / "sub").mkdir()
    made = init(repo.path / "sub")
    assert made == GitDir(repo.path / "sub", repo.path / "sub/.git", repo.path / "sub/.git")
    assert discover(repo.path / "sub") == made


def test_init_is_durable(tmp_path, record):
    """All of it is on disk before it gets its name."""
    steps = record()
    git_dir = init(tmp_path / "new").git_dir
    named = steps.seen.index(("rename", str(git_dir)))
    synced = {path.partition("/.git")[2] for what, path in steps.seen[:named] if what == "fsync"}
    assert {"/HEAD", "/config", "", "/objects", "/refs/heads"} <= synced
    assert ("fsync", str(git_dir.parent)) in steps.seen[named:]


# the environment


def test_a_surrounding_hook_does_not_redirect_us(repo, sandbox, monkeypatch, tmp_path):
    other = sandbox("other")
    other.commit("README", "other\n")
    for name, value in {
        "GIT_DIR": other.path / ".git",
        "GIT_WORK_TREE": other.path,
        "GIT_INDEX_FILE": tmp_path / "no-index",
        "GIT_OBJECT_DIRECTORY": tmp_path / "no-objects",
        "GIT_COMMON_DIR": other.path / ".git",
        "GIT_NAMESPACE": "x",
        "GIT_QUARANTINE_PATH": tmp_path,
    }.items():
        monkeypatch.setenv(name, str(value))
    found = discover(repo.path)
    assert found.git_dir == repo.path / ".git"
    assert found.read("HEAD", "README") == b"hello\n"


def test_git_absent(repo, monkeypatch, tmp_path):
    git = repo.git
    (tmp_path / "env").symlink_to("/usr/bin/env")
    for path in (str(tmp_path), "/nowhere"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(Exception, match=r"^git is not installed$") as caught:
            git.head()
        assert caught.value.hint == "install git 2.36 or newer and try again"


def test_a_work_tree_that_has_gone_is_not_replaced_by_the_current_directory(repo, sandbox, monkeypatch):
    gone = sandbox("gone")
    git = gone.git
    gone.path.rename(gone.path.with_name("moved"))
    monkeypatch.chdir(repo.path)
    with pytest.raises(GitFailed, match=r"git rev-parse failed .*cannot change to"):
        git.head()


def test_no_torch_and_git_only_in_history():
    code = (
        "import sys, weightvc.util.fsio, weightvc.util.canon, weightvc.objects.tensors\n"
        "assert 'git' not in sys.modules\n"
        "import weightvc.history.git, weightvc.history.commit, weightvc.history.exclude\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# reading


def test_head_and_resolve(repo):
    git = repo.git
    first = repo.run("rev-parse", "HEAD")
    assert git.head() == first
    assert git.resolve("HEAD") == git.resolve("main") == git.resolve(first[:8]) == first
    repo.run("tag", "-a", "v1", "-m", "a tag")
    assert git.resolve("v1") == first


@pytest.mark.parametrize(
    "rev", ["nope", "", "--all", "-h", "HEAD:README", "HEAD^{tree}", "^HEAD", "HEAD..HEAD", "a\0b", "a\x1bb"]
)
def test_no_such_revision(repo, rev):
    with pytest.raises(NotFound, match=r"^no revision '") as caught:
        repo.git.resolve(rev)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint == "`git log --all --oneline` shows the revisions"


def test_an_unborn_branch(sandbox):
    git = sandbox().git
    assert git.head() is None
    assert git.all_blobs() == {}
    with pytest.raises(NotFound, match="no revision 'HEAD'"):
        git.resolve("HEAD")


def test_read(repo):
    repo.commit(TASK, "{}\n")
    git = repo.git
    assert git.read("HEAD", TASK) == b"{}\n"
    assert git.read("HEAD~1", TASK) is None
    assert git.read("HEAD", ".wvc") is None
    assert git.read("HEAD", "a\nb") is None
    assert git.read("HEAD", "with space") is None


def test_read_tree_and_blobs(repo):
    big = "x" * 300_000
    names = {f".wvc/tasks/t{n}.json": f"{n}\n" for n in range(40)} | {".wvc/config.toml": "", ".wvc/ä \t.json": big}
    for path, text in names.items():
        repo.write(path, text)
    repo.run("add", ".wvc")
    repo.run("commit", "-q", "-m", "many")
    git = repo.git
    tree = git.read_tree("HEAD")
    assert tree.keys() == names.keys()
    blobs = git.read_blobs(list(tree.values()))
    assert {path: blobs[blob].decode() for path, blob in tree.items()} == names
    assert git.read_tree("HEAD~1") == {}
    assert git.read_tree("HEAD", "README").keys() == {"README"}
    assert git.read_blobs([]) == {}


def test_read_tree_passes_over_submodules(repo, sandbox):
    inner = sandbox("inner")
    commit = inner.commit("x", "x")
    repo.run("update-index", "--add", "--cacheinfo", f"160000,{commit},.wvc/sub")
    repo.run("commit", "-q", "-m", "submodule")
    assert repo.git.read_tree("HEAD") == {}


def test_an_absent_blob(repo):
    with pytest.raises(Missing, match=f"git has no file contents {'0' * 40}") as caught:
        repo.git.read_blobs(["0" * 40])
    assert caught.value.hint.startswith("run `git fetch --refetch`; in a partial clone, after `git config --unset")


def test_log(repo, monkeypatch):
    first = repo.run("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Zoë \x1b[31m")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "1700000000 +0200")
    second = repo.commit(TASK, "1", "Add a\n\nwith a body\n\n# and a hash\n")
    third = repo.commit("other", "1", "unrelated")
    git = repo.git
    entries = list(git.log())
    assert [e.commit for e in entries] == [third, second, first]
    author = "Zoë \x1b[31m <ada@example.com>"
    assert entries[1] == LogEntry(second, (first,), author, 1_700_000_000, "Add a", "with a body\n\n# and a hash\n")
    assert entries[2].parents == ()
    assert entries[2].body == ""
    assert [e.commit for e in git.log(paths=[".wvc"])] == [second]
    assert [e.commit for e in git.log(paths=["*"])] == []
    assert [e.commit for e in git.log(max_count=1)] == [third]
    assert [e.commit for e in git.log(second)] == [second, first]
    assert git.parents("HEAD") == (second,)


def test_log_of_odd_commits(repo):
    """No message at all, one that is not UTF-8, and a date beyond reason."""
    tree = repo.run("rev-parse", "HEAD^{tree}")
    raw = f"tree {tree}\nauthor \xe9 <> 99999999999999999999 +0000\ncommitter a <b> 1 +0000\n\n".encode("latin1")
    made = []
    for body in (b"", b"caf\xe9\n"):
        done = subprocess.run(
            ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
            cwd=repo.path, input=raw + body, capture_output=True, check=True,
        )  # fmt: skip
        made.append(done.stdout.decode().strip())
    empty, latin = (next(repo.git.log(commit)) for commit in made)
    assert (empty.subject, empty.body, empty.parents) == ("", "", ())
    assert latin.subject == "caf\ufffd"
    assert isinstance(latin.time, int)


def test_ancestors(repo):
    first = repo.run("rev-parse", "HEAD")
    second = repo.commit("b", "1")
    assert repo.git.is_ancestor(first, second)
    assert repo.git.is_ancestor(first, first)
    assert not repo.git.is_ancestor(second, first)
    with pytest.raises(NotFound):
        repo.git.is_ancestor("nope", first)


def test_a_repository_that_breaks_while_it_is_read(repo):
    git = repo.git
    (git.git_dir / "config").write_text("[core\n")
    with pytest.raises(GitFailed, match=r"git rev-parse failed .*bad config line 1"):
        git.head()


def test_ancestry_in_a_broken_history(repo):
    repo.commit("b", "1")
    third = repo.commit("c", "1")
    second = repo.run("rev-parse", "HEAD~1")
    repo.run("switch", "-q", "--orphan", "alone")
    alone = repo.commit("d", "1")
    (repo.git.git_dir / "objects" / second[:2] / second[2:]).unlink()
    with pytest.raises(GitFailed, match=r"git merge-base failed .*Could not read"):
        repo.git.is_ancestor(alone, third)


def test_all_blobs_finds_every_version(repo, tmp_path):
    """Over branches, tags, detached worktrees, and the sides of a merge that the merge dropped."""
    blob = {n: repo.run("rev-parse", repo.commit(TASK, str(n)) + ":" + TASK) for n in range(2)}
    repo.run("switch", "-q", "-c", "side")
    repo.commit(TASK, "side")
    blob["side"] = repo.run("rev-parse", f"HEAD:{TASK}")
    repo.run("switch", "-q", "main")
    repo.commit("unrelated", "x")
    repo.run("merge", "-q", "-s", "ours", "-m", "drop the side", "side")
    repo.run("branch", "-q", "-D", "side")
    repo.run("switch", "-q", "-c", "tagged")
    repo.commit(TASK, "tagged")
    blob["tagged"] = repo.run("rev-parse", f"HEAD:{TASK}")
    repo.run("tag", "keep")
    repo.run("switch", "-q", "main")
    repo.run("branch", "-q", "-D", "tagged")
    repo.run("worktree", "add", "-q", "--detach", str(tmp_path / "detached"))
    other = type(repo)(tmp_path / "detached")
    other.commit(TASK, "detached")
    blob["detached"] = other.run("rev-parse", f"HEAD:{TASK}")
    repo.run("mv", TASK, ".wvc/tasks/b.json")
    repo.run("commit", "-q", "-m", "rename")
    found = repo.git.all_blobs()
    assert found == {TASK: set(blob.values()), ".wvc/tasks/b.json": {blob[1]}}
    assert repo.git.all_blobs(["README"]).keys() == {"README"}


def test_all_blobs_sees_what_a_merge_itself_changed(repo):
    repo.commit(TASK, "0")
    repo.run("switch", "-q", "-c", "side")
    repo.commit(TASK, "1")
    repo.run("switch", "-q", "main")
    repo.commit(TASK, "2")
    repo.run("merge", "-q", "-s", "ours", "--no-commit", "side")
    repo.write(TASK, "3")
    repo.run("add", TASK)
    repo.run("commit", "-q", "-m", "evil")
    blobs = repo.git.all_blobs()[TASK]
    assert {repo.git.read_blobs([b])[b] for b in blobs} == {b"0", b"1", b"2", b"3"}


@pytest.mark.parametrize(
    "said", ["fatal: unable to write: No space left on device", "fatal: Out of diskspace", "fatal: no"]
)
def test_a_full_disk_is_told_with_a_hint(said):
    assert GitFailed("write-tree", 128, said).hint == (
        "" if said == "fatal: no" else "free some space and run it again"
    )


def test_a_linked_work_tree_is_known_by_another_path(repo, tmp_path):
    repo.run("commit", "-q", "--allow-empty", "-m", "m")
    (tmp_path / "alias").symlink_to(repo.path)
    repo.run("-C", str(tmp_path / "alias"), "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    linked = tmp_path / "linked"
    (linked / ".git").write_text(f"gitdir: {tmp_path / 'alias/.git/worktrees/linked'}\n")
    assert discover(linked).head() == repo.git.head()


def test_a_git_directory_that_claims_another_is_refused(repo, tmp_path):
    stranger = tmp_path / "stranger"
    (stranger / ".git").mkdir(parents=True)
    (stranger / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (stranger / ".git/commondir").write_text(f"{repo.path / '.git'}\n")
    with pytest.raises(NotARepository, match="which knows nothing of it"):
        discover(stranger)
