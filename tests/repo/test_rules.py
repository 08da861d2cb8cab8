"""Rules by name: which method merges which tensor, and that all the laws of merges hold with them."""

import json

import pytest
import torch

from weightvc.objects.recipe import NameRule, Recipe, Weighted
from weightvc.repo import asked, rules
from weightvc.repo.resolve import Request
from weightvc.util.errors import UsageError

ATTN = r".*\.attention\..*"
ROWS = "embeddings.word_embeddings.weight"
MIXED = (
    "--rule", f"{ATTN}=ties:density=0.3", "--rule", r".*\.dense\.weight=mdm-oc", "--rule", "pooler.weight=base",
    "--rule", ".*norm.*=tsv-m",
)  # fmt: skip


@pytest.fixture(scope="module")
def tuned(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = models.base()
    paths = {"base": models.write(root / "base", base)}
    for at, name in enumerate("abc", 1):
        paths[name] = models.write(root / name, models.tuned(base, at))
    return paths


@pytest.fixture(scope="module")
def three_once(sandbox, tuned, wvc, tmp_path_factory):
    made = sandbox(tmp_path_factory.mktemp("three") / "repo")
    assert wvc("init", made.path, "--base", tuned["base"]).code == 0
    for name in "abc":
        made.put(name, tuned[name])
    return made.path


@pytest.fixture
def three(three_once, copied):
    return copied(three_once)


def build(repo, path, *options):
    return repo.json("checkout", "-o", path, *options)


def test_the_first_rule_that_matches_decides(three, models, tmp_path):
    layer = (
        "--rule",
        r"encoder\.layer\.0\..*=base",
        "--rule",
        f"{ATTN}=magmax:scaling=0.5",
        "--rule",
        ".*bias.*|pooler.*=linear",
    )
    build(three, tmp_path / "mixed", "--method", "task_arithmetic", *layer)
    for name, options in {"linear": (), "task_arithmetic": (), "magmax": ("-p", "scaling=0.5")}.items():
        build(three, tmp_path / name, "--method", name, *options)

    mixed = models.read(tmp_path / "mixed")
    alike = {name: models.read(tmp_path / name) for name in ("linear", "task_arithmetic", "magmax")}
    alike["base"] = models.base()
    for name in mixed:
        wanted = "task_arithmetic"
        if "layer.0." in name:
            wanted = "base"
        elif ".attention." in name:
            wanted = "magmax"
        elif name == "pooler.weight":
            wanted = "linear"
        assert torch.equal(mixed[name], alike[wanted][name]), name


def test_the_number_of_threads_and_of_files_changes_no_byte_and_replays_verify(three, tmp_path):
    digests = {
        build(three, tmp_path / f"{jobs}{size}", *MIXED, "--jobs", jobs, "--max-shard-size", size)["digest"]
        for jobs, size in ((1, "5GB"), (2, "1KB"))
    }

    assert len(digests) == 1
    assert three.json("verify", tmp_path / "15GB", "--replay")["ok"]


def test_without_a_task_is_what_it_would_be_had_it_never_been_added(three, repository, tuned, tmp_path):
    never = repository(tuned["base"], name="never")
    for name in "ac":
        never.put(name, tuned[name])
    build(three, tmp_path / "out", *MIXED)
    three.wvc("recipe", "save", "prod", "--tasks", "a,b,c", *MIXED)
    three.wvc("commit", "-m", "Save")

    removed = three.json("revert", "b", "-m", "Take it out")

    wanted = build(never, tmp_path / "wanted", *MIXED)["digest"]
    assert removed["unproved"] == []
    assert build(three, tmp_path / "named", "--tasks", "a,c", *MIXED)["digest"] == wanted
    assert build(three, tmp_path / "prod", "--recipe", "prod")["digest"] == wanted
    assert json.loads((tmp_path / "out/wvc.lock.json").read_text())["digest"] == wanted


@pytest.mark.parametrize("method", ["opcm-s", "ties", "mdm-oc", "slerp"])
def test_a_rule_for_what_happens_anyway_changes_no_byte(three, tmp_path, method):
    options = ("--tasks", "a,b", "--method", method)
    plain = build(three, tmp_path / "plain", *options)["digest"]

    assert build(three, tmp_path / "ruled", *options, "--rule", f"{ATTN}={method}")["digest"] == plain


def test_what_a_method_decides_about_a_model_it_decides_about_its_own_tensors(three, models, tmp_path):
    build(three, tmp_path / "out", "--method", "linear", "--rule", r".*\.query\.weight=opcm-s:norm=mean")

    def norm(path):
        moved = models.read(path)
        names = [name for name in moved if name.endswith(".query.weight")]
        return sum(float((moved[name].double() - models.base()[name].double()).square().sum()) for name in names) ** 0.5

    mean = 0.0
    for name in "abc":
        build(three, tmp_path / name, "--tasks", name)
        mean += norm(tmp_path / name) / 3
    assert norm(tmp_path / "out") == pytest.approx(mean, rel=1e-5)


def test_parameters_make_a_method_another(three, models, tmp_path):
    """Two parts by one method with other parameters: each has its own scale."""
    options = ("--rule", f"{ATTN}=opcm-s:norm=2.0")
    build(three, tmp_path / "plain", "-p", "norm=mean")
    build(three, tmp_path / "ruled", "-p", "norm=mean", *options)

    plain, ruled = models.read(tmp_path / "plain"), models.read(tmp_path / "ruled")
    name = "encoder.layer.0.attention.query.weight"
    ratio = (ruled[name] - models.base()[name]).norm() / (plain[name] - models.base()[name]).norm()
    assert 1.5 < float(ratio) < 2.5


def test_base_keeps_integers_that_tasks_changed_differently(three, models, tmp_path):
    ids = models.base()["embeddings.position_ids"]
    for at, name in enumerate("xy", 1):
        three.put(
            name, models.write(tmp_path / name, models.tuned(models.base(), at) | {"embeddings.position_ids": ids + at})
        )

    build(three, tmp_path / "out", "--rule", ".*position_ids=base")

    assert torch.equal(models.read(tmp_path / "out")["embeddings.position_ids"], ids)


def test_what_is_kept_is_cast(three, models, tmp_path):
    build(three, tmp_path / "out", "--rule", "pooler.weight=base", "--dtype", "F16")

    assert torch.equal(models.read(tmp_path / "out")["pooler.weight"], models.base()["pooler.weight"].half())


def test_a_tie_goes_by_the_first_rule_that_matches_one_of_its_names(repository, models, tmp_path):
    base = models.base() | {"decoder.weight": models.base()[ROWS].clone()}
    repo = repository(models.write(tmp_path / "base", base))
    for at, name in enumerate("ab"):
        moved = models.tuned(base, at)
        repo.put(name, models.write(tmp_path / name, moved | {"decoder.weight": moved[ROWS].clone()}))

    build(repo, tmp_path / "out", "--method", "linear", "--rule", f"{ROWS}=magmax", "--rule", "decoder.*=base")

    made = models.read(tmp_path / "out")
    assert torch.equal(made["decoder.weight"], made[ROWS])
    build(repo, tmp_path / "magmax", "--method", "magmax")
    assert torch.equal(made[ROWS], models.read(tmp_path / "magmax")[ROWS])


def test_one_task_alone_is_itself_unless_a_rule_says_otherwise(three, tuned, models, tmp_path):
    done = build(three, tmp_path / "one", "--tasks", "a", "--rule", f"{ATTN}=ties")
    assert done["exact"]
    assert models.contents(tmp_path / "one") == models.contents(tuned["a"])
    assert "a: " not in three.wvc("status")

    done = build(three, tmp_path / "kept", "--tasks", "a", "--rule", f"{ATTN}=base")
    assert not done["exact"]
    made, base = models.read(tmp_path / "kept"), models.base()
    assert all(
        torch.equal(made[name], (base if ".attention." in name else models.read(tuned["a"]))[name]) for name in made
    )


def test_a_recipe_keeps_its_rules(three, tmp_path):
    made = three.json(
        "recipe", "save", "prod", "--tasks", "a,b", "--method", "linear", "--rule", f"{ATTN}=ties:density=0.3"
    )
    three.wvc("commit", "-m", "Save")

    text = (three.path / ".wvc/recipes/prod.toml").read_text()
    assert (
        '[[rules]]\npattern = ".*\\\\.attention\\\\..*"\nmethod = "ties"\n\n[rules.params]\naggregate = "mean"\n'
        in text
    )
    assert "\ndensity = 0.3\n" in text
    assert made["rules"][0].startswith(f"{ATTN}=ties:aggregate=mean,compat=none,density=0.3,")
    assert f"rule    {ATTN}=ties:aggregate=mean," in three.wvc("recipe", "show", "prod")
    assert three.wvc(
        "recipe", "save", "prod", "--tasks", "a,b", "--method", "linear", "--rule", f"{ATTN}=base"
    ).endswith("recipe prod: a + b by linear and 1 rule\n")
    three.wvc("unstage", "prod")

    first = build(three, tmp_path / "one", "--recipe", "prod")
    given = build(three, tmp_path / "two", "--tasks", "a,b", "--method", "linear", "--rule", f"{ATTN}=ties:density=0.3")
    other = build(three, tmp_path / "three", "--recipe", "prod", "--rule", f"{ATTN}=base")
    assert first["digest"] == given["digest"] != other["digest"]
    assert first["name_rules"] == made["rules"]
    assert "linear (1 rule)" in three.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "one")
    lock = json.loads((tmp_path / "one/wvc.lock.json").read_text())
    assert lock["recipe"]["rules"][0]["params"]["density"] == 0.3


def test_the_card_says_the_rules(three, tmp_path):
    build(three, tmp_path / "out", *MIXED)

    card = (tmp_path / "out/README.md").read_text()
    assert "| tensors named | method | parameters |\n|---|---|---|\n| .*\\.attention\\..* | ties | aggregate = " in card
    assert "| pooler.weight | base |  |\n" in card


def test_a_directory_is_followed_with_its_rules(three, tmp_path, templates):
    three.wvc("checkout", "--rule", r"po\=ler.*|pooler.*=base", "-o", tmp_path / "out")
    assert three.json("status")["directories"][0]["state"] == "current"
    assert "(1 rule), up to date" in three.wvc("status")
    three.put("d", templates.alpha)

    (line,) = three.json("status")["directories"]

    assert (line["state"], line["why"]) == ("behind", "d added since")
    assert line["remedy"] == rf"wvc checkout --rule 'po\=ler.*|pooler.*=base' -o {tmp_path / 'out'}"
    assert line["rules"] == [r"po\=ler.*|pooler.*=base"]


def test_a_directory_that_nobody_recorded_is_known_by_its_lock(three, tmp_path, templates):
    three.wvc("checkout", *MIXED[:2], "-o", tmp_path / "out")
    listed = three.path / ".git/wvc/outputs"
    listed.write_text(json.dumps([line[:2] for line in json.loads(listed.read_text())]))
    assert three.json("status")["directories"][0]["state"] == "current"
    three.put("d", templates.alpha)

    (line,) = three.json("status")["directories"]

    assert line["state"] == "behind"
    assert f"--rule '{ATTN}=ties:aggregate=mean,compat=none,density=0.3" in line["remedy"]


def test_a_request_with_rules_is_kept_as_it_is():
    request = Request(rules=(NameRule("a=b", "ties", {"density": 0.5}), NameRule("c", "base")))

    assert asked.from_json(json.loads(json.dumps(asked.to_json(request)))) == request
    assert asked.from_json({"rules": [{"pattern": "a"}]}) is None
    assert asked.from_json({"rules": "a=base"}) is None


def test_what_remains_of_an_older_revision_keeps_its_rules():
    recipe = Recipe((Weighted("a"), Weighted("b")), rules=(NameRule("c", "base"),))

    assert asked.remains(Request(rev="v1"), recipe.without(["a"]), recipe, ["a"]).rules == recipe.rules


def test_the_library_takes_rules_as_text(three, tmp_path):
    repo = three.api()
    rule = f"{ATTN}=base"

    done = repo.checkout(rules=[rule], output=tmp_path / "out")
    assert done.name_rules == (rule,)
    assert dict(repo.materialize(rules=[rule])).keys() == dict(repo.materialize()).keys()
    assert repo.save_recipe("prod", ["a"], rules=[rule]).rules == (rule,)


WRONG = [
    (2, "attn", "'attn' is not a rule", "write PATTERN=METHOD, or PATTERN=METHOD:KEY=VALUE,…"),
    (2, "(a=ties", "rule '(a': at character 1: this ( is never closed", "a pattern is a regular expression"),
    (2, "a=tise", "rule 'a': there is no merge method 'tise'", "did you mean ties?"),
    (2, "a=ties:dense=1", "rule 'a': method ties has no parameter dense", "it takes density, scope"),
    (2, "a=ties:density=0", "rule 'a': ties: density cannot be 0", "density is a number above 0 and up to 1"),
    (2, "a=opcm:alpha=1", "rule 'a': opcm: alpha cannot be 1", "alpha is a number from 0 up to but not including 1"),
    (2, "a=base:density=1", "rule 'a': base keeps the base's tensors, without parameters", "leave them out"),
    (2, ".*weight=slerp", "slerp is between two tasks, not 3", "name two, or use --method linear"),
    (2, "w.*=ties:compat=peft,scope=tensor", "rule 'w.*': ties: compat stands for scope", "leave those out"),
    (
        3, "attention=ties", "rule 'attention' matches no tensor of the base",
        "a pattern is for the whole name; with .* around it, it would match encoder.layer.0.attention.query.bias, ",
    ),
    (
        3, "encoder.layers.0.output.dense.weight=ties", "rule 'encoder.layers.0.output.dense.weight' matches no tensor",
        "a pattern is for the whole name; some names are encoder.layer.0.output.dense.weight, ",
    ),
    (3, "^zzz=ties", "rule '^zzz' matches no tensor", "a pattern is for the whole name; some names are embeddings."),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_rule_is_refused_before_any_work(three, refused, tmp_path, wrong):
    code, rule, says, hint = wrong
    refused(three, code, "checkout", "--rule", rule, "-o", tmp_path / "out", says=says, hint=hint)
    assert not (tmp_path / "out").exists()


def test_a_rule_that_decides_nothing_is_refused(three, refused, tmp_path):
    refused(
        three, 3, "checkout", "--rule", ".*=linear", "--rule", f"{ATTN}=ties", "-o", tmp_path / "out",
        says=rf"rule '{ATTN}' decides nothing: rules before it match the 6 tensors that it matches",
        hint="put it before them; the first rule that matches decides",
    )  # fmt: skip


def test_rules_in_a_file_are_checked_alike(three, refused, tmp_path):
    file = tmp_path / "x.toml"
    head = 'schema = "weightvc/recipe/1"\ntasks = ["a", "b"]\nmethod = "linear"\n'
    file.write_text(head + "rules = [{pattern = '(a', method = 'ties'}]\n")
    refused(three, 2, "checkout", "--recipe", file, says="this ( is never closed", hint="a pattern is")
    file.write_text(head + "[[rules]]\npattern = 'a'\nmethod = 'base'\n" * 101)
    refused(
        three,
        2,
        "checkout",
        "--recipe",
        file,
        says="101 rules, more than the limit of 100",
        hint="join some of them with |",
    )
    refused(
        three,
        3,
        "recipe",
        "save",
        "x",
        "--tasks",
        "a,b",
        "--rule",
        "x=base",
        says="matches no tensor",
        hint="a pattern",
    )


def test_too_many_rules_are_never_made():
    recipe = Recipe((), rules=(NameRule("a", "base"),) * 101)

    with pytest.raises(UsageError, match="101 rules"):
        rules.create(recipe)


def test_a_hostile_pattern_ends(three, refused, tmp_path):
    refused(
        three, 3, "checkout", "--rule", "(.*.*.*.*.*.*a|(.|.)*)*z=ties", "-o", tmp_path / "out",
        says="matches no tensor of the base", hint="a pattern is for the whole name",
    )  # fmt: skip
