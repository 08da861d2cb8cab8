import pytest

from weightvc.repo import unstage


@pytest.fixture
def staged(two, templates):
    """A new task, a new version, a changed recipe, the removal of one, and a recipe named like a task."""
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("recipe", "save", "old", "--tasks", "beta")
    two.wvc("commit", "-m", "Recipes")
    two.wvc("add", templates.alpha, "--task", "new")
    two.wvc("add", templates.beta, "--task", "alpha")
    two.wvc("recipe", "save", "prod", "--tasks", "beta")
    two.wvc("recipe", "rm", "old")
    two.wvc("recipe", "save", "alpha", "--tasks", "beta")
    return two


def left(repo):
    return repo.json("status")["staged"]


def test_each_kind_of_change_is_taken_back_by_name(staged, refused):
    assert staged.wvc("unstage", "old") == "dropped what was staged for recipe old\n"
    assert staged.wvc("unstage", "prod", "new", "new") == (
        "dropped what was staged for recipe prod\ndropped what was staged for task new\n"
    )
    assert left(staged) == {".wvc/recipes/alpha.toml": "new", ".wvc/tasks/alpha.json": "changed"}
    assert staged.wvc("unstage", "alpha") == (
        "dropped what was staged for recipe alpha\ndropped what was staged for task alpha\n"
    )
    assert left(staged) == {}
    assert staged.json("recipe", "show", "prod")["tasks"] == ["alpha"]
    refused(staged, 3, "commit", "-m", "x", says="nothing is staged")


def test_without_a_name_everything_is_taken_back(staged):
    before = staged.everything()
    paths = sorted(left(staged))
    wanted = {"schema": "weightvc/unstage/1", "dropped": paths}

    assert staged.json("unstage", "--dry-run") == wanted
    assert staged.wvc("unstage", "-n", "new") == "would drop what was staged for task new\n"
    assert staged.everything() == before
    assert staged.json("unstage") == wanted
    assert left(staged) == {}
    assert staged.wvc("unstage") == "nothing is staged\n"
    assert staged.json("unstage")["dropped"] == []


def test_a_name_of_which_nothing_is_staged(staged, refused):
    refused(
        staged, 3, "unstage", "new", "prd",
        says="wvc: nothing is staged for 'prd'; staged are: alpha, old, prod, new\n",
        hint="did you mean prod? run `wvc status` to see what is staged\n",
    )  # fmt: skip
    staged.wvc("unstage")
    refused(
        staged, 3, "unstage", "beta", says="wvc: nothing is staged for 'beta'; staged are: none\n",
        hint="run `wvc status` to see what is staged\n",
    )  # fmt: skip


def test_what_is_staged_anew_meanwhile_stays(staged, monkeypatch):
    from weightvc.repo import stage

    seen = stage.changes

    def changes(repo):
        monkeypatch.setattr(stage, "changes", seen)
        found = seen(repo)
        stage.put(repo, ".wvc/recipes/prod.toml", b"newer")
        return found

    monkeypatch.setattr(stage, "changes", changes)
    unstage.unstage(staged.api())

    assert stage.changes(staged.api()) == {".wvc/recipes/prod.toml": b"newer"}


def test_the_library_unstages_too(staged):
    assert staged.api().unstage(["new"], dry_run=True) == unstage.Unstaged((".wvc/tasks/new.json",))
    assert staged.api().unstage(["new"]).dropped == (".wvc/tasks/new.json",)
    assert ".wvc/tasks/new.json" not in left(staged)
