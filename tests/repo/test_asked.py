"""What was asked for in a directory: how it is kept, compared, and left by a removal."""

import json
import shlex

import pytest


@pytest.fixture
def look(two, tmp_path):
    """Return what status says of the directory `out`: state, why, remedy; the paths put short."""

    def look(name="out"):
        found = {line["path"]: line for line in two.json("status")["directories"]}[str(tmp_path / name)]
        return tuple(found[key].replace(str(tmp_path), "") for key in ("state", "why", "remedy"))

    return look


CURRENT = ("current", "", "")


def lines(two):
    return json.loads((two.path / ".git/wvc/outputs").read_text())


def save(two, *options, name="prod"):
    two.wvc("recipe", "save", name, *options)
    two.wvc("commit", "-m", "Save it")


def test_what_is_kept(two, tmp_path, monkeypatch):
    save(two, "--tasks", "alpha,beta")
    (tmp_path / "mine.toml").write_bytes((two.path / ".wvc/recipes/prod.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    commit, out = two.git("rev-parse", "HEAD~1"), str(tmp_path / "out")
    asked = {
        (): {},
        ("--tasks", "beta=0.50,alpha"): {"tasks": ["beta=0.5", "alpha"]},
        ("--tasks", ""): {"tasks": []},
        ("--recipe", "prod", "-p", "alpha=0.3"): {"recipe": "prod", "params": {"alpha": "0.3"}},
        ("--recipe", "../mine.toml"): {"recipe": str(two.path / "../mine.toml")},
        ("--method", "linear", "--dtype", "f32", "--on-int-mismatch", "base"): {
            "method": "linear", "dtype": "F32", "on_int_mismatch": "base"},
        ("HEAD~1",): {"rev": commit},
        ("main", "--tasks", "beta"): {"rev": "main", "tasks": ["beta"]},
    }  # fmt: skip
    for options, kept in asked.items():
        two.wvc("checkout", *options, "-o", out)
        assert lines(two) == [[out, str(two.path / ".git"), kept]]
        (found,) = two.json("status")["directories"]
        assert (found["asked"], found["state"]) == (kept, "current")


def test_all_tasks_with_a_recipe_of_the_same_tasks(two, look, templates, tmp_path):
    save(two, "--tasks", "alpha,beta")
    two.wvc("checkout", "-o", tmp_path / "out")
    two.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "named")
    two.wvc("checkout", "--tasks", "alpha,beta", "-o", tmp_path / "own")
    two.put("more", templates.alpha)

    assert look() == ("behind", "more added since", "wvc checkout -o /out")
    assert look("named") == look("own") == CURRENT


@pytest.mark.parametrize(
    "change", [["--tasks", "alpha"], ["--tasks", "alpha,beta=0.5"], ["--tasks", "beta,alpha"],
    ["--tasks", "alpha,beta", "-p", "alpha=0.3"], ["--tasks", "alpha,beta", "--method", "linear"],
    ["--tasks", "alpha,beta", "--dtype", "F32"]]
)  # fmt: skip
def test_a_recipe_that_changed_concerns_its_directories_only(two, look, tmp_path, change):
    save(two, "--tasks", "alpha,beta")
    two.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "out")
    two.wvc("checkout", "--tasks", "alpha,beta", "-o", tmp_path / "own")
    two.wvc("checkout", "-o", tmp_path / "all")
    assert look() == CURRENT

    save(two, *change)

    assert look() == ("behind", "recipe prod changed since", "wvc checkout --recipe prod -o /out")
    assert look("own") == look("all") == CURRENT


def test_a_recipe_that_went(two, look, tmp_path):
    save(two, "--tasks", "alpha,beta")
    two.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "out")
    two.wvc("recipe", "rm", "prod")
    two.wvc("commit", "-m", "Gone")

    assert look() == ("behind", "recipe prod is gone", "")


def test_a_recipe_that_was_only_staged(two, look, tmp_path):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta")
    two.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "out")
    assert look() == CURRENT

    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    assert look()[1] == "recipe prod changed since"
    two.wvc("unstage")
    assert look()[1:] == ("recipe prod is gone", "")


def test_a_recipe_file(two, look, tmp_path):
    save(two, "--tasks", "alpha,beta")
    file = tmp_path / "mine.toml"
    file.write_bytes((two.path / ".wvc/recipes/prod.toml").read_bytes())
    two.wvc("checkout", "--recipe", file, "-o", tmp_path / "out")
    assert look() == CURRENT

    file.write_text(file.read_text().replace("beta", "beta=2"))
    assert look()[1:] == (
        f"recipe {file} changed since".replace(str(tmp_path), ""),
        "wvc checkout --recipe /mine.toml -o /out",
    )
    file.write_text("{")
    assert look()[0] == "behind"
    file.unlink()
    assert look()[1:] == ("recipe /mine.toml is gone", "")


def test_a_task_alone_is_the_same_by_any_neutral_method(empty, templates):
    empty.put("alpha", templates.alpha)
    empty.wvc("checkout")
    config = empty.path / ".wvc/config.toml"
    for method, state in (("linear", "current"), ('task_arithmetic"\n[merge.params]\nscaling = 0.5\nx = "', "behind")):
        config.write_text(f'format = 1\n\n[merge]\nmethod = "{method}"\n')
        empty.git("commit", "-qam", "Another method")
        assert empty.json("status")["directories"][0]["state"] == state


def test_an_older_revision_is_what_was_asked_for(two, look, templates, tmp_path):
    commit = two.git("rev-parse", "HEAD~1")
    two.wvc("checkout", "HEAD~1", "-o", tmp_path / "out")
    two.put("alpha", templates.beta)
    assert look() == CURRENT
    assert f"alpha bit for bit, up to date with {commit[:12]}\n" in two.wvc("status")

    two.wvc("revert", "alpha", "--no-rebuild")
    assert look() == ("behind", "alpha taken out since", "wvc revert alpha")
    two.wvc("revert", "alpha")
    removal = two.git("rev-parse", "HEAD")[:12]
    assert look() == ("current", f"emptied when alpha was taken out in {removal}", "")
    assert lines(two)[0][2]["tasks"] == ["alpha"]
    assert f"/out: the base bit for bit, emptied when alpha was taken out in {removal}\n" in two.wvc("status")
    two.git("revert", "--no-edit", "HEAD")
    again = f"wvc checkout {commit[:12]} --tasks alpha"
    state, why, remedy = look()
    assert (state, why) == ("behind", "alpha back since")
    assert remedy.startswith(again)
    two.wvc(*shlex.split(remedy)[1:-1], tmp_path / "out")
    assert look() == CURRENT


def test_a_directory_that_a_removal_emptied(two, look, templates, tmp_path):
    two.wvc("checkout", "--tasks", "alpha=0.5,beta", "-o", tmp_path / "out")
    two.wvc("checkout", "--tasks", "", "-o", tmp_path / "base")
    two.wvc("revert", "alpha")
    assert look() == CURRENT
    two.wvc("revert", "beta")

    removal = two.git("rev-parse", "HEAD")[:12]
    assert look() == ("current", f"emptied when beta was taken out in {removal}", "")
    assert look("base") == CURRENT
    assert {tuple(line["emptied"]) for line in two.json("status")["directories"]} == {(), ("beta",)}
    assert two.json("revert", "beta")["rebuilt"][0]["output"] is None
    two.put("more", templates.alpha)
    assert look()[0] == "current"
    two.put("beta", templates.beta)
    assert look() == ("behind", "beta back since", "wvc checkout --tasks beta -o /out")


def test_what_emptied_a_directory_may_be_unknown(two, look, tmp_path):
    two.wvc("checkout", "--tasks", "alpha,beta", "-o", tmp_path / "out")
    two.wvc("revert", "alpha", "--no-rebuild")
    two.wvc("revert", "beta")
    two.wvc("revert", "alpha")
    assert look()[:2] == ("current", f"emptied when alpha was taken out in {two.git('rev-parse', 'HEAD~1')[:12]}")
    two.git("rm", "-qr", ".wvc/removals")
    two.git("commit", "-qm", "Forget it")

    assert look() == ("current", "emptied when alpha was taken out", "")


def test_a_branch_is_followed(two, look, templates, tmp_path):
    two.git("switch", "-q", "-c", "side")
    two.wvc("checkout", "main", "-o", tmp_path / "out")
    two.put("more", templates.alpha)
    assert look() == CURRENT

    two.git("switch", "-q", "main")
    two.put("mine", templates.alpha)
    two.git("switch", "-q", "side")
    assert look() == ("behind", "mine added since", "wvc checkout main -o /out")
    two.git("branch", "-qD", "main")
    assert look() == ("behind", "no revision 'main'", "")


def test_what_a_removal_leaves_of_it(two, look, templates, tmp_path):
    two.put("more", templates.base)
    save(two, "--tasks", "alpha,beta,more", "-p", "alpha=0.3")
    (tmp_path / "mine.toml").write_bytes((two.path / ".wvc/recipes/prod.toml").read_bytes())
    asked = {
        "all": (), "named": ("--recipe", "prod"), "own": ("--tasks", "beta=0.5,alpha", "--method", "linear"),
        "file": ("--recipe", tmp_path / "mine.toml"), "old": ("HEAD~1", "--dtype", "F32"),
    }  # fmt: skip
    for name, options in asked.items():
        two.wvc("checkout", *options, "-o", tmp_path / name)
    commit = two.git("rev-parse", "HEAD~1")

    done = two.json("revert", "alpha")

    assert [line["recipe"] for line in done["rebuilt"]] == [None, "prod", None, None, None, "prod", None]
    kept = {line[0].rpartition("/")[2]: line[2] for line in lines(two)}
    params = two.json("recipe", "show", "prod")["params"]
    assert kept["all"] == {}
    assert kept["named"] == {"recipe": "prod"}
    assert kept["own"] == {"tasks": ["beta=0.5"], "method": "linear"}
    assert kept["file"] == {
        "tasks": ["beta", "more"], "method": "opcm-s", "params": params, "on_int_mismatch": "error"
    }  # fmt: skip
    assert (kept["old"]["rev"], kept["old"]["tasks"], kept["old"]["dtype"]) == (commit, ["beta", "more"], "F32")
    for name in asked:
        assert look(name) == CURRENT
    two.put("new", templates.alpha)
    assert [look(name)[0] for name in asked] == ["behind", "current", "current", "current", "current"]


@pytest.mark.parametrize(
    "damaged", [7, [], {"x": 1}, {"tasks": 1}, {"tasks": [1]}, {"tasks": ["a", "a"]}, {"rev": 1}, {"params": {"a": []}},
    {"params": 1}, {"recipe": "prod", "tasks": []}, {"on_int_mismatch": "x"}, {"method": {}}]
)  # fmt: skip
def test_a_damaged_request_reads_as_none(two, damaged):
    two.wvc("checkout")
    (two.path / ".git/wvc/outputs").write_text(json.dumps([["model", "", damaged]]))

    (found,) = two.json("status")["directories"]

    assert (found["asked"], found["state"]) == (None, "current")


def test_a_line_of_an_older_wvc_is_guessed_and_completed_by_the_next_checkout(two, look, templates, tmp_path):
    two.wvc("checkout", "--tasks", "beta,alpha=0.5", "--method", "linear", "-o", tmp_path / "out")
    (line,) = lines(two)
    (two.path / ".git/wvc/outputs").write_text(json.dumps([line[:2]]))
    assert look() == CURRENT

    two.put("beta", templates.alpha)
    again = "wvc checkout --tasks beta,alpha=0.5 --method linear -o /out"
    assert look() == ("behind", "new version of beta", again)
    two.wvc("revert", "alpha")
    assert lines(two) == [line[:2]]
    two.wvc("checkout", "-o", tmp_path / "out")
    assert lines(two) == [[*line[:2], {}]]


def test_a_checkout_that_failed_leaves_what_was_asked_for_before(two, tmp_path, monkeypatch):
    from weightvc.repo.build import Builder

    two.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    before, seen = lines(two), []

    def failing(*_):
        seen.extend(lines(two))
        raise KeyboardInterrupt

    monkeypatch.setattr(Builder, "write", failing)
    assert two.run("checkout", "-o", tmp_path / "out").code == 130
    assert (seen, lines(two)) == ([before[0][:2]], before)


def test_a_directory_that_is_left_is_asked_for_as_before(two, tmp_path):
    two.wvc("checkout", "--tasks", "alpha,beta=0.5", "--method", "linear", "-o", tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")

    again = f"`wvc checkout --tasks beta=0.5 --method linear -o {tmp_path / 'out'} --force`"
    assert f"or replace it with {again}\n" in two.run("revert", "alpha").err
