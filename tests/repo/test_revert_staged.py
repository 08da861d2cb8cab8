"""Reverts beside what is staged, and at the end of a shallow history."""

import json

import pytest


def test_staged_dependants_must_be_decided_on(two, templates, refused):
    two.wvc("add", templates.beta, "--task", "child", "--derived-from", "alpha")
    refused(
        two, 3, "revert", "alpha", says="other tasks derive from alpha: child (staged)",
        hint="pass --cascade to take them out too, or --keep-derived to leave them, on record",
    )  # fmt: skip
    assert two.json("revert", "alpha", "--cascade", "--dry-run")["dropped"] == ["child"]
    assert two.wvc("revert", "alpha", "--cascade", "-n").startswith("would drop the staged task child\nwould take out")

    done = two.json("revert", "alpha", "--cascade")

    assert (done["tasks"], done["dropped"]) == (["alpha"], ["child"])
    assert two.json("status")["staged"] == {}


def test_staged_dependants_are_kept_on_demand(two, templates):
    two.wvc("add", templates.beta, "--task", "child", "--derived-from", "alpha")
    assert two.json("revert", "alpha", "--keep-derived")["dropped"] == []
    two.wvc("commit", "-m", "child")
    assert [task["task"] for task in two.json("status")["tasks"]] == ["beta", "child"]


def test_a_staged_recipe_that_cannot_be_read_stops_no_revert(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    two.wvc("recipe", "save", "p", "--tasks", "alpha,beta")
    two.wvc("recipe", "save", "q", "--tasks", "beta")
    staged = two.path / ".git/wvc/stage/recipes"
    (staged / "p.toml").write_text("garbage")
    other = (staged / "q.toml").read_bytes()

    ran = two.run("revert", "alpha")

    assert ran.code == 0
    assert "a staged recipe was left as it is: .wvc/recipes/p.toml: not valid TOML" in ran.err
    assert "drop it with `wvc unstage p`" in ran.err
    lock = json.loads((tmp_path / "out/wvc.lock.json").read_text())
    assert [task["task"] for task in lock["tasks"]] == ["beta"]
    assert (staged / "q.toml").read_bytes() == other


def test_a_version_staged_before_its_task_was_taken_out_is_not_committed(two, templates, tmp_path, refused):
    uuid = two.manifest("alpha")["uuid"]
    two.git("branch", "other")
    two.git("worktree", "add", "-q", str(tmp_path / "linked"), "other")
    two.wvc("add", templates.beta, "--task", "alpha")
    two.wvc("-C", tmp_path / "linked", "revert", "alpha", "--no-rebuild", "--reason", "contract ended")
    two.git("merge", "-q", "other")

    refused(
        two, 3, "commit", "-m", "v2", says="task alpha was taken out since this version of it was staged",
        hint="take it back with `wvc unstage alpha`; added again after that, it is a task anew",
    )  # fmt: skip

    record = (two.path / f".wvc/removals/{uuid}.json").read_bytes()
    assert b"contract ended" in record
    two.wvc("unstage", "alpha")
    two.put("alpha", templates.beta)
    assert two.manifest("alpha")["uuid"] != uuid
    two.wvc("revert", "alpha", "--no-rebuild")
    assert (two.path / f".wvc/removals/{uuid}.json").read_bytes() == record


@pytest.mark.parametrize("rev", ["HEAD", "main"])
def test_what_the_end_of_a_shallow_history_added_is_not_known(two, tmp_path, sandbox, refused, rev):
    two.git("branch", "-M", "main")
    two.git("commit", "-q", "--allow-empty", "-m", "notes")
    refused(two, 3, "revert", rev, says=f"{rev} added no task that is still here")
    two.git("clone", "-q", "--depth", "1", f"file://{two.path}", str(tmp_path / "shallow"))
    shallow = sandbox(tmp_path / "shallow")

    refused(
        shallow, 3, "revert", rev, says=f"what {rev} added is not known: this clone's history ends there",
        hint="run `git fetch --unshallow` first",
    )  # fmt: skip


def test_a_replay_finds_a_task_that_is_not_the_commit_s(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    lock, uuid = tmp_path / "out/wvc.lock.json", two.manifest("alpha")["uuid"]
    lock.write_text(lock.read_text().replace(uuid, "00000000-0000-4000-8000-000000000000"))

    ran = two.run("verify", tmp_path / "out", "--replay")

    assert ran.code == 1
    assert "the lock names other tasks than its commit has: alpha" in ran.out
    two.wvc("revert", "alpha")
    assert [task["task"] for task in json.loads(lock.read_text())["tasks"]] == ["beta"]
