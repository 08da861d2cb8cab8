"""A task that was taken out and added again: a revert finds every directory that holds any task of that name."""

import json

import pytest


def pinned(directory):
    """Return the names of the tasks that a directory's lock pins."""
    return [task["task"] for task in json.loads((directory / "wvc.lock.json").read_text())["tasks"]]


def outputs(done, key="rebuilt"):
    return [line["output"] for line in done[key] if line["output"]]


def taken_out_without_rebuild(two, templates, directories):
    for directory in directories:
        two.wvc("checkout", "-o", directory)
    two.wvc("revert", "alpha", "--no-rebuild")
    two.put("alpha", templates.alpha)


def an_older_revision(two, templates, directories):
    two.wvc("revert", "alpha")
    for directory in directories:
        two.wvc("checkout", "HEAD~1", "-o", directory)
    two.put("alpha", templates.alpha)


def with_other_weights(two, templates, directories):
    for directory in directories:
        two.wvc("checkout", "-o", directory)
    two.wvc("revert", "alpha", "--no-rebuild")
    two.put("alpha", templates.base)


def lost_by_history(two, templates, directories):
    two.put("gamma", templates.alpha)
    for directory in directories:
        two.wvc("checkout", "--tasks", "beta,gamma", "-o", directory)
    two.git("reset", "-q", "--hard", "HEAD~")
    two.wvc("revert", "alpha")
    two.put("alpha", templates.alpha)
    for directory in directories:
        lock = directory / "wvc.lock.json"
        lock.write_text(lock.read_text().replace("gamma", "alpha"))


@pytest.mark.parametrize(
    "before", [taken_out_without_rebuild, an_older_revision, with_other_weights, lost_by_history]
)  # fmt: skip
def test_a_directory_that_holds_an_earlier_task_of_the_name_is_rebuilt(two, templates, tmp_path, before):
    directories = [tmp_path / "one", two.path / "model"]
    before(two, templates, directories)
    assert [pinned(directory) for directory in directories] in ([["alpha", "beta"]] * 2, [["beta", "alpha"]] * 2)
    planned = two.json("revert", "alpha", "--dry-run")

    done = two.json("revert", "alpha")

    assert sorted(outputs(done)) == sorted(map(str, directories))
    assert outputs(planned, "would_rebuild") == outputs(done)
    assert [pinned(directory) for directory in directories] == [["beta"]] * 2
    assert all(two.json("verify", directory, "--replay")["ok"] for directory in directories)
    assert (outputs(two.json("revert", "alpha")), done["unproved"], done["warnings"]) == ([], [], [])


def test_all_of_a_name_go_when_the_last_went_without_a_rebuild(two, templates, tmp_path):
    for name in ("one", "two"):
        two.wvc("checkout", "-o", tmp_path / name)
        two.wvc("revert", "alpha", "--no-rebuild")
        two.put("alpha", templates.alpha)
    two.wvc("revert", "alpha", "--no-rebuild")

    done = two.json("revert", "alpha")

    assert outputs(done) == [str(tmp_path / name) for name in ("one", "two")]
    assert [pinned(tmp_path / name) for name in ("one", "two")] == [["beta"]] * 2


def test_what_went_along_and_lives_again_stays_in_the_models(family, models, tmp_path):
    family.wvc("revert", "alpha", "--cascade")
    family.put("child", models.write(tmp_path / "x", models.tuned(models.base(), 7)))
    family.wvc("checkout", "-o", tmp_path / "out")
    family.wvc("checkout", "HEAD~2", "--tasks", "alpha,child,beta", "-o", tmp_path / "old")

    done = family.json("revert", "alpha")

    assert outputs(done) == [str(tmp_path / "old")]
    assert (pinned(tmp_path / "out"), pinned(tmp_path / "old")) == (["beta", "child"], ["beta"])


def test_a_task_that_got_another_name_stays_in_the_models(two, templates, tmp_path):
    two.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    manifest = (two.path / ".wvc/tasks/alpha.json").read_text()
    two.git("rm", "-q", ".wvc/tasks/alpha.json")
    (two.path / ".wvc/tasks/other.json").write_text(manifest.replace('"task":"alpha"', '"task":"other"'))
    two.git("add", ".wvc")
    two.git("commit", "-qm", "Call it other")
    two.put("alpha", templates.beta)

    assert outputs(two.json("revert", "alpha")) == []
    assert pinned(tmp_path / "out") == ["alpha"]


def test_directories_with_the_weights_under_another_name_are_named(two, templates, tmp_path):
    two.put("twin", templates.alpha)
    two.wvc("checkout", "--tasks", "alpha,twin", "-o", tmp_path / "both")
    two.wvc("checkout", "--tasks", "beta,twin", "-o", tmp_path / "one")
    says = ["task twin has the same weights as alpha: models with it still hold them"]
    says += [f"{tmp_path / name} still holds those weights, as task twin" for name in ("both", "one")]
    assert two.json("revert", "alpha", "-n")["warnings"] == says

    done = two.json("revert", "alpha")

    assert (done["warnings"], outputs(done)) == (says, [str(tmp_path / "both")])
    assert (pinned(tmp_path / "both"), pinned(tmp_path / "one")) == (["twin"], ["beta", "twin"])


def test_a_copy_of_the_base_is_nobodys_weights(two, templates, tmp_path):
    two.put("none", templates.base)
    two.put("nil", templates.base)
    two.wvc("checkout", "--tasks", "alpha,nil", "-o", tmp_path / "out")

    done = two.json("revert", "none")

    assert done["warnings"] == ["task nil has the same weights as none: models with it still hold them"]
