import dataclasses
import subprocess
import sys
from importlib import metadata
from typing import ClassVar

import pytest

from weightvc.merge import table
from weightvc.merge.params import Param
from weightvc.merge.table import METHODS, OTHER, create, describe
from weightvc.objects.recipe import DEFAULT_METHOD
from weightvc.util import plugins
from weightvc.util.errors import UsageError


def refusal(name, params):
    with pytest.raises(UsageError) as error:
        create(name, params)
    return error.value.what, error.value.hint


def test_environments_may_be_as_far_apart_as_the_table_says():
    assert [table.tolerance("opcm", {}, tasks) for tasks in (2, 3, 5, 8, 9)] == [1e-9, 1e-9, 1e-6, 1e-4, 0.0]
    assert table.tolerance("opcm-s", {"precision": "float64"}, 99) == table.tolerance("ties", {}, 2) == 1e-12
    assert table.tolerance("opcm-s", {"precision": "mixed"}, 99) == 1e-5
    assert table.tolerance("tsv-m", {}, 2) == 1e-9


def test_the_table_is_explicit():
    assert list(METHODS) == [
        *("opcm-s", "opcm", "task_arithmetic", "linear", "magmax", "ties", "dare", "dare_ties", "slerp", "model_stock"),
        *("tsv-m", "mdm-oc"),
    ]
    assert next(iter(METHODS)) == DEFAULT_METHOD
    assert all(info.summary and info.reference for info in METHODS.values())
    assert [name for name, info in METHODS.items() if info.experimental] == ["mdm-oc"]
    assert all(param.meaning and param.range for info in METHODS.values() for param in info.params)


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_in_range_and_stored_in_full(name):
    params = dataclasses.asdict(create(name, {}))
    assert params == {param.name: param.default for param in METHODS[name].params}
    assert all(param.parse(param.default) == param.default for param in METHODS[name].params)
    assert create(name, params) == create(name, {})


def test_parameters_are_read_from_text_and_numbers():
    assert dataclasses.asdict(create("opcm", {"alpha": "0.25"})) == {"alpha": 0.25, "norm": "mean", "other": OTHER}
    assert dataclasses.asdict(create("opcm", {"alpha": 0, "other": "x"})) == {
        "alpha": 0.0,
        "norm": "mean",
        "other": "x",
    }
    zero = dataclasses.asdict(create("opcm", {"alpha": "-0.0"}))["alpha"]
    assert repr(zero) == "0.0"


def test_an_unknown_method_names_the_methods():
    what, hint = refusal("ocpm\x1b", {})
    assert what == "there is no merge method 'ocpm\\\\u001b'"
    assert hint.startswith("did you mean opcm? the methods are opcm-s, opcm, task_arithmetic, linear, magmax, ties, ")
    assert hint.endswith(f", {list(METHODS)[-1]}")


def test_an_unknown_parameter_names_the_methods_own():
    assert refusal("opcm", {"beta": 1, "alpha": 0.1}) == (
        "method opcm has no parameter beta",
        "it takes alpha, norm, other",
    )
    assert refusal("linear", {"alpha": 0.1}) == ("method linear has no parameter alpha", "it takes none")


@pytest.mark.parametrize("given", ["1", 1.0, -0.1, "half", "nan", "inf", True, 10**400, ""])
def test_alpha_is_a_share_below_one(given):
    what, hint = refusal("opcm-s", {"alpha": given})
    assert what.startswith("opcm-s: alpha cannot be ")
    assert hint == "alpha is a number from 0 up to but not including 1"


@pytest.mark.parametrize("given", ["a" * 1001, 1.0, True, "\udce9"])
def test_other_is_a_list_of_patterns(given):
    what, hint = refusal("opcm", {"other": given})
    assert what.startswith("opcm: other cannot be ")
    assert hint == "other is a comma-separated list of shell patterns such as '*embed*', of at most 1000 characters"


def test_scaling_is_finite():
    assert dataclasses.asdict(create("task_arithmetic", {"scaling": "0.3"})) == {"scaling": 0.3}
    assert refusal("task_arithmetic", {"scaling": "inf"})[1] == "scaling is a finite number"


def test_parameters_of_every_type_are_parsed_strictly():
    whole, flag = Param("n", int, 1, "", ""), Param("f", bool, default=False, meaning="", range="")
    assert [whole.parse("3"), whole.parse(4)] == [3, 4]
    assert [flag.parse("True"), flag.parse("false"), flag.parse(given=True)] == [True, False, True]
    for param, bad in [(whole, "3.5"), (whole, 2.0), (whole, True), (flag, "yes"), (flag, 1)]:
        with pytest.raises(ValueError, match=str(bad)):
            param.parse(bad)


@dataclasses.dataclass(frozen=True)
class Half:
    """Half of everything.

    For tests.
    """

    name: ClassVar[str] = "half"
    power: float = dataclasses.field(default=1.0, metadata={"meaning": "how often"})
    rounds: int = 3

    def __post_init__(self):
        if self.rounds < 0:
            raise ValueError("rounds is negative")
        if self.rounds > 9:
            raise UsageError("half: rounds is above 9", "use fewer")


@dataclasses.dataclass
class Demanding:
    power: float


@pytest.fixture
def installed(monkeypatch):
    """Pretend that a package with these entry points is installed."""
    entries = [
        metadata.EntryPoint("half", f"{__name__}:Half", table.GROUP),
        metadata.EntryPoint("demanding", f"{__name__}:Demanding", table.GROUP),
        metadata.EntryPoint("function", "weightvc.util.text:printable", table.GROUP),
    ]
    plugins.load.cache_clear()
    found = metadata.EntryPoints(entries)
    monkeypatch.setattr(metadata, "entry_points", found.select)
    yield
    plugins.load.cache_clear()


@pytest.mark.usefixtures("installed")
def test_an_installed_method_is_described_by_its_fields():
    info = describe("half")
    assert (info.summary, info.experimental) == ("Half of everything.", True)
    assert [(p.name, p.type, p.default, p.meaning, p.range) for p in info.params] == [
        ("power", float, 1.0, "how often", "of type float"),
        ("rounds", int, 3, "", "of type int"),
    ]
    method = create("half", {"power": "2"})
    assert type(method).__name__ == "Half"
    assert dataclasses.asdict(method) == {"power": 2.0, "rounds": 3}


@pytest.mark.usefixtures("installed")
def test_an_installed_methods_own_refusals_are_usage_errors():
    assert refusal("half", {"rounds": "x"}) == ("half: rounds cannot be x", "rounds is of type int")
    assert refusal("half", {"rounds": -1}) == ("half: rounds is negative", "")
    assert refusal("half", {"rounds": 10}) == ("half: rounds is above 9", "use fewer")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["demanding", "function"])
def test_an_installed_method_of_another_form_is_refused(name):
    what, hint = refusal(name, {})
    assert what == f"the installed merge method {name!r} is not a dataclass whose fields all have scalar defaults"
    assert hint == "tell its author, or uninstall it"


def test_usage_errors_load_no_tensors():
    script = (
        "import sys\n"
        "from weightvc.merge.table import METHODS, create\n"
        "from weightvc.util.errors import UsageError\n"
        "for name, params in (('nope', {}), ('opcm', {'beta': 1}), ('opcm', {'alpha': 2}), ('opcm', {'other': 1.5})):\n"
        "    try:\n"
        "        create(name, params)\n"
        "    except UsageError:\n"
        "        print('refused')\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()\n"
        "create('linear', {})\n"
        "assert 'torch' in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["refused"] * 4
