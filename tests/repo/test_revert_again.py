"""Reverts that were interrupted, could not be proved, or are followed by others; and what history keeps."""

from dataclasses import replace

import pytest
import torch

from weightvc.repo.build import Builder
from weightvc.util.errors import Interrupted


def test_an_interrupted_rebuild_is_finished_by_running_it_again(family, models, tmp_path, monkeypatch):
    family.wvc("checkout", "-o", tmp_path / "out")
    before = models.contents(tmp_path / "out")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Builder, "write", interrupt)
        ran = family.run("revert", "alpha", "--cascade")
    head = family.git("rev-parse", "HEAD")

    assert (ran.code, ran.out) == (130, "")
    assert ran.err == (
        f"wvc: alpha is taken out in commit {head[:12]}; not everything is rebuilt\n"
        "hint: run `wvc revert alpha` again\n"
    )
    assert models.contents(tmp_path / "out") == before
    planned = family.json("revert", "alpha", "--dry-run")
    done = family.json("revert", "alpha")
    assert (done["commit"], done["tasks"], done["recipes"]) == (None, ["alpha", "child", "grand"], ["prod"])
    assert (family.path / done["audit"]).is_file()
    assert family.git("rev-parse", "HEAD") == head
    assert [(line["recipe"], line["output"]) for line in done["rebuilt"]] == [
        (line["recipe"], line["output"]) for line in planned["would_rebuild"]
    ]
    assert [line["recipe"] for line in done["rebuilt"]] == [None, "prod", None]
    assert family.json("verify", tmp_path / "out", "--replay")["digest"] == family.manifest("beta")["version"]
    with monkeypatch.context() as patch:
        patch.setattr(Builder, "digests", interrupt)
        assert family.run("revert", "alpha").err.startswith("wvc: alpha is taken out; not everything is rebuilt\n")
    assert family.wvc("revert", "child", "--no-rebuild").startswith("child, alpha, grand were taken out already\n")


def test_objects_that_are_missing_are_named_for_each_model(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    (tmp_path / "objects").mkdir()
    (two.path / ".git/wvc/objects").rename(tmp_path / "objects/kept")

    ran = two.run("--json", "revert", "alpha")

    said = "this clone has no objects yet: only git history was cloned"
    assert (ran.code, ran.json["rebuilt"]) == (1, [])
    assert ran.json["unproved"] == [str(tmp_path / "out"), "all tasks"]
    assert ran.json["warnings"] == [
        f"{tmp_path / 'out'} still holds the task: {said}",
        f"all tasks were not rebuilt: {said}",
    ]
    assert two.run("revert", "alpha").err.endswith("hint: run `wvc revert alpha` again once that is repaired\n")
    (tmp_path / "objects/kept").rename(two.path / ".git/wvc/objects")
    again = two.json("revert", "alpha")
    assert ([line["recipe"] for line in again["rebuilt"]], again["unproved"]) == ([None, None], [])


def test_tasks_that_together_make_no_model_are_not_compared(two, models, tmp_path):
    rows = "embeddings.word_embeddings.weight"
    base = models.base()
    two.put("more", models.write(tmp_path / "more", base | {rows: torch.cat([base[rows], base[rows][:2]])}))
    alone = two.json("revert", "alpha", "-n")
    two.wvc("checkout", "--tasks", "alpha,beta", "-o", tmp_path / "out")

    planned, done = two.json("revert", "alpha", "-n"), two.run("--json", "revert", "alpha")

    (note,) = alone["notes"]
    assert note.startswith("all tasks together make no model, so that there is none to compare: task more: ")
    assert (planned["notes"], done.json["notes"], done.json["warnings"], done.err) == ([], [], [], "")
    assert (done.code, done.json["unproved"]) == (0, [])
    assert [line["output"] for line in done.json["rebuilt"]] == [str(tmp_path / "out")]
    assert two.json("revert", "more", "-n")["warnings"] == []


@pytest.mark.parametrize("other", [{"tensors": ()}, {"files": {}}], ids=["tensors", "files"])
def test_a_directory_is_replaced_by_a_proved_model_only(two, models, tmp_path, monkeypatch, other):
    two.wvc("checkout", "-o", tmp_path / "out")
    before = models.contents(tmp_path / "out")
    digests = Builder.digests
    monkeypatch.setattr(Builder, "digests", lambda *given: replace(digests(*given), **other))

    ran = two.run("--json", "revert", "alpha")

    assert (ran.code, ran.json["unproved"]) == (1, [str(tmp_path / "out")])
    assert "the rebuild differs from a build that never saw the task; keep the repo" in ran.json["warnings"][0]
    assert models.contents(tmp_path / "out") == before


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_revert_that_was_killed_before_it_unstaged_is_finished(two, templates, tmp_path, monkeypatch):
    two.wvc("checkout", "-o", tmp_path / "out")
    two.wvc("add", templates.beta, "--task", "alpha")
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta")
    monkeypatch.setattr("weightvc.repo.revert._unstaged", interrupted)
    with pytest.raises(Interrupted):
        two.api().revert("alpha", jobs=1)
    monkeypatch.undo()

    done = two.json("revert", "alpha")

    assert [line["recipe"] for line in done["rebuilt"]] == [None, None]
    assert two.json("status")["staged"] == {".wvc/recipes/prod.toml": "new"}
    assert two.json("recipe", "show", "prod")["tasks"] == ["beta"]


def test_what_history_still_holds(two, templates):
    two.put("twin", templates.alpha)
    objects = {entry["object"] for entry in two.manifest("beta")["tensors"] if "object" in entry}

    shared, own = two.json("revert", "alpha", "-n"), two.json("revert", "beta", "-n")

    assert (shared["same"], shared["kept_bytes"], own["same"]) == (["twin"], 0, [])
    assert own["kept_bytes"] >= sum(two.object_file(oid).stat().st_size for oid in objects) > 0
    says = "task twin has the same weights as alpha: models with it still hold them"
    assert (shared["warnings"], own["warnings"]) == ([says], [])
    assert f"warning: {says}\n" in two.run("revert", "alpha", "--no-rebuild").err
    assert two.json("revert", "alpha")["warnings"] == [says]
    assert f"its {own['kept_bytes'] / 1024:.1f} KiB stay in the store, and older revisions check out\n" in two.wvc(
        "revert", "beta", "-n"
    )


def test_what_history_holds_counts_every_version(two, models, tmp_path):
    first = {entry["object"] for entry in two.manifest("beta")["tensors"] if "object" in entry}
    two.put("beta", models.write(tmp_path / "later", models.tuned(models.base(), 7)))
    both = first | {entry["object"] for entry in two.manifest("beta")["tensors"] if "object" in entry}
    assert two.json("revert", "beta", "-n")["kept_bytes"] >= sum(two.object_file(oid).stat().st_size for oid in both)

    path = two.path / ".wvc/tasks/beta.json"
    whole = path.read_text()
    path.write_text("{}")
    two.git("commit", "-qam", "damaged")
    path.write_text(whole)
    two.git("commit", "-qam", "mended")
    assert two.json("revert", "beta")["tasks"] == ["beta"]


def test_what_was_staged_since_is_dropped_and_named(family, templates):
    family.wvc("revert", "alpha", "--cascade", "--no-rebuild")
    for name in ("alpha", "child"):
        family.wvc("add", templates.beta, "--task", name)
    says = "warning: the staged version of task child is dropped too\n"
    for option, words in (("-n", "would drop"), ("--no-rebuild", "dropped")):
        ran = family.run("revert", "alpha", option)
        assert ran.err == says
        assert ran.out.startswith(f"{words} the staged task alpha\nalpha, child, grand were taken out already\n")
    assert family.json("status")["staged"] == {}


def test_again_when_nothing_holds_it_any_more(two):
    two.wvc("revert", "alpha")

    assert two.wvc("revert", "alpha").startswith(
        "alpha was taken out already; no directory that is known contains it\n"
    )


def test_a_model_that_a_directory_holds_is_neither_built_again_nor_listed(two, tmp_path, monkeypatch):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta")
    two.wvc("commit", "-m", "Save it")
    two.wvc("checkout", "-o", tmp_path / "out")
    built, digests = [], Builder.digests
    monkeypatch.setattr(Builder, "digests", lambda self, progress: built.append(self) or digests(self, progress))

    planned = two.wvc("revert", "alpha", "-n").splitlines()
    lines = two.wvc("revert", "alpha").splitlines()

    assert planned[1:] == [f"would rebuild {tmp_path / 'out'}", planned[-1]]
    assert [line.partition(":")[0] for line in lines if "equal to" in line] == [f"rebuilt {tmp_path / 'out'}"]
    assert len(built) == 1  # the proof
    assert "compare" not in "".join([*planned, *lines])
