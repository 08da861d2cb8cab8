"""A task that leaves a tensor alone changes no bit of its merge, at whatever position: joint methods, in memory.

``tests/repo/test_method_laws.py`` holds the same of every method of the table, and of folds ``test_methods.py``.
"""

import pytest
import torch
from joined import BASE, TASKS, join

from weightvc.merge.joint import Joint
from weightvc.merge.table import METHODS, create

MODEL = {"mdm-oc": "its factors come from products over the whole model"}
"""Methods that a task which moves another tensor may change, and why."""

PARAMS = {
    "ties": [
        {"scope": "tensor"},
        {"scope": "tensor", "election": "weighted", "aggregate": "max"},
        {"compat": "mergekit"},
        {"compat": "peft"},
    ],
    "dare": [{"rescale": "l1", "vectors": True}],
    "dare_ties": [{"rescale": "l1", "vectors": True}],
}
"""What else decides how a tensor is looked at, besides the defaults."""

JOINT = [name for name in METHODS if isinstance(create(name, {}), Joint) and name != "slerp"]  # slerp: of two tasks
CASES = [pytest.param(name, params, id=f"{name} {params}") for name in JOINT for params in ({}, *PARAMS.get(name, []))]


PAIR = [TASKS[0], {key: TASKS[0][key] + TASKS[1][key] for key in BASE}]
"""Task vectors that agree enough for every method to keep some."""
GIVEN = [0.5, 2.0]
VERSIONS = ["v0", "v1"]


def with_another(at, vector, method):
    """Join the pair with a third task before, between or after them."""
    vectors, given, versions = (
        [*held[:at], item, *held[at:]] for held, item in ((PAIR, vector), (GIVEN, 1.5), (VERSIONS, "v2"))
    )
    return join(method, vectors, given, versions=versions)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(("name", "params"), CASES)
def test_a_task_that_moves_nothing_changes_nothing(name, params, at):
    method = create(name, params)
    alone = join(method, PAIR, GIVEN, versions=VERSIONS)
    assert any(bool(vector.any()) for vector in alone.values())
    for vector in ({}, {key: torch.zeros_like(tensor) for key, tensor in BASE.items()}):
        found = with_another(at, vector, method)
        assert all(torch.equal(alone[key], found[key]) for key in alone)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(("name", "params"), [case for case in CASES if case.values[0] not in MODEL])
def test_a_task_that_moves_one_tensor_changes_no_other(name, params, at):
    method = create(name, params)
    alone = join(method, PAIR, GIVEN, versions=VERSIONS)

    found = with_another(at, {"b.weight": TASKS[0]["b.weight"]}, method)

    assert not torch.equal(alone["b.weight"], found["b.weight"])
    assert all(torch.equal(alone[key], found[key]) for key in alone if key != "b.weight")
