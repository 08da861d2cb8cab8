"""What a checkout may replace, and what it leaves alone."""

import json
import os
import shutil
import subprocess

import pytest
from safetensors.torch import save_file

from weightvc.util import fsio


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "directory"])
def test_what_wvc_did_not_write_is_never_overwritten(two, refused, templates, tmp_path, kind):
    target = tmp_path / "out"
    says = f"{target} exists and is not a directory"
    if kind == "file":
        target.write_text("mine")
    elif kind == "directory":
        target.mkdir()
        (target / "mine").write_text("mine")
        says = f"{target} is not empty and was not written by wvc"
    else:
        target.symlink_to(templates.base if kind == "link" else tmp_path / "gone")

    refused(two, 3, "checkout", "-o", target, says=says, hint="name another one with -o DIR")

    if kind != "directory":
        refused(two, 3, "checkout", "-o", target, "--force", says=says)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "repo"]


def test_an_empty_directory_is_free(two, tmp_path):
    (tmp_path / "out").mkdir()

    two.wvc("checkout", "-o", tmp_path / "out")

    assert (tmp_path / "out/wvc.lock.json").is_file()


@pytest.mark.parametrize("change", ["added", "changed", "linked", "nested"])
def test_a_checkout_that_was_changed_since_is_kept(two, refused, tmp_path, change):
    target = tmp_path / "out"
    two.wvc("checkout", "-o", target)
    name = {"added": "notes.txt", "changed": "config.json", "linked": "tokenizer.json", "nested": "1_Pooling/x"}[change]
    if change == "linked":
        (target / name).unlink()
        (target / name).symlink_to(target / "modules.json")
    else:
        (target / name).write_text("mine")

    refused(
        two, 3, "checkout", "-o", target, says=f"files that were added or changed since the checkout: {name}",
        hint="move them away, or pass --force to replace the directory with all it holds",
    )  # fmt: skip
    assert (target / name).exists()

    two.wvc("checkout", "-o", target, "--force")
    assert two.json("verify", target)["ok"]


@pytest.mark.parametrize("change", ["value", "header", "longer", "linked", "lock"])
def test_weights_that_were_changed_since_are_kept(two, refused, models, templates, tmp_path, *, change):
    target = tmp_path / "out"
    two.wvc("checkout", "-o", target)
    weights = target / "model.safetensors"
    if change == "value":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif change == "header":
        save_file(models.read(target), weights, metadata={"format": "pt", "by": "me"})
    elif change == "longer":
        with weights.open("ab") as file:
            file.write(b"more")
    elif change == "linked":
        shutil.move(weights, tmp_path / "weights")
        weights.symlink_to(tmp_path / "weights")
    else:
        shutil.copy(target / "wvc.lock.json", tmp_path / "lock")
        shutil.rmtree(target)
        shutil.copytree(templates.beta, target)
        shutil.copy(tmp_path / "lock", target / "wvc.lock.json")
    before = models.contents(target)

    says = "files that were added or changed since the checkout: "
    says += "README.md, model.safetensors" if change == "lock" else "model.safetensors"
    refused(two, 3, "checkout", "-o", target, says=says, hint="move them away, or pass --force")
    warned = two.run("revert", "alpha").err

    assert f"warning: {target} still holds the task: " in warned
    assert f" holds {says}" in warned
    assert models.contents(target) == before
    two.wvc("checkout", "-o", target, "--force")
    assert two.json("verify", target)["ok"]


def test_a_checkout_whose_weights_were_deleted_is_written_again(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    (tmp_path / "out/model.safetensors").unlink()

    two.wvc("checkout", "-o", tmp_path / "out")

    assert two.json("verify", tmp_path / "out")["ok"]


def test_force_replaces_a_foreign_directory(two, tmp_path):
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/sub/mine").write_text("mine")

    two.wvc("checkout", "-o", tmp_path / "out", "--force")

    assert not (tmp_path / "out/sub").exists()
    assert two.json("verify", tmp_path / "out")["ok"]


@pytest.mark.parametrize("where", [".", "..", ".git", ".git/wvc/objects", ".wvc", ".wvc/tasks/x", "a/../.git"])
def test_the_repository_is_never_replaced(two, refused, where):
    refused(two, 3, "checkout", "-o", where, "--force", says="holds the repository, or is part of it")


def test_relative_outputs_are_recorded_as_they_are(two):
    two.wvc("checkout", "-o", "a/../b")

    assert two.json("status")["outputs"] == [str(two.path / "b")]


def test_the_card_names_a_base_of_one_file(repository, models, templates, tmp_path):
    base = models.write(tmp_path / "in", models.base()) / "tiny-v1.safetensors"
    (tmp_path / "in/model.safetensors").rename(base)
    one = repository(base)
    one.put("alpha", templates.alpha / "model.safetensors")

    one.wvc("checkout", "--tasks", "alpha=0.5", "-o", tmp_path / "out")

    version = one.json("status")["base"]
    assert f"from tiny-v1.safetensors ({version}) with" in (tmp_path / "out/README.md").read_text()


def test_where_no_directory_can_be(two, refused, tmp_path):
    (tmp_path / "file").touch()

    for where, why in ((f"{tmp_path}/file/out", "Not a directory"), ("/proc/nowhere/out", "No such file or directory")):
        says = f"{where}: no directory can be made there ({why})"
        refused(two, 3, "checkout", "-o", where, says=says, hint="name another one with -o DIR")


def test_a_second_checkout_takes_the_place_of_the_first(two, models, templates, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    two.wvc("checkout", "--tasks", "beta", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(templates.beta)
    assert two.json("status")["outputs"] == [str(tmp_path / "out")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "repo"]


@pytest.mark.parametrize("where", ["checkout", "revert"])
@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors"])
def test_what_appears_during_the_build_is_kept(two, tmp_path, monkeypatch, where, name):
    from weightvc.repo.build import Builder

    target = tmp_path / "out"
    two.wvc("checkout", "-o", target)
    write = Builder.write

    def slow(self, directory, progress):
        (target / name).write_text("mine")
        return write(self, directory, progress)

    monkeypatch.setattr(Builder, "write", slow)
    ran = two.run("checkout", "-o", target) if where == "checkout" else two.run("revert", "alpha")

    says = f" got files that were added or changed during the build: {name}"
    assert (f"wvc: {target}{says}" if where == "checkout" else says) in ran.err
    assert (target / name).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "repo"]
    two.wvc("checkout", "-o", target, "--force")
    assert two.json("verify", target)["ok"]


def test_a_directory_that_appears_during_the_build_is_kept(two, tmp_path, monkeypatch):
    from weightvc.repo.build import Builder

    write = Builder.write

    def slow(self, directory, progress):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/notes").write_text("mine")
        return write(self, directory, progress)

    monkeypatch.setattr(Builder, "write", slow)

    assert "added or changed during the build: notes" in two.run("checkout", "-o", tmp_path / "out").err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes"]


@pytest.mark.parametrize("command", [("checkout", "-o"), ("revert", "alpha")])
def test_what_a_killed_checkout_left_is_put_in_order(two, tmp_path, command):
    dead = int(subprocess.run(["sh", "-c", "echo $$"], check=True, stdout=-1).stdout)
    target = tmp_path / "out"
    two.wvc("checkout", "-o", target)
    target.rename(tmp_path / f".out.old-{dead}-0123abcd")
    (tmp_path / f".out.wvc-{dead}-0123abcd").mkdir()
    two.wvc("checkout", "--dry-run", "-o", target)
    assert not target.exists()

    two.wvc(*command, *([target] if command[1] == "-o" else []))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "repo"]
    lock = json.loads((target / "wvc.lock.json").read_text())
    assert [task["task"] for task in lock["tasks"]] == (["alpha", "beta"] if command[1] == "-o" else ["beta"])


def test_scratch_files_of_killed_processes_are_swept(two, templates, tmp_path):
    scratch = two.path / ".git/wvc/tmp"
    beside = scratch.with_name("tmp-1-0123456789abcdef")
    beside.write_bytes(b"a list of checkouts")
    add = ["add", templates.beta, "--task", "gamma"]
    for command in (["checkout", "-o", tmp_path / "out"], ["revert", "alpha"], add):
        scratch.mkdir(exist_ok=True)
        (scratch / f"tmp-{os.getpid()}-0123456789abcdef").write_bytes(b"x")
        (scratch / "tmp-1-fedcba9876543210/objects").mkdir(parents=True)
        (scratch / "notes").touch()
        with fsio.NewFile(scratch) as held:
            two.wvc(*command)
            assert sorted(path.name for path in scratch.iterdir()) == ["notes", held.path.name]
        assert not beside.exists()
