"""Named recipes and how requests resolve."""

from dataclasses import replace

import pytest

from weightvc.objects.recipe import Recipe, parse_tasks


def recipe_file(repo, name):
    return (repo.path / f".wvc/recipes/{name}.toml").read_text()


def test_a_recipe_is_staged_committed_and_checked_out(two, models, tmp_path):
    saved = two.json("recipe", "save", "prod", "--tasks", "alpha,beta=0.5", "--method", "task_arithmetic")
    assert (saved["name"], saved["tasks"], saved["staged"]) == ("prod", ["alpha", "beta=0.5"], True)
    two.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "staged")
    two.json("commit", "-m", "Save it")

    two.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "out")
    two.wvc("checkout", "--tasks", "alpha,beta=0.5", "--method", "task_arithmetic", "-o", tmp_path / "wanted")

    wanted = models.contents(tmp_path / "wanted")
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "staged") == wanted
    assert recipe_file(two, "prod") == (
        'schema = "weightvc/recipe/1"\ntasks = [\n    "alpha",\n    "beta=0.5",\n]\nmethod = "task_arithmetic"\n\n'
        "[params]\nscaling = 1.0\n"
    )


def test_list_show_and_rm(two):
    assert two.wvc("recipe", "list") == "none\n"
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")
    two.wvc("recipe", "save", "beta-only", "--tasks", "beta", "--method", "linear")

    assert two.wvc("recipe", "list") == "beta-only  linear  beta   staged\nprod       opcm-s  alpha\n"
    shown = two.json("recipe", "show", "beta-only")
    assert shown == two.json("recipe", "list")["recipes"][0] | {"schema": "weightvc/recipe-show/1"}
    assert shown["digest"] == Recipe(parse_tasks(["beta"]), "linear").digest
    assert two.wvc("recipe", "show", "beta-only").splitlines()[0] == "recipe  beta-only (staged)"

    assert two.wvc("recipe", "rm", "prod") == "staged the removal of recipe prod\n"
    assert [r["name"] for r in two.json("recipe", "list")["recipes"]] == ["beta-only"]
    said = "dropped the staged recipe beta-only, which was never committed\n"
    assert two.wvc("recipe", "rm", "beta-only") == said
    assert two.wvc("recipe", "list") == "none\n"
    assert two.json("commit", "-m", "Remove it")["recipes"] == ["prod"]
    assert not (two.path / ".wvc/recipes/prod.toml").exists()


def test_a_removed_recipe_can_be_saved_again_before_the_commit(two):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")
    two.wvc("recipe", "rm", "prod")
    two.wvc("recipe", "save", "prod", "--tasks", "beta")

    assert two.json("recipe", "show", "prod")["tasks"] == ["beta"]
    two.wvc("commit", "-m", "Change it")
    assert '"beta"' in recipe_file(two, "prod")


def test_a_recipe_that_shadows_a_committed_one_is_dropped_with_rm(two):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")
    two.wvc("recipe", "save", "prod", "--tasks", "beta")

    assert two.json("recipe", "rm", "prod")["tasks"] == ["beta"]
    assert two.json("status")["staged"] == {".wvc/recipes/prod.toml": "removed"}


def test_dry_runs_stage_nothing(two):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    before = two.everything()

    assert two.wvc("recipe", "save", "x", "--tasks", "alpha", "-n") == "would save recipe x: alpha by opcm-s\n"
    assert two.wvc("recipe", "rm", "prod", "--dry-run") == (
        "would drop the staged recipe prod, which was never committed\n"
    )
    assert two.everything() == before


def test_the_default_recipe_can_be_saved_and_so_can_the_base(two):
    assert two.wvc("recipe", "save", "all") == "staged recipe all: alpha + beta by opcm-s\n"
    assert two.wvc("recipe", "save", "none", "--tasks", "") == "staged recipe none: no tasks: the base\n"


def test_tasks_may_be_given_in_several_options(two, refused):
    def planned(*options):
        return two.json("checkout", *options, "-n")["recipe"]

    assert (
        planned("--tasks", "beta", "--tasks", "alpha=0.5")
        == ["beta", "alpha=0.5"]
        == planned("--tasks", "beta,alpha=0.5")
    )
    said = two.wvc("recipe", "save", "x", "--tasks", "beta", "--tasks", "alpha", "--method", "linear")
    assert said == "staged recipe x: beta + alpha by linear\n"
    refused(two, 2, "checkout", "--tasks", "beta", "--tasks", "beta=0.5", says="named twice: beta")


def test_a_recipe_file_by_hand(two, models, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'schema="weightvc/recipe/1"\ntasks=["beta=2"]  # by hand\nmethod="linear"\ndtype="F32"\n'
    )

    done = two.json("checkout", "--recipe", tmp_path / "mine.toml", "-o", tmp_path / "out")

    assert (done["recipe"], done["method"], done["exact"]) == (["beta=2.0"], "linear", False)
    assert str(models.read(tmp_path / "out")["pooler.weight"].dtype) == "torch.float32"


def test_options_override_a_recipe(two):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta", "-p", "alpha=0.3", "--dtype", "F32")

    kept = two.json("checkout", "--recipe", "prod", "-p", "other=", "-n")
    changed = two.json("checkout", "--recipe", "prod", "--method", "task_arithmetic", "-n")

    assert (kept["params"]["alpha"], kept["params"]["other"]) == (0.3, "")
    assert (changed["method"], changed["params"]) == ("task_arithmetic", {"scaling": 1.0})


BAD = [
    ("tasks = [", "not valid TOML"),
    ('schema="weightvc/recipe/1"\nmethod="linear"\n', "no tasks"),
    ('schema="weightvc/recipe/1"\nmethod="linear"\ntasks=["A b"]\n', "'A b' cannot name a task"),
    ('schema="weightvc/recipe/1"\nmethod="linear"\ntasks=["a","a"]\n', "named twice: a"),
    ('schema="weightvc/recipe/1"\nmethod="linear"\ntasks=["alpha"]\nextra=1\n', "unknown extra"),
    ('schema="weightvc/recipe/1"\nmethod=3\ntasks=["alpha"]\n', "3 is not of type str"),
    (
        'schema="weightvc/recipe/1"\nmethod="linear"\ntasks=["alpha"]\non_int_mismatch="x"\n',
        "on_int_mismatch is one of",
    ),
    ('schema="weightvc/recipe/9"\nmethod="linear"\ntasks=["alpha"]\n', "schema 'weightvc/recipe/9'"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_recipe_files_that_are_none(two, refused, tmp_path, text, says):
    (tmp_path / "bad.toml").write_text(text)

    refused(two, 3, "checkout", "--recipe", tmp_path / "bad.toml", says=says)


def test_names_and_tasks_are_checked_before_anything_is_staged(two, refused, templates):
    two.wvc("add", templates.alpha, "--task", "new")

    refused(two, 3, "recipe", "save", "../x", "--tasks", "alpha", says="'../x' cannot name a recipe")
    refused(two, 3, "recipe", "save", "x", "--tasks", "nobody", says="no task 'nobody' at")
    refused(two, 3, "recipe", "save", "x", "--tasks", "new", says="task new is staged but not committed")
    refused(two, 2, "recipe", "save", "x", "--method", "magic", says="there is no merge method 'magic'")
    refused(
        two, 3, "recipe", "show", "x", says="no recipe 'x'; the recipes are: none", hint="make one with `wvc recipe"
    )
    refused(two, 3, "recipe", "rm", "x", says="no recipe 'x'; the recipes are: none")


def test_misspelt_recipes(two, refused):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    hint = "did you mean prod? make one with `wvc recipe save NAME --tasks a,b`"
    refused(two, 3, "recipe", "show", "Prd", says="no recipe 'Prd'; the recipes are: prod", hint=hint)

    two.wvc("commit", "-m", "Save it")
    refused(two, 3, "checkout", "--recipe", "pord", says="no recipe 'pord', and no file", hint="did you mean prod? run")


def test_the_library_keeps_recipes_too(two):
    repo = two.api()

    saved = repo.save_recipe("prod", ["alpha", "beta=2"], method="linear")

    assert repo.recipes() == (saved,)
    assert saved.tasks == ("alpha", "beta=2.0")
    assert repo.remove_recipe("prod") == replace(saved, dropped=True)
    assert repo.recipes() == ()


def test_parameters_that_another_method_has_no_use_for_are_named(two, tmp_path):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta", "--method", "opcm-s", "-p", "norm=mean")
    two.wvc("commit", "-m", "Save it")
    made = two.json("checkout", "--recipe", "prod", "--method", "linear", "-o", tmp_path / "a")
    (note,) = [note for note in made["notes"] if "recipe prod" in note]
    assert note.startswith("recipe prod is for opcm-s: its ")
    assert "norm=mean" in note
    assert note.endswith("has no part in linear")
    made = two.json("checkout", "--recipe", "prod", "--method", "opcm-s", "-o", tmp_path / "b")
    assert not [note for note in made["notes"] if "recipe prod" in note]
