import pytest

from weightvc.objects.tensors import TensorSpec
from weightvc.repo.align import align


def specs(**shapes):
    return {name.replace("_", "."): TensorSpec(name.replace("_", "."), "F32", shape) for name, shape in shapes.items()}


SHORT = specs(a_weight=(2, 3), a_bias=(3,), b_weight=(4,))
LONG = specs(m_a_weight=(2, 3), m_a_bias=(3,), m_b_weight=(4,))


def test_equal_names_match_as_they_are():
    found = align(SHORT, SHORT)

    assert found.names == {"a.weight": "a.weight", "a.bias": "a.bias", "b.weight": "b.weight"}
    assert (found.prefix, found.side) == ("", "")


def test_a_prefix_of_the_base_alone():
    found = align(SHORT, LONG)

    assert (found.prefix, found.side) == ("m.", "base")
    assert found.names == {"a.weight": "m.a.weight", "a.bias": "m.a.bias", "b.weight": "m.b.weight"}


def test_a_prefix_of_the_task_alone():
    found = align(LONG | specs(head=(9,)), SHORT)

    assert (found.prefix, found.side) == ("m.", "task")
    assert found.names == {"m.a.weight": "a.weight", "m.a.bias": "a.bias", "m.b.weight": "b.weight"}


def test_the_way_that_matches_more_tensors_wins():
    # Two names match as they are, three behind the prefix.
    base = LONG | specs(a_weight=(2, 3), a_bias=(3,))

    assert align(SHORT, base).prefix == "m."


def test_a_prefix_must_match_more_than_plain_names_do():
    base = SHORT | LONG

    assert align(SHORT, base).prefix == ""


def test_the_shortest_prefix_wins():
    base = specs(x_a=(2,), x_y_a=(2,))

    assert align(specs(a=(2,)), base).names == {"a": "x.a"}


def test_a_tensor_without_a_prefixed_counterpart_falls_back_on_its_own_name():
    base = LONG | specs(cls=(7,))

    assert align(SHORT | specs(cls=(7,)), base).names["cls"] == "cls"


def test_the_fallback_never_takes_a_base_tensor_twice():
    # The base's "m.a.weight" is the counterpart of "a.weight", so the task's own "m.a.weight" has none.
    found = align(SHORT | specs(m_a_weight=(2, 3)), LONG)

    assert found.names["a.weight"] == "m.a.weight"
    assert "m.a.weight" not in found.names


def test_another_shape_still_matches_by_name():
    tuned = SHORT | specs(a_weight=(5, 3))

    assert align(tuned, SHORT).names["a.weight"] == "a.weight"


@pytest.mark.parametrize("base", [{}, specs(other=(1,)), specs(weight=(9, 9))])
def test_nothing_in_common(base):
    assert dict(align(SHORT, base).names) == {}
