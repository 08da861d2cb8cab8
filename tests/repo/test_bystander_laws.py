"""A task that leaves a tensor as it is changes no bit of that tensor's merge, wherever it stands: all methods.

The exceptions follow from definitions: see "What they share" in ``docs/methods.md``.
"""

import pytest
import torch

from weightvc.merge.table import METHODS

BASE_COUNTS = {
    "linear": "the average of tuned models, of which the base's tensor is one",
    "slerp": "between two models",
}
"""Methods in which a task that leaves a tensor alone counts as the base's tensor."""

MODEL = dict.fromkeys(("opcm", "opcm-s"), "one factor for the model") | {"mdm-oc": "products over the model"}
"""Methods that decide something over the whole model: there a task must leave all of it alone to change nothing."""

PARAMS = {
    "ties": [("scope=tensor",), ("compat=mergekit",), ("compat=peft",), ("aggregate=max", "election=weighted")],
    "dare": [("rescale=l1", "vectors=true")],
    "dare_ties": [("rescale=l1", "vectors=true")],
}
"""What else decides how a tensor is looked at, besides the defaults."""

CASES = [
    pytest.param(name, params, id=" ".join((name, *params)))
    for name in METHODS
    for params in ((), *PARAMS.get(name, ()))
    if name not in BASE_COUNTS
]
MOVED = "pooler.weight"
PAIR = ("a=0.5", "b=-1.5")


def every_place(other):
    return [(*PAIR[:at], other, *PAIR[at:]) for at in range(3)]


@pytest.fixture(scope="module")
def repo(sandbox, models, wvc, tmp_path_factory):
    """Tasks a and b, a copy of the base, and one that moves a single tensor. The base has zeros of both signs."""
    root = tmp_path_factory.mktemp("bystanders")
    base = models.base() | {"zeros.weight": torch.tensor([[-0.0, 0.0, 1.0], [0.0, -0.0, -0.0]])}
    made = sandbox(root / "repo")
    assert wvc("init", made.path, "--base", models.write(root / "base", base)).code == 0
    for seed, name in enumerate("ab", 1):
        moved = models.tuned(base, seed)
        moved["zeros.weight"] = base["zeros.weight"] + seed * torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.0, 0.1]])
        made.put(name, models.write(root / name, moved))
    made.put("copy", models.write(root / "copy", base))
    made.put("one", models.write(root / "one", models.tuned(base, 1, only=MOVED)))
    return made


@pytest.mark.parametrize(("method", "params"), CASES)
def test_at_every_position(repo, models, tmp_path, method, params):
    options = [part for param in params for part in ("-p", param)]

    def merged(*tasks):
        out = tmp_path / "-".join(tasks)
        repo.wvc("checkout", "--tasks", ",".join(tasks), "--method", method, *options, "-o", out)
        return models.read(out)

    alone = merged(*PAIR)
    for tasks in every_place("copy=1.5"):
        models.assert_same(merged(*tasks), alone)
    if method in MODEL:
        return
    changed = alone.pop(MOVED)
    for tasks in every_place("one=1.5"):
        found = merged(*tasks)
        assert not torch.equal(found.pop(MOVED), changed)
        models.assert_same(found, alone)


@pytest.mark.parametrize("method", BASE_COUNTS)
def test_where_the_bases_tensor_counts_it_does_so_at_every_position(repo, models, tmp_path, method):
    found = []
    for at, tasks in enumerate((["a", "copy"], ["copy", "a"])):
        repo.wvc("checkout", "--tasks", ",".join(tasks), "--method", method, "-o", tmp_path / str(at))
        found.append(models.read(tmp_path / str(at))[MOVED])
    repo.wvc("checkout", "--tasks", "a", "-o", tmp_path / "alone")

    assert torch.allclose(found[0], found[1], rtol=1e-12)
    assert not torch.allclose(found[0], models.read(tmp_path / "alone")[MOVED], rtol=1e-6)
