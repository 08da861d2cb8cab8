"""The history of tasks."""

import subprocess

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
    marks = [line[36:] for line in two.wvc("log", "--limit", "3").splitlines()]
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


@pytest.fixture
def forked(two, templates):
    """Two branches with a version of beta each: `main v3` and, on the branch `side`, `side v2`."""
    two.git("switch", "-q", "-c", "side")
    two.json("add", templates.alpha, "--task", "beta")
    two.wvc("commit", "-m", "side v2")
    two.git("switch", "-q", "main")
    two.json("add", templates.base, "--task", "beta")
    two.wvc("commit", "-m", "main v3")
    return two


def merge(sandbox, choice, branch="side"):
    """Merge a branch that is in conflict about beta, and choose a side."""
    command = ["git", "-C", sandbox.path, "merge", "-q", "--no-edit", branch]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    sandbox.git("checkout", f"--{choice}", ".wvc/tasks/beta.json")
    sandbox.git("add", ".wvc/tasks/beta.json")
    sandbox.git("-c", "core.editor=true", "commit", "-q", "--no-edit")


@pytest.mark.parametrize(("choice", "changed"), [("theirs", ("beta",)), ("ours", ())])
def test_a_merge_that_chose_a_side_is_there_with_what_it_dropped(forked, choice, changed):
    merge(forked, choice)

    for task in (None, "beta"):
        lines = list(forked.api().log(task))
        assert [line.subject for line in lines][:4] == ["Merge branch 'side'", "main v3", "side v2", "Add beta"]
        assert (lines[0].changed, len(lines[0].parents)) == (changed, 2)
    assert [line.subject for line in forked.api().log("alpha")] == ["Add alpha"]
    for limit in (1, 2, 3):
        assert [line.subject for line in forked.api().log("beta", limit=limit)] == [
            line.subject for line in forked.api().log("beta")
        ][:limit]


def test_a_merge_that_has_what_no_side_had_is_there(forked):
    merge(forked, "ours")
    forked.git("rm", "-q", ".wvc/tasks/alpha.json")
    forked.git("commit", "-q", "--amend", "--no-edit")

    for task in (None, "alpha"):
        newest = next(iter(forked.api().log(task)))
        assert (newest.removed, len(newest.parents)) == (("alpha",), 2)


def test_a_merge_that_only_brings_sides_together_is_not_there(two, templates):
    for count in range(3):
        two.git("switch", "-q", "-c", f"side{count}", "HEAD~1")
        two.put(f"gamma{count}", templates.alpha)
        two.git("switch", "-q", "main")
        two.git("merge", "-q", "--no-edit", f"side{count}")

    lines = list(two.api().log())

    assert [line.added for line in lines] == [("gamma2",), ("gamma1",), ("gamma0",), ("beta",), ("alpha",), ()]
    assert [line.added for line in two.api().log(limit=4)] == [line.added for line in lines][:4]
    assert [line.added for line in two.api().log("gamma1")] == [("gamma1",)]
    assert "\nadded: gamma2\n" in two.wvc("show", "HEAD")


def test_a_merge_that_threw_one_side_away_is_there(two):
    """As `git merge -s ours` does, here with the removal of a task."""
    two.git("switch", "-qc", "side")
    two.wvc("revert", "alpha")
    two.git("switch", "-q", "main")
    two.git("merge", "-q", "--no-ff", "-s", "ours", "side", "-m", "Keep it")

    for names in ((), ("alpha",)):
        said = two.wvc("log", *names).splitlines()
        assert "Keep it" in said[0]
        assert "take out alpha" in said[1]


def test_a_merge_of_histories_that_have_nothing_in_common(two, templates, sandbox, tmp_path):
    other = sandbox(tmp_path / "other")
    other.path.mkdir()
    other.wvc("init", "--base", templates.base)
    other.put("beta", templates.base)
    two.git("fetch", "-q", str(other.path), "main:side")
    command = ["git", "-C", two.path, "merge", "-q", "--no-edit", "--allow-unrelated-histories", "-X", "theirs", "side"]
    subprocess.run(command, check=True, capture_output=True)

    assert [line.subject for line in two.api().log("beta")] == ["Merge branch 'side'", "Add beta", "Add beta"]


def test_a_time_beyond_all_calendars(two, monkeypatch):
    monkeypatch.setenv("GIT_AUTHOR_DATE", "@999999999999999 +0000")
    two.git("commit", "-q", "--allow-empty", "-m", "Late")

    assert "9999-12-31" in two.wvc("show", "HEAD")


def test_a_time_of_thousands_of_digits(two):
    commit = two.git("cat-file", "commit", "HEAD")
    author = next(line for line in commit.splitlines() if line.startswith("author "))
    words = author.rsplit(" ", 2)
    late = commit.replace(author, f"{words[0]} {'9' * 5000} +0000") + "\n"
    file = two.path / "late"
    file.write_text(late)
    made = two.git("hash-object", "-t", "commit", "-w", "--literally", file)
    two.git("update-ref", "HEAD", made)
    assert made[:12] in two.wvc("log")
    assert "tasks: alpha, beta" in two.wvc("show", "HEAD")


def test_a_criss_cross_merge_that_keeps_what_one_side_removed_is_there(forked):
    """Both sides have merged the other once, so that they come from two commits, and one of these lacks the change."""
    forked.git("switch", "-qc", "other", "main")
    forked.git("commit", "-q", "--allow-empty", "-m", "Empty")
    other = forked.git("rev-parse", "HEAD")
    forked.git("switch", "-q", "main")
    forked.git("commit", "-q", "--allow-empty", "-m", "Empty too")
    main = forked.git("rev-parse", "HEAD")
    forked.git("merge", "-q", "-m", "M1", other)
    forked.git("switch", "-q", "other")
    forked.git("merge", "-q", "-m", "M2", main)
    forked.git("rm", "-q", ".wvc/tasks/alpha.json")
    forked.git("commit", "-qm", "Remove alpha")
    forked.git("switch", "-q", "main")
    forked.git("commit", "-q", "--allow-empty", "-m", "More")
    forked.git("merge", "-q", "--no-commit", "other")
    forked.git("checkout", "-q", "HEAD", "--", ".wvc/tasks/alpha.json")
    forked.git("commit", "-qm", "Keep alpha")
    assert "Keep alpha" in forked.wvc("log", "alpha")
