"""The history of tasks."""

import pytest

from weightvc.repo import log
from weightvc.util.errors import NotFound


def test_each_commit_says_what_it_did(two, templates):
    two.put("alpha", templates.beta)
    two.wvc("revert", "beta", "--no-rebuild", "-m", "Out with beta")
    (two.path / "x").write_text("x")
    two.git("add", "x")
    two.git("commit", "-qm", "not ours")

    lines = list(two.api().log())

    assert [(line.subject, line.added, line.changed, line.removed) for line in lines] == [
        ("Out with beta", (), (), ("beta",)),
        ("Add alpha", (), ("alpha",), ()),
        ("Add beta", ("beta",), (), ()),
        ("Add alpha", ("alpha",), (), ()),
        ("wvc init --base base", (), (), ()),
    ]
    assert lines[0].author == "Ada <ada@example.com>"
    assert lines[0].parents == (lines[1].commit,)
    assert lines[0].commit == two.git("rev-parse", "HEAD~1")
    assert lines[0].time == two.git("log", "-1", "--format=%aI", "HEAD~1").replace("Z", "+00:00")


def test_recipes(two):
    two.wvc("recipe", "save", "one", "--tasks", "alpha")
    two.wvc("recipe", "save", "two", "--tasks", "beta")
    two.wvc("commit", "-m", "New")
    two.wvc("recipe", "rm", "one")
    two.wvc("recipe", "save", "two", "--tasks", "alpha,beta")
    two.wvc("commit", "-m", "Other")
    two.wvc("revert", "alpha", "--no-rebuild", "-m", "Out")

    lines = list(two.api().log(limit=4))

    assert [(line.subject, line.recipes) for line in lines] == [
        ("Out", {"two": "changed"}),
        ("Other", {"one": "removed", "two": "changed"}),
        ("New", {"one": "new", "two": "new"}),
        ("Add beta", {}),
    ]
    marks = [line[35:] for line in two.wvc("log", "--limit", "3").splitlines()]
    assert marks == [
        "Out  -alpha ~two (recipe)",
        "Other  -one (recipe) ~two (recipe)",
        "New  +one (recipe) +two (recipe)",
    ]
    assert "\n    Other\nrecipes changed: two\nrecipes removed: one\ntasks: " in two.wvc("show", "HEAD~1")


def test_one_task(two, templates):
    two.put("alpha", templates.beta)
    two.wvc("revert", "alpha", "--no-rebuild")

    assert [line.subject for line in two.api().log("alpha")] == [
        "wvc revert: take out alpha",
        "Add alpha",
        "Add alpha",
    ]
    assert [line.subject for line in two.api().log("alpha", limit=1)] == ["wvc revert: take out alpha"]
    assert [line.subject for line in two.api().log("alpha", rev="HEAD~2")] == ["Add alpha"]


def test_a_task_that_never_was(two, refused):
    refused(two, 3, "log", "nobody", says="no task 'nobody' at", hint="run `wvc status` to see the tasks")
    refused(two, 3, "log", "../x", says="'../x' cannot name a task")
    with pytest.raises(NotFound):
        two.api().log("nobody")


def test_lineage(two, templates):
    two.put("child", templates.alpha, "--derived-from", "beta", "--derived-from", "alpha")

    assert log.lineage(two.api()) == {"alpha": (), "beta": (), "child": ("beta", "alpha")}


def test_a_merge_commit_compares_with_its_first_parent(two, templates):
    two.git("checkout", "-q", "-b", "side", "HEAD~1")
    two.put("gamma", templates.alpha)
    two.git("checkout", "-q", "-")
    two.git("merge", "-q", "--no-edit", "side")

    newest = next(iter(two.api().log()))

    assert (newest.added, len(newest.parents)) == (("gamma",), 2)
    assert [task["task"] for task in two.json("status")["tasks"]] == ["alpha", "beta", "gamma"]


def test_a_time_beyond_all_calendars(two, monkeypatch):
    monkeypatch.setenv("GIT_AUTHOR_DATE", "@999999999999999 +0000")
    two.git("commit", "-q", "--allow-empty", "-m", "Late")

    assert "9999-12-31" in two.wvc("show", "HEAD")
