"""What a removal rebuilds, and what it says when it cannot: by then the removal is committed, and it stands."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from weightvc.repo import checkouts, resolve


def where(line):
    """Return the name of a rebuilt directory, or of a recipe; ``None`` for all tasks."""
    return Path(line.output).name if line.output else line.recipe


def test_a_directory_is_rebuilt_from_the_versions_that_it_was_made_of(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai", "chess"))
    repo.checkout(output=lab.out / "old", jobs=1)
    lab.take(repo, *adding("amber=dance"))
    repo.checkout(output=lab.out / "new", jobs=1)
    never = [lab.digest(repo, tasks=["amber", "chess"], rev=rev) for rev in ("HEAD~", "HEAD")]
    assert never[0] != never[1]

    rebuilt = repo.revert("bonsai", jobs=1).rebuilt
    assert [(where(line), line.after) for line in rebuilt] == [
        ("old", never[0]),
        ("new", never[1]),
        (None, never[1]),
    ]
    assert all(repo.verify(lab.out / name, replay=True, jobs=1).ok for name in ("old", "new"))


def test_a_directory_with_tasks_that_head_lacks_is_rebuilt_from_its_own_commit(lab, adding):
    steps = [*adding("amber", "bonsai"), ["git", "branch", "main2"], *adding("chess")]
    repo = lab.repo(*steps)
    repo.checkout(output=lab.out / "wide", jobs=1)
    never = lab.digest(repo, tasks=["amber", "chess"])
    lab.git(repo, "switch", "-q", "main2")
    reverted = repo.revert("bonsai", jobs=1)
    assert [(where(line), line.after) for line in reverted.rebuilt] == [
        ("wide", never),
        (None, repo.show("amber").version),
    ]
    assert reverted.warnings == ()


def test_a_directory_whose_versions_history_lost_is_named_and_left(lab, adding):
    repo = lab.repo(*adding("bonsai"), *adding("amber"))
    out = lab.out / "lost"
    repo.checkout(output=out, jobs=1)
    before = lab.contents(out)
    lab.git(repo, "reset", "-q", "--hard", "HEAD~")
    lab.git(repo, "reflog", "expire", "--expire=now", "--all")
    lab.git(repo, "gc", "-q", "--prune=now")
    reverted = repo.revert("bonsai", jobs=1)
    assert [where(line) for line in reverted.rebuilt] == [None]
    (warning,) = reverted.warnings
    assert warning.startswith(f"{out} still holds the task: this repository does not have the versions")
    assert "(amber)" in warning
    assert lab.contents(out) == before


def test_a_directory_with_foreign_files_is_named_and_left(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai", "chess"))
    for name in ("mine", "theirs"):
        repo.checkout(output=lab.out / name, jobs=1)
    (lab.out / "theirs" / "notes.txt").write_text("keep me\n")
    reverted = repo.revert("bonsai", jobs=1)
    assert [where(line) for line in reverted.rebuilt] == ["mine", None]
    (warning,) = reverted.warnings
    assert warning.startswith(f"{lab.out / 'theirs'} still holds the task: ")
    assert "notes.txt" in warning
    assert (lab.out / "theirs" / "notes.txt").read_text() == "keep me\n"


def test_a_directory_that_is_gone_or_no_longer_a_checkout_is_named(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai"))
    for name in ("gone", "broken"):
        repo.checkout(output=lab.out / name, jobs=1)
    shutil.rmtree(lab.out / "gone")
    (lab.out / "broken" / "wvc.lock.json").write_text("{}\n")
    reverted = repo.revert("bonsai", jobs=1)
    assert [where(line) for line in reverted.rebuilt] == [None]
    assert not (lab.out / "gone").exists()
    damaged, gone = reverted.warnings
    assert damaged.startswith(f"{lab.out / 'broken'} may still hold the task: ")
    assert gone == f"not found: {lab.out / 'gone'}; a model that was moved from there may still hold the task"
    assert reverted.unproved == (str(lab.out / "broken"),)
    assert [path.name for path in checkouts.recorded(repo)] == ["broken"]
    assert len(repo.revert("bonsai", jobs=1).warnings) == 1


def test_a_directory_on_a_disk_that_is_not_mounted_is_named_until_it_is_back(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai"))
    repo.checkout(output=lab.out / "disk" / "model", jobs=1)
    (lab.out / "disk").rename(lab.out / "unmounted")
    says = f"not found: {lab.out / 'disk/model'}; a model that was moved from there may still hold the task"
    for _ in range(2):
        assert repo.revert("bonsai", jobs=1).warnings == (says,)
    (lab.out / "unmounted").rename(lab.out / "disk")
    again = repo.revert("bonsai", jobs=1)
    assert again.warnings == ()
    assert again.rebuilt[0].output == str(lab.out / "disk/model")


def test_a_recipe_that_makes_no_model_any_more_is_named_and_the_rest_rebuilt(lab, adding):
    request = {"tasks": ["amber", "bonsai", "chess=-1"], "method": "linear"}
    repo = lab.repo(*adding("amber", "bonsai", "chess"), ["save", "prod", request], ["commit"])
    repo.checkout(recipe="prod", output=lab.out / "prod", jobs=1)
    reverted = repo.revert("bonsai", jobs=1)
    said = "linear: the coefficients 1.0, -1.0 sum to 0.0, which no average can have"
    assert reverted.warnings == (
        f"{lab.out / 'prod'} still holds the task: {said}",
        f"recipe prod was not rebuilt: {said}",
    )
    assert [where(line) for line in reverted.rebuilt] == [None]
    assert repo.recipes()[0].tasks == ("amber", "chess=-1.0")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (ZeroDivisionError("oops"), "this is a bug in wvc: ZeroDivisionError('oops')"),
    ],
)
def test_whatever_stops_one_rebuild_stops_no_other(lab, adding, monkeypatch, error, says):
    request = {"tasks": ["amber", "bonsai"], "method": "linear"}
    repo = lab.repo(*adding("amber", "bonsai"), ["save", "prod", request], ["commit"])

    def pin(repo, state, recipe, pin=resolve.pin):
        if recipe.method == "linear":
            raise error
        return pin(repo, state, recipe)

    monkeypatch.setattr(resolve, "pin", pin)
    reverted = repo.revert("bonsai", jobs=1)
    assert reverted.warnings == (f"recipe prod was not rebuilt: {says}",)
    assert reverted.unproved == ("prod",)
    assert [line.recipe for line in reverted.rebuilt] == [None]


def test_a_recipe_whose_coefficients_overflow_is_named_and_the_rest_rebuilt(lab, adding):
    request = {"tasks": ["amber=1e308", "bonsai=-1e308", "chess=1e308"], "method": "linear"}
    repo = lab.repo(*adding("amber", "bonsai", "chess"), ["save", "prod", request], ["commit"])
    reverted = repo.revert("bonsai", jobs=1)
    (warning,) = reverted.warnings
    assert warning == (
        "recipe prod was not rebuilt: linear: the sum of the coefficients 1e+308, 1e+308 is beyond double precision"
    )
    assert [line.recipe for line in reverted.rebuilt] == [None]


def test_a_recipe_that_a_merge_left_without_a_task_is_named_and_the_rest_rebuilt(lab, adding):
    steps = [*adding("amber", "bonsai", "chess"), ["git", "branch", "side"], ["revert", "chess"]]
    steps += [["git", "switch", "-q", "side"], ["save", "prod", {"tasks": ["chess", "bonsai"]}], ["commit"]]
    repo = lab.repo(*steps, ["git", "merge", "-q", "--no-edit", "main"])
    reverted = repo.revert("bonsai", jobs=1)
    assert [where(line) for line in reverted.rebuilt] == [None]
    (warning,) = reverted.warnings
    assert warning.startswith("recipe prod was not rebuilt: no task 'chess' at ")


def test_tasks_that_disagree_on_integers_do_not_keep_another_from_going(lab, adding, tmp_path):
    other = load_file(lab.models / "bonsai" / "model.safetensors")
    save_file({**other, "steps": other["steps"] + 1}, tmp_path / "other.safetensors")
    repo = lab.repo(*adding("amber", "bonsai"))
    repo.add(tmp_path / "other.safetensors", "other", jobs=1)
    repo.commit("disagrees with bonsai")
    reverted = repo.revert("amber", jobs=1)
    assert (reverted.rebuilt, reverted.warnings) == ((), ())
    (note,) = reverted.notes
    assert "together make no model, so that there is none to compare: tensor steps (I64) was changed in" in note
    assert lab.order(repo) == ["bonsai", "other"]


def test_a_removal_without_rebuild_touches_no_directory(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai"))
    repo.checkout(output=lab.out / "kept", jobs=1)
    before = lab.contents(lab.out)
    reverted = repo.revert("bonsai", rebuild=False)
    assert (reverted.rebuilt, reverted.warnings) == ((), ())
    assert lab.contents(lab.out) == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_scratch_is_left(jobs, lab, adding):
    repo = lab.repo(*adding("amber", "bonsai"))
    repo.checkout(output=lab.out / "one", jobs=jobs)
    repo.revert("amber", jobs=jobs)
    assert [*repo.tmp.iterdir()] == []
    assert [path.name for path in lab.out.iterdir()] == ["one"]
