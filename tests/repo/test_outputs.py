"""The list of directories that checkout wrote: what is on it, what moves, and what a removal finds by it."""

import json
import os
import shutil

import pytest


def test_a_task_that_is_taken_out_during_a_checkout_is_not_published(two, tmp_path, monkeypatch):
    from weightvc.repo.build import Builder
    from weightvc.util.errors import Conflict

    write = Builder.write

    def during(*given):
        monkeypatch.undo()
        two.api().revert("alpha", jobs=1)
        return write(*given)

    monkeypatch.setattr(Builder, "write", during)
    with pytest.raises(Conflict, match="alpha was taken out by `wvc revert` meanwhile; nothing was built") as caught:
        two.api().checkout(output=tmp_path / "out", jobs=1)
    assert caught.value.hint == "run it again"
    assert not (tmp_path / "out").exists()
    two.wvc("checkout", "HEAD~1", "--tasks", "alpha", "-o", tmp_path / "out")


def test_a_neighbours_directory_is_not_taken_for_one_that_moved_along(two, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    first = type(two)(two.path.rename(tmp_path / "x/repo"))
    first.wvc("checkout", "-o", tmp_path / "x/out")
    shutil.copytree(tmp_path / "x/out", tmp_path / "y/out")
    moved = type(two)(first.path.rename(tmp_path / "y/repo"))

    done = moved.json("revert", "alpha")

    assert [line["output"] for line in done["rebuilt"]] == [str(tmp_path / "y/out"), str(tmp_path / "x/out"), None]


@pytest.mark.parametrize("entry", [["\ud800", ""], ["/x\ud800", "/y"], ["/x", "/y\0"]])
def test_damage_in_the_list_of_checkouts_reads_as_nothing(two, entry):
    (two.path / ".git/wvc/outputs").write_text(json.dumps([entry, ["model", ""]]))

    assert two.json("status")["outputs"] == []
    two.wvc("revert", "alpha")


def test_a_model_is_not_built_within_another(two, refused, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    refused(
        two, 3, "checkout", "-o", tmp_path / "out/a/b",
        says=f"{tmp_path / 'out/a/b'} is in the model directory {tmp_path / 'out'}", hint="name one outside it with -o",
    )  # fmt: skip


def test_a_lock_that_is_too_large_is_not_read(two, refused, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    os.truncate(tmp_path / "out/wvc.lock.json", 2**28 + 1)

    refused(
        two, 4, "verify", tmp_path / "out", says="268435457 bytes, which no lock has",
        hint="build it again with `wvc checkout`",
    )  # fmt: skip


def test_a_copied_repository_knows_its_own_checkouts_only(two, tmp_path):
    two.wvc("checkout")
    two.wvc("checkout", "-o", tmp_path / "out")
    shutil.copytree(two.path, tmp_path / "copy")
    before = [(path / "wvc.lock.json").read_bytes() for path in (two.path / "model", tmp_path / "out")]
    copy = type(two)(tmp_path / "copy")

    assert copy.json("status")["outputs"] == [str(tmp_path / "copy/model")]
    rebuilt = copy.json("revert", "alpha")["rebuilt"]

    assert [one["output"] for one in rebuilt] == [str(tmp_path / "copy/model"), None]
    assert [(path / "wvc.lock.json").read_bytes() for path in (two.path / "model", tmp_path / "out")] == before
    assert two.json("status")["outputs"] == [str(two.path / "model"), str(tmp_path / "out")]


def test_a_moved_repository_keeps_its_checkouts(two, tmp_path):
    outside = tmp_path / "far/out"
    for output in (two.path / "model", outside, tmp_path / "beside"):
        two.wvc("checkout", "-o", output)
    (tmp_path / "new").mkdir()
    moved = type(two)(two.path.rename(tmp_path / "new/place"))
    beside = (tmp_path / "beside").rename(tmp_path / "new/beside")

    assert moved.json("status")["outputs"] == [str(moved.path / "model"), str(outside), str(beside)]
    moved.wvc("checkout", "-o", outside)
    reverted = moved.json("revert", "alpha")

    assert [one["output"] for one in reverted["rebuilt"]] == [
        str(moved.path / "model"),
        str(outside),
        str(beside),
        None,
    ]
    assert reverted["warnings"] == []
    tasks = {str(path): [task["task"] for task in json.loads((path / "wvc.lock.json").read_text())["tasks"]]
             for path in (outside, beside)}  # fmt: skip
    assert tasks == {str(outside): ["beta"], str(beside): ["beta"]}


def test_a_revert_names_a_checkout_that_a_moved_repository_does_not_find(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    moved = type(two)(two.path.rename(tmp_path / "moved"))
    (tmp_path / "out").rename(tmp_path / "elsewhere")

    ran = moved.run("revert", "alpha")

    says = f"warning: not found: {tmp_path / 'out'}; a model that was moved from there may still hold the task\n"
    assert (ran.code, ran.err) == (0, says)


def test_linked_worktrees_share_the_list_of_checkouts(two, tmp_path):
    two.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "other")
    linked = type(two)(tmp_path / "linked")

    linked.wvc("checkout")
    two.wvc("checkout")

    for repo in (two, linked):
        assert repo.json("status")["outputs"] == [str(tmp_path / "linked/model"), str(two.path / "model")]
    assert linked.git("status", "--porcelain") == ""


def test_a_revert_leaves_the_checkouts_of_other_work_trees_to_their_branches(two, tmp_path):
    two.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "other")
    linked = type(two)(tmp_path / "linked")
    for repo, tasks in ((two, "alpha"), (two, "beta"), (linked, "alpha,beta")):
        repo.wvc("checkout", "--tasks", tasks, "-o", repo.path / tasks)
    two.wvc("checkout", "-o", tmp_path / "outside")

    ran = linked.run("--json", "revert", "alpha")

    there = two.path / "alpha"
    says = f"the branch of the work tree {two.path} decides whether these hold the task: {there}; bring the removal to "
    says += "its branch with `git merge other` or `git rebase other` there, then run `wvc revert alpha` there, "
    says += "which rebuilds them"
    assert (ran.code, ran.json["warnings"], ran.json["unproved"]) == (0, [says], [])
    outputs = [line["output"] for line in ran.json["rebuilt"]]
    assert outputs == [str(linked.path / "alpha,beta"), str(tmp_path / "outside"), None]
    seen = {line["path"]: (line["state"], line["why"]) for line in two.json("status")["directories"]}
    assert seen[str(there)] == ("current", "")
    says = f"{linked.path / 'alpha,beta'} is another work tree's: its own `wvc status` tells"
    assert seen[str(linked.path / "alpha,beta")] == ("unknown", says)
    others = f"{tmp_path / 'linked'}, whose own `wvc status` tells: {linked.path / 'alpha,beta'}"
    assert f"  in the work tree {others}\n" in two.wvc("status")
    linked.wvc("checkout")
    assert f"{others}, {linked.path / 'model'}\n" in two.wvc("status")
    assert two.wvc("status").count("in the work tree") == 1
    assert [line["output"] for line in two.json("revert", "alpha")["rebuilt"]] == [str(there), None]


@pytest.mark.parametrize("bring", [["merge", "-q", "--no-edit"], ["rebase", "-q"]])
def test_what_a_revert_says_of_another_work_tree_works(two, templates, tmp_path, bring):
    two.put("child", templates.base, "--derived-from", "alpha")
    two.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "other")
    linked = type(two)(tmp_path / "linked")
    linked.put("more", templates.base)
    linked.wvc("checkout", "--tasks", "alpha,beta,more", "-o", linked.path / "out")

    (says,) = two.json("revert", "alpha", "--keep-derived", "--no-rebuild", "-n")["warnings"] or [""]
    (warning,) = two.json("revert", "alpha", "--keep-derived")["warnings"]
    assert (says, "`git merge main` or `git rebase main` there, then run `wvc revert alpha`" in warning) == ("", True)
    linked.git(*bring, "main")
    done = linked.json("revert", "alpha")

    assert (done["commit"], done["warnings"], done["rebuilt"][0]["output"]) == (None, [], str(linked.path / "out"))
    assert [line["recipe"] for line in linked.json("status")["directories"]] == [["beta", "more"]]
    two.git("merge", "-q", "--no-edit", "other")
    assert [task["task"] for task in two.json("status")["tasks"]] == ["beta", "child", "more"]


def test_directories_that_are_gone_are_named_if_they_may_have_held_the_task(two, tmp_path):
    for tasks in ("alpha", "beta", "alpha,beta"):
        two.wvc("checkout", "--tasks", tasks, "-o", tmp_path / tasks)
        shutil.rmtree(tmp_path / tasks)

    gone = f"{tmp_path}/alpha, {tmp_path}/alpha,beta"
    says = f"not found: {gone}; a model that was moved from there may still hold the task"
    assert two.json("revert", "alpha", "-n")["warnings"] == [says]


DAMAGED = [
    b"", b"{", b"\xff", b"{}", b"7", b'["/x"]', b'[["a"]]', b"[[1,2]]", b'[["", ""]]', b'[["a\\u0000", ""]]',
    b'[["/x", ""]]', b'[["x", "/y"]]', b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED, ids=lambda data: repr(data[:12]))
def test_a_damaged_list_of_checkouts_reads_as_an_empty_one(two, tmp_path, data):
    (two.path / ".git/wvc/outputs").write_bytes(data)

    assert two.json("status")["outputs"] == []
    assert two.json("revert", "beta")["warnings"] == []
    two.wvc("checkout", "-o", tmp_path / "out")
    assert two.json("status")["outputs"] == [str(tmp_path / "out")]


def test_a_list_of_another_repository_that_cannot_be_read_says_nothing(two, tmp_path):
    os.mkfifo(two.path / ".git/wvc/outputs")
    assert two.run("status").err.startswith(
        f"wvc: {two.path}/.git/wvc/outputs: not a regular file\nhint: delete it, and "
    )
    (tmp_path / "other/wvc").mkdir(parents=True)
    os.mkfifo(tmp_path / "other/wvc/outputs")
    (two.path / ".git/wvc/outputs").unlink()
    (two.path / ".git/wvc/outputs").write_text(json.dumps([[str(tmp_path / "out"), str(tmp_path / "other")]]))

    assert two.json("status")["outputs"] == []


def test_a_recipe_file_that_is_too_large_is_not_read(two, tmp_path):
    (tmp_path / "big.toml").touch()
    os.truncate(tmp_path / "big.toml", 5 * 2**30)

    ran = two.run("checkout", "--recipe", tmp_path / "big.toml", "-o", tmp_path / "out")

    assert ran.code == 3
    assert "bytes of TOML, more than the limit of 1048576" in ran.err


def test_a_checkout_is_on_the_list_while_it_is_built(two, tmp_path, monkeypatch):
    from weightvc.repo import checkouts
    from weightvc.repo.build import Builder

    before, seen = two.everything(), []

    def failing(self, *_):
        seen.append(list(checkouts.recorded(self._repo)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Builder, "write", failing)
        two.run("checkout", "-o", tmp_path / "out")
        assert two.everything() == before
        two.run("checkout", "-o", tmp_path / "out")
    assert seen == [[tmp_path / "out"]] * 2

    two.wvc("checkout", "-o", tmp_path / "out")
    after = two.everything()
    with monkeypatch.context() as patch:
        patch.setattr(Builder, "write", failing)
        two.run("checkout", "-o", tmp_path / "out")
    assert two.everything() == after


def test_a_checkout_that_is_interrupted_when_it_is_there_stays_on_the_list(two, tmp_path, monkeypatch):
    from weightvc.util import scratch

    def publish(made, final, check):
        check(made)
        made.rename(final)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scratch, "publish_dir", publish)
        two.run("checkout", "--force", "-o", tmp_path / "out")

    assert two.json("status")["outputs"] == [str(tmp_path / "out")]


def test_a_checkout_that_fails_takes_only_itself_off_the_list(two, tmp_path, monkeypatch):
    from weightvc.repo.build import Builder

    write = Builder.write

    def twice(*_):
        monkeypatch.setattr(Builder, "write", write)
        two.wvc("checkout", "-o", tmp_path / "second")
        two.wvc("checkout", "-o", tmp_path / "first")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Builder, "write", twice)
    two.run("checkout", "-o", tmp_path / "first")

    assert two.json("status")["outputs"] == [str(tmp_path / "first"), str(tmp_path / "second")]
