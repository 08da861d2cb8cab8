"""Whether checked-out directories are what HEAD would give."""

import shlex

import pytest


@pytest.fixture
def look(two, tmp_path):
    """Return what status says of the one directory: state, why, remedy; the paths put short."""

    def look():
        (found,) = two.json("status")["directories"]
        return tuple(found[key].replace(str(tmp_path), "") for key in ("state", "why", "remedy"))

    return look


CURRENT = ("current", "", "")


def checkout(two, tmp_path, *options):
    two.wvc("checkout", *options, "-o", tmp_path / "out")


def test_what_a_directory_holds(two, tmp_path):
    checkout(two, tmp_path, "--tasks", "alpha,beta=0.5", "--method", "linear")

    assert two.json("status")["directories"] == [
        {"path": str(tmp_path / "out"), "recipe": ["alpha", "beta=0.5"], "method": "linear", "state": "current",
         "why": "", "remedy": "", "params": {}, "dtype": None, "rules": [], "exact": False, "lossy": [],
         "asked": {"tasks": ["alpha", "beta=0.5"], "method": "linear"}, "emptied": [],
         "work_tree": ""}
    ]  # fmt: skip


def test_the_default_recipe_follows_the_tasks(two, look, templates):
    two.wvc("checkout")
    assert look() == CURRENT

    two.put("more", templates.alpha)
    assert look() == ("behind", "more added since", "wvc checkout")
    two.wvc("checkout")
    assert look() == CURRENT


def test_all_tasks_in_a_directory_of_ones_own(two, look, templates, tmp_path):
    checkout(two, tmp_path, "--method", "task_arithmetic", "-p", "scaling=0.5", "--dtype", "F32")
    two.put("more", templates.alpha)

    again = "wvc checkout --method task_arithmetic -p scaling=0.5 --dtype F32 -o /out"
    assert look() == ("behind", "more added since", again)


def test_some_tasks_stay_some_tasks(two, look, templates, tmp_path):
    checkout(two, tmp_path, "--tasks", "beta")
    two.put("more", templates.alpha)
    assert look() == CURRENT

    two.put("beta", templates.alpha)
    assert look() == ("behind", "new version of beta", "wvc checkout --tasks beta -o /out")


def test_one_task_is_not_all_tasks_even_if_there_was_no_other(empty, templates, tmp_path):
    empty.put("alpha", templates.alpha)
    empty.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    empty.wvc("checkout")
    empty.put("beta", templates.beta)

    assert [found["why"] for found in empty.json("status")["directories"]] == ["", "beta added since"]


def test_a_named_recipe_is_followed(two, look, tmp_path):
    two.wvc("recipe", "save", "prod", "--tasks", "beta,alpha=0.5", "-p", "alpha=0.3")
    two.wvc("commit", "-m", "Save it")
    checkout(two, tmp_path, "--recipe", "prod", "--on-int-mismatch", "base")
    assert look() == CURRENT

    two.wvc("recipe", "save", "prod", "--tasks", "beta")
    assert look() == CURRENT
    two.wvc("commit", "-m", "Change it")
    again = "wvc checkout --recipe prod --on-int-mismatch base -o /out"
    assert look() == ("behind", "recipe prod changed since", again)


def test_settings_of_a_recipe_count_where_they_were_used(two, look, tmp_path):
    two.wvc("recipe", "save", "prod", "--tasks", "beta,alpha=0.5")
    two.wvc("commit", "-m", "Save it")
    checkout(two, tmp_path, "--recipe", "prod")
    two.wvc("recipe", "save", "prod", "--tasks", "beta,alpha=0.5", "--method", "linear")
    two.wvc("commit", "-m", "Change its method")

    assert look()[:2] == ("behind", "recipe prod changed since")
    checkout(two, tmp_path, "--recipe", "prod", "--method", "opcm")
    two.wvc("recipe", "save", "prod", "--tasks", "beta,alpha=0.5", "--method", "task_arithmetic")
    two.wvc("commit", "-m", "Change its method, which was not asked for")
    assert look() == CURRENT
    two.wvc("recipe", "save", "prod", "--tasks", "beta,alpha=0.5", "--dtype", "F32")
    two.wvc("commit", "-m", "Change its dtype")
    assert look()[1:] == ("recipe prod changed since", "wvc checkout --recipe prod --method opcm -o /out")


def test_the_default_method_counts(two, look):
    two.wvc("checkout")
    config = two.path / ".wvc/config.toml"
    for method in ("linear", "nowhere"):  # the second is not installed
        config.write_text(f'format = 1\n\n[merge]\nmethod = "{method}"\n\n[merge.params]\n')
        two.git("commit", "-qam", "Another method")
        assert look()[:2] == ("behind", "the default method changed since")


def test_a_removed_task_is_reverted_again(two, look, tmp_path):
    checkout(two, tmp_path)
    two.wvc("revert", "alpha", "--no-rebuild")
    state, why, remedy = look()

    assert (state, why, remedy) == ("behind", "alpha taken out since", "wvc revert alpha")
    two.wvc(*shlex.split(remedy)[1:])
    assert look() == CURRENT


def test_a_task_that_was_added_anew(two, look, templates, tmp_path):
    checkout(two, tmp_path, "--tasks", "beta,alpha=2", "--method", "linear")
    two.wvc("revert", "alpha", "--no-rebuild")
    two.put("alpha", templates.alpha)

    state, why, remedy = look()

    assert (state, why) == ("behind", "alpha not at HEAD, or added anew")
    assert remedy == "wvc checkout --tasks beta,alpha=2.0 --method linear -o /out"


def test_a_branch_that_does_not_have_the_task(two, look, tmp_path):
    checkout(two, tmp_path)
    two.git("checkout", "-q", "HEAD~1")

    assert look()[:2] == ("behind", "beta not at HEAD, or added anew")


def test_another_base(two, look, models, tmp_path):
    checkout(two, tmp_path, "--tasks", "")
    other = models.write(tmp_path / "other", models.base(7))
    two.git("checkout", "-q", "--orphan", "other")
    two.git("rm", "-qrf", ".wvc")
    two.wvc("init", two.path, "--base", other)

    assert look() == ("behind", "another base since", "wvc checkout --tasks '' -o /out")


def test_a_commit_that_is_gone_leaves_the_versions(two, look, templates, tmp_path):
    checkout(two, tmp_path, "--tasks", "alpha,beta")
    lock = tmp_path / "out/wvc.lock.json"
    lock.write_text(lock.read_text().replace(two.git("rev-parse", "HEAD"), "0" * 40))
    two.put("more", templates.alpha)
    assert look() == CURRENT

    two.put("alpha", templates.beta)
    assert look() == ("behind", "new version of alpha", "wvc checkout --tasks alpha,beta -o /out")


def test_locks_that_cannot_be_read(two, look, tmp_path):
    checkout(two, tmp_path)
    (tmp_path / "out/wvc.lock.json").unlink()

    assert look() == ("unknown", "/out: no wvc.lock.json here", "")
