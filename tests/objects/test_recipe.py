"""Recipes: written by wvc in one way, read in any spelling that TOML allows."""

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.objects.recipe import DEFAULT_METHOD, NameRule, Recipe, Weighted, parse_tasks
from weightvc.util import canon
from weightvc.util.errors import BadInput, Unsupported, UsageError

PROD = Recipe((Weighted("support"), Weighted("sales", 0.7)), "opcm", {"alpha": 0.5, "other": ""}, "BF16", "base")


def read(text):
    return Recipe.from_bytes(text.encode(), "prod.toml")


@pytest.mark.parametrize(
    ("text", "task", "coefficient", "shown"),
    [
        ("a", "a", 1.0, "a"),
        ("a=1", "a", 1.0, "a"),
        ("a=1.0", "a", 1.0, "a"),
        ("a=0.7", "a", 0.7, "a=0.7"),
        ("a=-0.5", "a", -0.5, "a=-0.5"),
        ("a=0", "a", 0.0, "a=0.0"),
        ("a=1e-3", "a", 0.001, "a=0.001"),
        (" a=2 ", "a", 2.0, "a=2.0"),
    ],
)
def test_a_task_with_its_coefficient(text, task, coefficient, shown):
    weighted = Weighted.parse(text)
    assert (weighted.task, weighted.coefficient, str(weighted)) == (task, coefficient, shown)
    assert Weighted.parse(shown) == weighted


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e999", "", "x", "0.5=1", "0x1", "1,5"])
def test_a_coefficient_that_is_no_finite_number_is_refused(number):
    with pytest.raises(UsageError, match=r"'a=.*': the coefficient is not a finite number") as caught:
        Weighted.parse(f"a={number}")
    assert caught.value.hint == "write TASK=0.7"


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a ", "nul"])
def test_a_name_that_cannot_name_a_task_is_refused(name):
    with pytest.raises(BadInput, match="cannot name a task"):
        Weighted.parse(f"{name}=1")


def test_a_task_is_named_once():
    with pytest.raises(UsageError, match="named twice: a, b") as caught:
        parse_tasks(["b", "a=0.5", "c", "a", "b"])
    assert caught.value.hint == "give each task one coefficient"
    assert parse_tasks(["b", "a=0.5"]) == (Weighted("b"), Weighted("a", 0.5))
    assert parse_tasks([]) == ()


def test_the_bytes_are_these():
    assert PROD.to_bytes().decode() == (
        'schema = "weightvc/recipe/1"\n'
        'tasks = [\n    "support",\n    "sales=0.7",\n]\n'
        'method = "opcm"\ndtype = "BF16"\non_int_mismatch = "base"\n\n'
        '[params]\nalpha = 0.5\nother = ""\n'
    )
    assert Recipe((), "linear").to_bytes() == b'schema = "weightvc/recipe/1"\ntasks = []\nmethod = "linear"\n'


@pytest.mark.parametrize(
    "text",
    [
        (
            "schema='weightvc/recipe/1'\nmethod='opcm'\ntasks=['support=1','sales=7e-1']\nparams={other='',alpha=0.5}\n"
            "dtype='BF16'\non_int_mismatch='base'"
        ),
        (
            '# ours\r\nparams.alpha = 5e-1\r\nparams."other" = """"""\r\ntasks = ["support", #\r\n"sales=0.70",]\r\n'
            'dtype="B\\u004616"\r\nmethod="opcm"\r\n"on_int_mismatch"="base"\r\nschema="weightvc/recipe/1"\r\n'
        ),
    ],
)
def test_any_spelling_is_read(text):
    assert read(text) == PROD
    assert read(text).digest == PROD.digest


def test_what_is_left_out_has_its_default():
    recipe = read('schema = "weightvc/recipe/1"\ntasks = ["a"]\nmethod = "linear"\n')
    assert recipe == Recipe((Weighted("a"),), "linear")
    assert (recipe.params, recipe.dtype, recipe.on_int_mismatch) == ({}, None, "error")
    assert DEFAULT_METHOD == "opcm-s"


HEAD = 'schema = "weightvc/recipe/1"\n'
GOOD = HEAD + 'tasks = ["a"]\nmethod = "linear"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks = [", "not valid TOML"),
        (GOOD + "method = 'linear'\n", "not valid TOML"),
        ("x = " + "[" * 100_000, "not valid TOML"),
        ('tasks = ["a"]\nmethod = "linear"\n', "no schema"),
        (HEAD + 'tasks = ["a"]\n', "no method"),
        (HEAD + 'method = "linear"\n', "no tasks"),
        (GOOD + "run = 'rm'\n", "unknown run"),
        (HEAD + 'method = "linear"\ntasks = "a"\n', "'a' is not of type list"),
        (HEAD + 'method = "linear"\ntasks = [1]\n', "1 is not of type str"),
        (HEAD + 'method = "linear"\ntasks = ["A"]\n', "'A' cannot name a task"),
        (HEAD + 'method = "linear"\ntasks = ["a", "a=2"]\n', "named twice: a"),
        (HEAD + 'method = "linear"\ntasks = ["a=inf"]\n', "'a=inf': the coefficient is not a finite number"),
        (HEAD + 'method = 3\ntasks = ["a"]\n', "3 is not of type str"),
        (GOOD + "dtype = 16\n", "16 is not of type str"),
        (GOOD + 'on_int_mismatch = "first"\n', "on_int_mismatch is one of error, base"),
        (GOOD + "params = 3\n", "3 is not of type dict"),
        (GOOD + "rules = 3\n", "3 is not of type list"),
        (GOOD + "rules = [3]\n", "an object was expected"),
        (GOOD + "rules = [{pattern = 'a'}]\n", "no method"),
        (GOOD + "rules = [{pattern = 'a', method = 'm', on = 1}]\n", "unknown on"),
        (GOOD + "rules = [{pattern = 3, method = 'm'}]\n", "3 is not of type str"),
        (GOOD + "rules = [{pattern = 'a', method = 'm', params = {i = inf}}]\n", "parameters that are no text"),
        (
            GOOD + "params = {z = [1], d = 1979-05-27, t = {}, i = inf, n = nan, ok = 1}\n",
            "parameters that are no text, boolean or finite number: d, i, n, t, z",
        ),
    ],
)
def test_what_is_no_recipe_is_refused(text, words):
    with pytest.raises(BadInput, match=words) as caught:
        read(text)
    assert str(caught.value).startswith("prod.toml: ")


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(BadInput, match=r"prod\.toml: not valid TOML"):
        Recipe.from_bytes(b"\xff", "prod.toml")


def test_a_recipe_is_an_object():
    with pytest.raises(BadInput, match="x: an object was expected"):
        Recipe.from_json([], "x")


def test_a_newer_schema_asks_for_an_upgrade():
    with pytest.raises(Unsupported, match="schema 'weightvc/recipe/2'; this wvc reads weightvc/recipe/1") as caught:
        read('schema = "weightvc/recipe/2"\nsteps = []\n')
    assert caught.value.hint == "upgrade weightvc"


def test_scalars_keep_their_types():
    params = read(GOOD + 'params = {a = 1, b = 1.0, c = true, d = "1"}\n').params
    assert [(type(params[key]), params[key]) for key in "abcd"] == [(int, 1), (float, 1.0), (bool, True), (str, "1")]


def test_the_digest_is_of_the_canonical_json():
    text = (
        '{"dtype":"BF16","method":"opcm","on_int_mismatch":"base","params":{"alpha":0.5,"other":""},'
        '"schema":"weightvc/recipe/1","tasks":["support","sales=0.7"]}'
    )
    assert canon.dumps(PROD.to_json()).decode() == text
    assert PROD.digest == hashlib.sha256(text.encode()).hexdigest()
    assert PROD.digest == "aade9a5478e796bba76bd4e3b52180623e65efa0ed2c0d91ed7301887d0877f6"
    assert Recipe(PROD.tasks[::-1], PROD.method, PROD.params, "BF16", "base").digest != PROD.digest


def test_parameters_have_no_order():
    assert Recipe((), "m", {"b": 1, "a": 2}).to_bytes() == Recipe((), "m", {"a": 2, "b": 1}).to_bytes()


@pytest.mark.parametrize(
    ("recipe", "task"),
    [
        (Recipe((Weighted("a"),)), "a"),
        (Recipe((Weighted("a", 1.0),), "linear", {"x": 1}, None, "base"), "a"),
        (Recipe((Weighted("a", 0.5),)), None),
        (Recipe((Weighted("a"),), dtype="F32"), None),
        (Recipe((Weighted("a"), Weighted("b", 0.0))), None),
        (Recipe(()), None),
    ],
)
def test_a_recipe_of_one_task_alone_gives_it_back(recipe, task):
    assert recipe.exact_task == task


def test_without_keeps_all_else():
    assert PROD.without(["support", "unknown"]) == Recipe(
        (Weighted("sales", 0.7),), "opcm", PROD.params, "BF16", "base"
    )
    assert PROD.without([]) == PROD
    assert PROD.without(iter(["support", "sales"])).tasks == ()


finite = st.floats(allow_nan=False, allow_infinity=False)
weighted = st.builds(Weighted, st.from_regex(r"[a-z][a-z0-9_-]{4,20}", fullmatch=True), finite)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = texts | st.booleans() | finite | st.integers(-(2**63), 2**63 - 1)
rules = st.lists(
    st.builds(NameRule, texts, st.sampled_from(["ties", "base"]), st.dictionaries(texts, values, max_size=2)),
    max_size=3,
)
recipes = st.builds(
    Recipe,
    st.lists(weighted, max_size=4, unique_by=lambda w: w.task).map(tuple),
    st.sampled_from(["opcm-s", "linear"]),
    st.dictionaries(texts, values, max_size=4),
    st.sampled_from([None, "F32"]),
    st.sampled_from(["error", "base"]),
    rules.map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_any_recipe_round_trips(recipe):
    again = Recipe.from_bytes(recipe.to_bytes(), "x")
    assert again == recipe
    assert (again.digest, again.to_bytes()) == (recipe.digest, recipe.to_bytes())
    assert Recipe.from_json(canon.parse(canon.dumps(recipe.to_json()), "x"), "x") == recipe
    assert all(math.isfinite(w.coefficient) for w in again.tasks)


RULED = Recipe(
    PROD.tasks,
    "opcm",
    rules=(NameRule(r".*\.attn\..*", "ties", {"scaling": 0.5, "density": 0.3}), NameRule("b", "base")),
)


def test_the_bytes_of_rules_are_these():
    assert RULED.to_bytes().decode().splitlines()[-4:] == [
        "rules = [",
        r'    { pattern = ".*\\.attn\\..*", method = "ties", params = { density = 0.3, scaling = 0.5 } },',
        '    { pattern = "b", method = "base" },',
        "]",
    ]
    text = (
        r'{"method":"opcm","rules":[{"method":"ties","params":{"density":0.3,"scaling":0.5},"pattern":".*\\.attn\\..*"},'
        r'{"method":"base","pattern":"b"}],"schema":"weightvc/recipe/1","tasks":["support","sales=0.7"]}'
    )
    assert RULED.digest == hashlib.sha256(text.encode()).hexdigest()
    assert RULED.without(["support"]).rules == RULED.rules


def test_rules_may_be_written_as_tables():
    text = "[[rules]]\npattern = '.*\\.attn\\..*'\nmethod = 'ties'\nparams.density = 0.3\nparams.scaling = 0.5\n"
    text = (
        HEAD
        + 'tasks = ["support", "sales=0.7"]\nmethod = "opcm"\n'
        + text
        + "[[rules]]\npattern = 'b'\nmethod = 'base'\n"
    )
    assert read(text) == RULED
    assert read(text).digest == RULED.digest


def test_rules_have_an_order():
    assert Recipe((), rules=RULED.rules[::-1]).digest != Recipe((), rules=RULED.rules).digest


@pytest.mark.parametrize(
    ("text", "rule", "shown"),
    [
        (".*attn.*=ties", NameRule(".*attn.*", "ties"), None),
        ("a=ties:", NameRule("a", "ties"), "a=ties"),
        (
            "(?:a|b)=ties:density=0.3,scaling=0.5",
            NameRule("(?:a|b)", "ties", {"density": "0.3", "scaling": "0.5"}),
            None,
        ),
        (r"a\=b\.\\=base", NameRule(r"a=b\.\\", "base"), None),
        (
            r"a=opcm:other=*e*\,b,alpha=0",
            NameRule("a", "opcm", {"other": "*e*,b", "alpha": "0"}),
            r"a=opcm:alpha=0,other=*e*\,b",
        ),
        (r"a=m:k=x=y:z\\", NameRule("a", "m", {"k": "x=y:z\\"}), None),
        ("a=m:k=x\\", NameRule("a", "m", {"k": "x\\"}), r"a=m:k=x\\"),
    ],
)
def test_a_rule_as_text(text, rule, shown):
    assert NameRule.parse(text) == rule
    assert str(rule) == (shown or text)
    assert NameRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "a", "=ties", "a=", "a=:k=v", "a=ties:density", "a=ties:=1", "a=m:k=1,k=2", r"a\=ties"]
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UsageError, match="is not a rule") as caught:
        NameRule.parse(text)
    assert caught.value.hint == "write PATTERN=METHOD, or PATTERN=METHOD:KEY=VALUE,…"


def test_none_is_written_that_could_not_be_read():
    pattern = "\\." * 100_000
    assert Recipe.from_bytes(Recipe((), rules=(NameRule(pattern, "base"),)).to_bytes(), "x").rules[0].pattern == pattern
    with pytest.raises(BadInput, match=r"the recipe takes \d+ bytes, more than the limit of 1048576"):
        Recipe((), rules=(NameRule(pattern * 4, "base"),)).to_bytes()
