"""The time of a plan: positive, and more for more work. Nothing here depends on how fast the machine is."""

import pytest

from weightvc.merge.joint import Task
from weightvc.objects.ids import Digest, ObjectId, Version
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.recipe import Recipe, parse_tasks
from weightvc.objects.tensors import TensorSpec
from weightvc.objects.updates import Update
from weightvc.repo import forecast
from weightvc.repo import plan as plans
from weightvc.repo.forecast import Speed
from weightvc.repo.rules import complete, create

SPEED = Speed(streamed=1e9, product=1e10, decomposition=1e9)
PLACE = Place("raw", ObjectId("0" * 64), 1)


def model(shape, *, tasks, method):
    base = Manifest(
        (Entry(TensorSpec("w", "F32", shape), Digest("0" * 64), "whole", None, PLACE),), (), (), "safetensors"
    )
    delta = Entry(TensorSpec("w", "F32", shape), Digest("1" * 64), "delta", "w", PLACE)
    tuned = Manifest((delta,), (), (), "safetensors", "t")
    recipe = complete(Recipe(parse_tasks([f"t{at}" for at in range(tasks)]), method))
    return plans.make(base, [tuned] * tasks, recipe, create(recipe))


def seconds(shape=(512, 256), *, tasks=2, method="opcm-s", speed=SPEED, jobs=1):
    known = [Task(1.0, Version(f"{at:064x}")) for at in range(tasks)]
    return forecast.seconds(model(shape, tasks=tasks, method=method), known, speed, jobs)


def adapters(rank, *, tasks=2, shape=(512, 256)):
    """Seconds of merging adapters of one matrix."""
    entry = Entry(TensorSpec("w", "F32", shape), Digest("0" * 64), "whole", None, PLACE)
    a = Entry(TensorSpec("a", "F32", (rank, shape[1])), Digest("2" * 64), "whole", None, PLACE)
    b = Entry(TensorSpec("b", "F32", (shape[0], rank)), Digest("3" * 64), "whole", None, PLACE)
    tuned = Manifest((a, b), (), (), "safetensors", updates=(Update("w", "a", "b", 2.0),))
    recipe = complete(Recipe(parse_tasks([f"t{at}" for at in range(tasks)])))
    plan = plans.make(Manifest((entry,), (), (), "safetensors"), [tuned] * tasks, recipe, create(recipe))
    assert {tensor.rule for tensor in plan.tensors} == {"factored"}
    return forecast.seconds(plan, [Task(1.0, Version(f"{at:064x}")) for at in range(tasks)], SPEED, 1)


def test_adapters_take_what_their_ranks_take():
    streamed, product = 2 * 4 * 512 * 256 / 1e9, 512 * 256 * 8
    bases = forecast.PRODUCTS * (512 + 256) * 8**2

    assert adapters(4) == pytest.approx(streamed + (bases + product) / 1e10 + 8**3 / 1e9)
    assert adapters(4) < adapters(8) < adapters(8, tasks=3) < seconds()


def test_what_is_measured_is_positive():
    speed = forecast.calibrate("cpu")

    assert min(speed.streamed, speed.product, speed.decomposition) > 0


def test_a_projection_takes_what_its_products_and_its_decomposition_take():
    streamed = 4 * 512 * 256 * (1 + 2 + 1) / 1e9
    step = forecast.PRODUCTS * 512 * 256**2 / 1e10 + 256**3 / 1e9

    assert seconds() == pytest.approx(streamed + step)
    assert seconds((256, 512)) == pytest.approx(seconds())
    assert seconds(tasks=4) == pytest.approx(4 * 512 * 256 * 6 / 1e9 + 3 * step)


def test_what_a_state_holds_is_neither_read_nor_computed():
    plan = model((512, 256), tasks=4, method="opcm-s")
    known = [Task(1.0, Version(f"{at:064x}")) for at in range(4)]
    step = forecast.PRODUCTS * 512 * 256**2 / 1e10 + 256**3 / 1e9

    def held(count):
        return forecast.seconds(plan, known, SPEED, 1, {plan.tensors[0]: count})

    assert held(3) == pytest.approx(512 * 256 * (4 * 3 + 8) / 1e9 + step)
    assert held(4) == pytest.approx(512 * 256 * (4 * 2 + 8) / 1e9)


def test_more_work_takes_longer():
    assert seconds((1024, 512)) > seconds()
    assert seconds(tasks=3) > seconds()
    assert seconds(method="linear") < seconds()
    assert seconds(tasks=1, method="linear") > seconds(tasks=0, method="linear") > 0
    assert seconds(method="tsv-m") > seconds()


def test_a_second_pass_reads_again():
    vectors = {method: seconds((4096,), method=method) for method in ("task_arithmetic", "opcm-s")}

    assert vectors["task_arithmetic"] == pytest.approx(4 * 4096 * 4 / 1e9)
    assert vectors["opcm-s"] == pytest.approx(4 * 4096 * 7 / 1e9)


@pytest.mark.parametrize("method", ["ties", "dare", "slerp", "mdm-oc", "model_stock"])
def test_a_method_that_looks_at_all_tasks_is_tried_out(method):
    fast = Speed(1e30, 1e30, 1e30)

    assert seconds((1 << 20,), method=method, speed=fast) > 0
    assert seconds((1 << 20,), method=method, tasks=0, speed=fast) < 1e-12


def test_threads_share_the_work(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)

    assert seconds(jobs=2) == pytest.approx(seconds() / 2)
    assert seconds(jobs=64) == pytest.approx(seconds() / 4)
