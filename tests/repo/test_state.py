"""Parsing a revision's tracked files, and what is said of damaged ones."""

import json
import subprocess

import pytest

from weightvc.repo import state
from weightvc.util.errors import Missing


def edit(repo, path, change):
    """Change a tracked file by hand and commit it with plain git."""
    file = repo.path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    text = change(file.read_text() if file.exists() else "")
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    repo.git("add", "-A", path)
    repo.git("commit", "-qm", "by hand")


def test_tasks_stand_in_the_order_of_adding(two, templates):
    two.put("aaa", templates.alpha)

    assert list(state.load(two.api()).tasks) == ["alpha", "beta", "aaa"]


def test_two_tasks_of_one_uuid_are_refused(two, refused):
    copied = two.path / ".wvc/tasks/alpha.json"
    edit(two, ".wvc/tasks/twin.json", lambda _: copied.read_text().replace('"task":"alpha"', '"task":"twin"'))
    refused(
        two, 4, "revert", "alpha", says="tasks alpha and twin have the same UUID",
        hint="remove the copy with git and add it anew",
    )  # fmt: skip


def test_a_file_that_no_wvc_wrote_is_refused_before_git_hands_it_over(two, refused, monkeypatch):
    monkeypatch.setattr("weightvc.util.canon.MAX_BYTES", 20_000)
    edit(two, ".wvc/tasks/big.json", lambda _: "x" * 20_001)
    refused(
        two, 4, "status", says="has 20001 bytes, more than any file of wvc",
        hint="`git log --all --find-object` finds its commit",
    )  # fmt: skip


def test_outside_a_git_repository(wvc, tmp_path):
    for command in (["status"], ["log"], ["commit", "-m", "x"], ["add", "x", "--task", "y"], ["checkout"], ["fsck"],
                    ["show", "HEAD"], ["diff", "a"], ["recipe", "list"], ["revert", "x"]):  # fmt: skip
        ran = wvc("-C", tmp_path, *command)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err == (
            f"wvc: {tmp_path} is not in a git repository\n"
            "hint: name a repository with -C DIR, or make one with `wvc init --base PATH`\n"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("commits", [0, 1])
def test_in_a_git_repository_without_weightvc(wvc, tmp_path, commits):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for _ in range(commits):
        subprocess.run(["git", "-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "x"], check=True)

    for command in (["status"], ["log"], ["checkout"], ["fsck"], ["add", "x", "--task", "y"]):
        ran = wvc("-C", tmp_path, *command)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err == (
            f"wvc: {tmp_path} is a git repository without weightvc\nhint: run `wvc init --base PATH` in it\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == [".git"]
    assert not (tmp_path / ".git/wvc").exists()


def test_a_revision_before_weightvc(wvc, templates, refused, tmp_path, two):
    path = tmp_path / "older"
    subprocess.run(["git", "init", "-q", path], check=True)
    subprocess.run(["git", "-C", path, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert wvc("init", path, "--base", templates.base).code == 0
    repo = type(two)(path)

    for command in (["checkout", "HEAD~1"], ["show", "HEAD~1"], ["diff", "HEAD~1"], ["revert", "HEAD~1"]):
        refused(repo, 3, *command, says=" has no weightvc", hint="`wvc log` shows the revisions that have")
    refused(repo, 3, "revert", "HEAD", says="HEAD added no task that is still here", hint="name a task, or undo other")


def test_a_newer_format_is_not_guessed_at(two, refused, templates):
    edit(two, ".wvc/config.toml", lambda text: text.replace("format = 1", "format = 2") + "future = true\n")

    for command in (["status"], ["checkout"], ["fsck"], ["log"], ["add", templates.alpha, "--task", "x"]):
        refused(
            two, 3, *command, says=".wvc/config.toml: repository format 2; this wvc reads format 1",
            hint="upgrade weightvc",
        )  # fmt: skip


def test_a_newer_manifest_is_not_damage(two, refused):
    edit(two, ".wvc/tasks/alpha.json", lambda text: text.replace("manifest/1", "manifest/2"))

    for command in (["status"], ["fsck"], ["checkout"]):
        refused(two, 3, *command, says="schema 'weightvc/manifest/2'; this wvc reads", hint="upgrade weightvc")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: "format = [", "not valid TOML"),
        (lambda text: f'url = "http://evil"\n{text}', "unknown url"),
        (lambda text: text.replace("[merge]", '[merge]\ncommand = "rm"'), "unknown command"),
        (lambda text: text.replace("format = 1", 'format = "1"'), "format: '1' is not of type int"),
        (lambda text: text.replace('"opcm-s"', "3"), "3 is not of type str"),
    ],
)
def test_settings_that_are_none(two, refused, change, says):
    edit(two, ".wvc/config.toml", change)

    refused(two, 3, "status", says=says, hint="correct the file and commit it with git")


def test_the_settings_decide_the_default_method(two):
    edit(
        two, ".wvc/config.toml", lambda _: 'format = 1\n[merge]\nmethod = "task_arithmetic"\nparams = {scaling = 0.5}\n'
    )

    done = two.json("checkout", "-n")

    assert (done["method"], done["params"]) == ("task_arithmetic", {"scaling": 0.5})
    assert two.json("status")["method"] == "task_arithmetic"
    assert two.json("checkout", "-n", "--tasks", "alpha")["exact"] is False


def tampered(text):
    value = json.loads(text)
    return text.replace(value["tensors"][0]["digest"], "0" * 64)


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("tasks/alpha.json", lambda text: text[:-10], "tasks/alpha.json: not valid JSON"),
        ("tasks/alpha.json", lambda text: text.replace("\n", ""), "not in canonical form; it was changed by something"),
        ("tasks/alpha.json", tampered, "the tensors do not have the version that the file states"),
        ("base.json", tampered, "base.json: the tensors do not have the version that the file states"),
        ("tasks/other.json", lambda _: None, ""),
        ("tasks/notes.txt", lambda _: "mine", ".wvc/tasks/notes.txt does not belong there"),
        ("tasks/UP.json", lambda _: "{}", ".wvc/tasks/UP.json does not belong there"),
        ("recipes/x.json", lambda _: "{}", ".wvc/recipes/x.json does not belong there"),
        ("removals/x.json", lambda _: "{}", ".wvc/removals/x.json: not in canonical form"),
    ],
)
def test_tampered_files_are_integrity_errors(two, refused, path, change, says):
    if path == "tasks/other.json":
        # A manifest under another task's name.
        text = (two.path / ".wvc/tasks/alpha.json").read_text()
        edit(two, ".wvc/tasks/other.json", lambda _: text)
        says = "the manifest of task other says it is alpha"
    else:
        edit(two, f".wvc/{path}", change)

    ran = refused(two, 4, "status", says=says)

    assert "hint: " in ran.err
    assert two.run("checkout").code == 4


def test_a_task_of_another_base(two, refused, models, repository, tmp_path):
    other = repository(models.write(tmp_path / "other", models.base(3)), name="second")
    other.put("stranger", tmp_path / "other")
    text = (other.path / ".wvc/tasks/stranger.json").read_text()
    edit(two, ".wvc/tasks/stranger.json", lambda _: text)

    refused(two, 4, "status", says="task stranger was taken from another base than this repository's")


def test_a_base_that_is_gone(two, refused):
    edit(two, ".wvc/base.json", lambda _: None)

    refused(two, 4, "status", says=".wvc/base.json is not in commit", hint="restore the file with git")
    with pytest.raises(Missing):
        state.load(two.api())


def test_a_fresh_clone_works_and_names_what_is_missing(two, tmp_path):
    subprocess.run(["git", "clone", "-q", two.path, tmp_path / "clone"], check=True)
    clone = type(two)(tmp_path / "clone")

    assert [task["task"] for task in clone.json("status")["tasks"]] == ["alpha", "beta"]
    ran = clone.run("checkout")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == (
        "wvc: this clone has no objects yet: only git history was cloned\n"
        "hint: `wvc remote add NAME URL` and `wvc fetch` bring them, or copy another clone's to "
        f"{clone.path}/.git/wvc/objects\n"
    )
    assert not (clone.path / "model").exists()
    assert clone.run("fsck").code == 1


def test_more_than_any_commit_has_is_refused_before_it_is_read(two, refused, monkeypatch):
    monkeypatch.setattr(state, "MOST", 10_000)
    edit(two, ".wvc/tasks/large.json", lambda _: "0" * 10_000)
    refused(two, 4, "status", says="bytes together, more than the limit of 10000", hint="`git ls-tree -r -l HEAD .wvc`")
