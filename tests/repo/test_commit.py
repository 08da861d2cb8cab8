"""Committing what is staged."""

import json
import subprocess

import pytest

from weightvc.repo import stage, state
from weightvc.util.errors import Conflict


def test_a_commit_has_wvcs_files_only(two, templates):
    (two.path / "mine.txt").write_text("mine")
    two.git("add", "mine.txt")
    two.wvc("add", templates.alpha, "--task", "new")

    done = two.json("commit", "-m", "Add new")

    assert done["tasks"] == ["new"]
    assert done["commit"] == two.git("rev-parse", "HEAD")
    assert two.git("show", "--name-status", "--format=%s", "HEAD") == "Add new\n\nA\t.wvc/tasks/new.json"
    assert two.git("status", "--porcelain") == "A  mine.txt"
    assert two.json("status")["staged"] == {}


def test_nothing_staged(two, refused):
    refused(two, 3, "commit", "-m", "x", says="nothing is staged", hint="stage a fine-tune with `wvc add PATH")


@pytest.mark.parametrize("message", ["", "  \n"])
def test_an_empty_message(two, refused, templates, message):
    two.wvc("add", templates.alpha, "--task", "new")

    refused(two, 3, "commit", "-m", message, says="the commit message is empty", hint="pass -m MESSAGE")


def test_a_dry_run(two, templates):
    two.wvc("add", templates.alpha, "--task", "new")
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    before = two.everything()

    assert two.wvc("commit", "-m", "x", "--dry-run") == "would commit new, recipe prod\n"
    assert two.json("commit", "-m", "x", "-n")["commit"] is None
    assert two.everything() == before


def test_in_the_middle_of_a_merge(two, refused, templates):
    two.git("checkout", "-q", "-b", "side", "HEAD~1")
    (two.path / "x").write_text("side")
    two.git("add", "x")
    two.git("commit", "-qm", "side")
    two.git("checkout", "-q", "-")
    (two.path / "x").write_text("main")
    two.git("add", "x")
    two.git("commit", "-qm", "main")
    subprocess.run(["git", "-C", two.path, "merge", "side"], check=False, capture_output=True)
    waits = "a git merge is under way, and `wvc commit` is refused until `git merge --continue` or `git merge --abort`"
    assert f"note: {waits}\n" in two.run("add", templates.alpha, "--task", "new").err

    refused(two, 3, "commit", "-m", "x", says="a git merge is under way", hint="finish it with `git merge --continue`")
    refused(two, 3, "revert", "alpha", says="a git merge is under way")


def test_without_an_identity(two, refused, templates, monkeypatch, tmp_path):
    two.wvc("add", templates.alpha, "--task", "new")
    monkeypatch.setenv("HOME", str(tmp_path))

    refused(
        two, 3, "commit", "-m", "x", says="git does not know who you are", hint="run `git config --global user.name"
    )


def test_a_task_of_another_base(two, refused, models, templates, tmp_path):
    two.wvc("add", templates.alpha, "--task", "new")
    other = tmp_path / "other"
    two.git("checkout", "-q", "--orphan", "fresh")
    two.git("rm", "-rfq", "--cached", ".wvc")
    for path in sorted((two.path / ".wvc").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    two.wvc("init", two.path, "--base", models.write(other, models.base(5)))

    refused(
        two, 3, "commit", "-m", "x", says="task new was added against another base than the one of this branch",
        hint="add it again on this branch, or take it back with `wvc unstage new`\n",
    )  # fmt: skip
    with pytest.raises(Conflict):
        two.api().commit("x")

    two.wvc("revert", "new")
    two.put("new", other)
    two.git("branch", "-q", "both")
    two.git("checkout", "-q", "main")
    two.wvc("add", templates.alpha, "--task", "new")
    two.git("checkout", "-q", "both")
    refused(two, 3, "commit", "-m", "x", says="another base than", hint="add it again on this branch, or take")


def test_a_branch_without_weightvc(two, templates):
    two.wvc("add", templates.alpha, "--task", "new")
    two.git("checkout", "-q", "--orphan", "bare")

    ran = two.run("commit", "-m", "x")

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == ("wvc: the current branch has no weightvc base\nhint: switch to a branch that has one\n")


def test_what_is_staged_while_a_commit_runs_stays_staged(two, templates, monkeypatch):
    from weightvc.history import commit as commits

    two.wvc("add", templates.alpha, "--task", "new")
    done = commits.commit

    def slow(*arguments):
        made = done(*arguments)
        two.wvc("add", templates.beta, "--task", "new")
        return made

    monkeypatch.setattr(commits, "commit", slow)
    two.wvc("commit", "-m", "x")

    assert two.json("status")["staged"] == {".wvc/tasks/new.json": "changed"}
    staged = json.loads(two.staged("tasks/new.json"))
    assert staged["uuid"] == two.manifest("new")["uuid"]


def test_a_removal_of_what_is_gone_already_is_no_commit(two):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")
    two.wvc("recipe", "rm", "prod")
    two.git("rm", "-q", ".wvc/recipes/prod.toml")
    two.git("commit", "-qm", "by hand")

    before = two.git("rev-parse", "HEAD")
    ran = two.run("commit", "-m", "x")

    assert (ran.code, ran.out) == (3, "")
    assert "wvc: nothing to commit\n" in ran.err
    assert two.git("rev-parse", "HEAD") == before


def test_what_an_interrupted_commit_left_staged_is_dropped(two, templates):
    repo, path = two.api(), ".wvc/tasks/alpha.json"
    committed = (two.path / path).read_bytes()
    stage.put(repo, path, committed)

    assert two.run("commit", "-n", "-m", "x").code == 3
    assert stage.changes(repo) == {path: committed}
    ran = two.run("commit", "-m", "x")
    assert (ran.code, ran.out) == (3, "")
    assert "wvc: nothing to commit\nhint: `wvc log` shows the commit that has what was staged" in ran.err
    assert stage.changes(repo) == {}

    stage.put(repo, path, committed)
    two.wvc("add", templates.alpha, "--task", "gamma")
    assert two.json("commit", "-m", "Add gamma")["tasks"] == ["gamma"]
    assert stage.changes(repo) == {}


def test_a_staged_recipe_that_cannot_be_read_is_not_committed(two, refused):
    two.wvc("recipe", "save", "p", "--tasks", "alpha")
    (two.path / ".git/wvc/stage/recipes/p.toml").write_text("x[[[")

    refused(
        two, 4, "commit", "-m", "x", says="the staged recipe p cannot be read: .wvc/recipes/p.toml: not valid TOML",
        hint="run `wvc unstage p`",
    )  # fmt: skip


def test_new_versions_and_what_is_only_stored_anew_are_called_so(two, templates):
    two.wvc("add", templates.beta, "--task", "alpha")
    two.wvc("add", templates.alpha, "--task", "new")
    two.wvc("repack", "beta", "--codec", "raw")

    planned = two.json("commit", "-m", "x", "-n")
    said = two.wvc("commit", "-m", "x")

    assert (planned["tasks"], planned["versions"], planned["stored"]) == (["alpha", "beta", "new"], ["alpha"], ["beta"])
    assert said.partition(": ")[2] == "new version of alpha, beta stored anew, new\n"


def test_no_commit_is_made_that_could_not_be_read_back(two, templates, monkeypatch, refused):
    """And one that is nearly as large can still be taken apart."""
    most = 1000 + sum(file.stat().st_size for file in (two.path / ".wvc").rglob("*") if file.is_file())
    monkeypatch.setattr(state, "ROOM", 2000)
    monkeypatch.setattr(state, "MOST", most + state.ROOM)
    two.wvc("add", templates.alpha, "--task", "more")
    before = two.git("rev-parse", "HEAD")
    for dry_run in ((), ("-n",)):
        words = {"says": f"more than the limit of {most}", "hint": "take out tasks with `wvc revert TASK`"}
        refused(two, 3, "commit", "-m", "m", *dry_run, **words)
    assert two.git("rev-parse", "HEAD") == before
    two.wvc("unstage")
    two.wvc("revert", "beta")
    two.wvc("status")
    two.put("more", templates.beta)
