"""What a task is recorded to derive from, and what is said of weights that come back."""

import shutil

import pytest


@pytest.fixture
def merged(two, tmp_path):
    """A directory that holds alpha and beta, merged."""
    two.wvc("checkout", "-o", tmp_path / "merged")
    return tmp_path / "merged"


def parents(two, name):
    return [parent["task"] for parent in two.manifest(name)["lineage"]]


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_what_was_trained_from_a_checkout_derives_from_its_tasks(two, merged, refused, file):
    note = "recorded as derived from alpha, beta, which wvc.lock.json beside it names"
    assert note in two.json("add", merged / file, "--task", "child", "-n")["notes"]
    assert note in two.json("add", merged / file, "--task", "child")["notes"]
    two.wvc("commit", "-m", "child")

    assert parents(two, "child") == ["alpha", "beta"]
    refused(two, 3, "revert", "alpha", says="other tasks derive from alpha: child")
    assert two.json("revert", "alpha", "--cascade")["tasks"] == ["alpha", "child"]


def test_what_is_named_and_what_is_found_come_together_once(two, merged):
    two.put("child", merged, "--derived-from", "beta")

    assert parents(two, "child") == ["beta", "alpha"]


def test_a_task_does_not_derive_from_itself(two, merged):
    two.wvc("checkout", "--tasks", "alpha", "-o", merged, "--force")

    added = two.json("add", merged, "--task", "alpha")

    assert (added["change"], added["notes"]) == ("none", [])


def test_a_lock_that_cannot_be_read_is_said_and_no_obstacle(two, merged):
    (merged / "wvc.lock.json").write_text("{}")

    added = two.json("add", merged, "--task", "child")

    assert [note.partition(": ")[0] for note in added["notes"]] == ["what it was trained from is not recorded"]
    assert "wvc.lock.json" in added["notes"][0]


def test_what_derives_from_a_removed_task_is_said(two, merged, tmp_path):
    shutil.copytree(merged, tmp_path / "kept")
    two.wvc("revert", "alpha")

    notes = two.json("add", tmp_path / "kept", "--task", "child")["notes"]

    assert [note for note in notes if note.startswith("it derives from what was removed: alpha (taken out on 20")]


def test_all_tasks_of_the_same_weights_are_named(two, templates):
    two.put("twin", templates.alpha)
    notes = two.json("add", templates.alpha, "--task", "third")["notes"]
    assert notes == ["tasks alpha, twin have the same weights"]


def test_weights_that_come_back_are_known(two, templates):
    assert two.json("add", templates.alpha, "--task", "twin")["notes"] == ["task alpha has the same weights"]
    two.wvc("revert", "twin")
    two.wvc("revert", "alpha", "--no-rebuild")

    for name in ("alpha", "twin"):
        (note,) = two.json("add", templates.alpha, "--task", name)["notes"]
        assert note.startswith("these are the weights of alpha (taken out on 20")


def test_one_that_was_taken_out_twice_is_named_once(two, templates):
    two.wvc("revert", "alpha", "--no-rebuild")
    two.put("alpha", templates.alpha)
    two.wvc("revert", "alpha", "--no-rebuild")

    (note,) = two.json("add", templates.alpha, "--task", "x")["notes"]
    assert note.count("alpha") == 1
