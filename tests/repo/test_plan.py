"""What a merge does with each tensor, from manifests alone."""

import pytest

from weightvc.merge.opcm import OpcmS
from weightvc.objects.ids import Digest, ObjectId
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.recipe import Recipe, parse_tasks
from weightvc.objects.tensors import TensorSpec, tensor_digest
from weightvc.objects.updates import Update
from weightvc.repo import plan as plans
from weightvc.repo.rules import complete, create
from weightvc.util.errors import Conflict, UsageError

PLACE = Place("raw", ObjectId("0" * 64), 1)


def digest(number):
    return Digest(f"{number:064x}")


def whole(name, number, *, dtype="F32", shape=(4, 4)):
    return Entry(TensorSpec(name, dtype, shape), digest(number), "whole", None, PLACE)


def delta(entry, number, *, name=None):
    spec = TensorSpec(name or entry.spec.name, entry.spec.dtype, entry.spec.shape)
    return Entry(spec, digest(number), "delta", entry.spec.name, PLACE)


def same(entry):
    return Entry(entry.spec, entry.digest, "same", entry.spec.name)


def manifest(*entries, task=None):
    return Manifest(tuple(sorted(entries, key=lambda e: e.spec.name)), (), (), "safetensors", task)


W, V, N = whole("w", 1), whole("v", 2, shape=(4,)), whole("n", 3, dtype="I64", shape=(2,))
BASE = manifest(W, V, N)


def make(*tasks, base=BASE, weights=None, method="opcm-s", **options):
    names = weights or ["t0", "t1", "t2"][: len(tasks)]
    recipe = Recipe(parse_tasks(names), method, **options)
    return plans.make(base, tasks, recipe, create(complete(recipe)))


def rules(plan):
    return {name: (tensor.rule, [at for at, _ in tensor.sources]) for tensor in plan.tensors for name in tensor.names}


def test_each_tensor_has_the_rule_that_its_tasks_call_for():
    one = manifest(delta(W, 10), delta(V, 11), same(N))
    two = manifest(delta(W, 12), same(V), same(N))

    assert rules(make(one, two)) == {
        "n": ("base", []),
        "v": ("elementwise", [0]),
        "w": ("projected", [0, 1]),
    }
    assert rules(make(one, two, method="linear"))["w"] == ("elementwise", [0, 1])


def test_one_changing_task_is_never_projected():
    assert rules(make(manifest(delta(W, 10)), manifest(same(W))))["w"] == ("elementwise", [0])


def test_a_task_that_lacks_a_tensor_leaves_it_alone():
    assert rules(make(manifest(delta(V, 10)), manifest(delta(W, 11)))) == {
        "n": ("base", []),
        "v": ("elementwise", [0]),
        "w": ("elementwise", [1]),
    }


def test_a_coefficient_of_zero_is_as_if_unchanged():
    found = make(manifest(delta(W, 10)), manifest(delta(W, 11)), weights=["t0=0", "t1"])

    assert rules(found)["w"] == ("elementwise", [1])
    assert found.parts[0].weights == (0.0, 1.0)


@pytest.mark.parametrize("second", [delta(N, 10), same(N)])
def test_integers_that_agree_or_that_one_task_changed_are_taken(second):
    assert rules(make(manifest(delta(N, 10)), manifest(second)))["n"] == ("task", [0])


def test_integers_that_disagree_are_refused_unless_the_base_is_to_win():
    one, two = manifest(delta(N, 10)), manifest(delta(N, 11))

    with pytest.raises(Conflict, match=r"tensor n \(I64\) was changed in different ways by 2 tasks, and I64") as caught:
        make(one, two)
    assert caught.value.hint == "pass --on-int-mismatch base to keep the base's values"
    assert rules(make(one, two, on_int_mismatch="base"))["n"] == ("base", [])


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "F8_E4M3", "C64", "F4"])
def test_values_that_are_no_wide_floats_are_carried(dtype):
    packed = whole("p", 5, dtype=dtype, shape=(8,))

    found = make(manifest(delta(packed, 10)), manifest(same(packed)), base=manifest(packed))

    assert rules(found) == {"p": ("task", [0])}


def test_a_dtype_casts_floats_and_nothing_else():
    found = make(manifest(delta(W, 10)), dtype="BF16")

    assert {s.name: s.dtype for s in found.specs} == {"n": "I64", "v": "BF16", "w": "BF16"}
    assert rules(found)["v"] == ("elementwise", [])
    assert rules(make(manifest(delta(W, 10)), dtype="F32"))["v"] == ("base", [])


TIED = manifest(W, whole("decoder", 1), V)


def test_a_tie_that_all_keep_is_one_tensor():
    decoder = TIED.by_name["decoder"]
    kept = manifest(delta(W, 10), delta(decoder, 10))

    found = make(kept, base=TIED)

    assert [tensor.names for tensor in found.tensors] == [("decoder", "w"), ("v",)]
    assert [spec.name for spec in found.specs] == ["decoder", "v", "w"]


def test_a_tie_that_one_breaks_is_two_tensors():
    decoder = TIED.by_name["decoder"]
    kept, broken = manifest(delta(W, 10), delta(decoder, 10)), manifest(delta(W, 11), delta(decoder, 12))

    assert [tensor.names for tensor in make(kept, broken, base=TIED).tensors] == [("decoder",), ("v",), ("w",)]


def test_a_member_that_a_task_lacks_follows_the_others():
    found = make(manifest(delta(W, 10)), base=TIED)

    assert rules(found)["decoder"] == rules(found)["w"] == ("elementwise", [0])


def test_a_tie_is_projected_only_if_every_name_of_it_is():
    table_ = manifest(whole("lm_head", 1), W)
    tasks = [manifest(delta(W, n), delta(table_.by_name["lm_head"], n)) for n in (10, 11)]

    assert rules(make(*tasks, base=table_))["w"] == ("elementwise", [0, 1])
    assert rules(make(*(manifest(delta(W, n)) for n in (10, 11)), base=manifest(W)))["w"][0] == "projected"


def test_equal_integers_are_no_tie():
    base = manifest(N, whole("o", 3, dtype="I64", shape=(2,)))

    assert [tensor.names for tensor in make(manifest(delta(N, 10)), base=base).tensors] == [("n",), ("o",)]


def test_heads_are_what_the_base_does_not_have():
    head = whole("head", 9)

    found = make(manifest(same(W)), manifest(head, delta(W, 10)))

    assert dict(found.heads) == {1: (head,)}
    assert plans.describe(found, ["t0", "t1"]) == [
        "task t1: 1 tensor that the base does not have in that shape and dtype goes to heads/t1.safetensors: head"
    ]


def test_the_summary_counts_names():
    decoder = TIED.by_name["decoder"]

    found = plans.summary(make(manifest(delta(W, 10), delta(decoder, 10)), base=TIED))

    assert found == {"base": 1, "task": 0, "elementwise": 2, "projected": 0, "factored": 0, "joined": 0}


def test_a_method_without_tasks_is_asked_for_no_coefficients():
    found = make(method="linear", weights=[], dtype="F16")

    assert found.parts[0].weights == ()
    assert rules(found)["w"] == ("elementwise", [])


def test_coefficients_that_a_method_cannot_use():
    with pytest.raises(UsageError, match=r"sum to 0\.0"):
        make(manifest(same(W)), manifest(same(W)), weights=["t0=1", "t1=-1"], method="linear")


def test_vectors_and_zeros_that_are_equal_by_chance_are_no_tie():
    zeros = tensor_digest("F32", (4, 4), bytes(64))
    one, two = (Entry(TensorSpec(n, "F32", (4, 4)), zeros, "whole", None, PLACE) for n in ("one", "two"))
    bias, other = whole("bias", 7, shape=(4,)), whole("other", 7, shape=(4,))
    base = manifest(one, two, bias, other)

    plan = make(manifest(delta(one, 11), delta(bias, 12), task="t0"), base=base)

    assert rules(plan) == {
        "one": ("elementwise", [0]),
        "two": ("base", []),
        "bias": ("elementwise", [0]),
        "other": ("base", []),
    }


LARGE = whole("large", 20, shape=(16, 24))


def adapter(rank, number, *, of=LARGE):
    rows, columns = of.spec.shape
    a, b = whole("a", number, shape=(rank, columns)), whole("b", number + 1, shape=(rows, rank))
    return Manifest((a, b), (), (), "safetensors", updates=(Update(of.spec.name, "a", "b", 2.0),))


def large(*tasks, **options):
    (found,) = make(*tasks, base=manifest(LARGE), **options).tensors
    return found.rule, found.rank, found.kept


def test_matrices_that_are_updated_by_few_ranks_are_merged_by_factors():
    tasks = adapter(3, 10), adapter(5, 12)

    assert large(*tasks) == large(*tasks, method="opcm") == ("factored", 8, 8 * 8 * (16 + 24))
    assert large(*tasks, weights=["t0=-1", "t1=2"])[0] == "factored"
    assert large(*tasks, adapter(9, 14), weights=["t0", "t1", "t2=0"])[0] == "factored"
    assert large(*tasks, manifest(same(LARGE)))[0] == "factored"
    assert large(tasks[0]) == ("elementwise", 3, 0)
    assert large(*tasks, method="task_arithmetic")[0] == large(*tasks, method="ties")[0] == "elementwise"


def test_matrices_whose_ranks_add_up_or_that_a_task_replaces_are_projected_whole():
    assert large(adapter(3, 10), adapter(6, 12)) == ("projected", 9, 8 * 16 * 24)
    assert large(adapter(3, 10), manifest(delta(LARGE, 30))) == ("projected", 3, 8 * 16 * 24)


def test_a_method_that_does_not_rotate_gets_whole_matrices(monkeypatch):
    monkeypatch.setattr(OpcmS, "rotates", False)

    assert large(adapter(3, 10), adapter(5, 12))[0] == "projected"


def test_convolutions_that_a_method_wants_whole_are_no_matrices_to_factor(monkeypatch):
    kernel = whole("kernel", 21, shape=(16, 24, 3, 3))
    monkeypatch.setattr(OpcmS, "projects", lambda _method, _spec: True)
    tasks = [
        Manifest(
            (whole("a", number, shape=(1, 24, 3, 3)), whole("b", number + 1, shape=(16, 1, 1, 1))),
            (), (), "safetensors", updates=(Update("kernel", "a", "b", 2.0),),
        )
        for number in (10, 12)
    ]  # fmt: skip

    assert rules(make(*tasks, base=manifest(kernel)))["kernel"] == ("projected", [0, 1])
