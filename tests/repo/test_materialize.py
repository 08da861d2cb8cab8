"""Merges against numbers worked out by hand, and against the merge method driven in memory."""

import json
import math

import numpy as np
import pytest
import torch

from weightvc.merge import linalg, table
from weightvc.merge.opcm import OpcmS
from weightvc.objects.tensors import TensorSpec
from weightvc.repo.decode import SPAN


def numbers(tensor):
    """Return a torch tensor as float64 in numpy."""
    return tensor.double().numpy()


def cast(values, like):
    """Round float64 once to the dtype of ``like``."""
    return torch.from_numpy(np.asarray(values)).to(like.dtype).reshape(like.shape)


@pytest.fixture
def three(two, models, tmp_path):
    """Alpha, beta and gamma, with their tensors."""
    base = models.base()
    tensors = {
        "alpha": models.tuned(base, 1),
        "beta": models.tuned(base, 2, only="layer"),
        "gamma": models.tuned(base, 3),
    }
    two.put("gamma", models.write(tmp_path / "gamma", tensors["gamma"]))
    return two, base, tensors


def test_task_arithmetic_by_hand(three, models, tmp_path):
    repo, base, tuned = three
    weights = {"alpha": 1.0, "beta": 0.5, "gamma": -0.25}

    repo.wvc(
        "checkout", "--tasks", "alpha,beta=0.5,gamma=-0.25", "--method", "task_arithmetic", "-o", tmp_path / "out"
    )  # fmt: skip

    wanted = {}
    for name, start in base.items():
        if not start.is_floating_point():
            wanted[name] = start
            continue
        total = np.zeros(start.shape)
        for task, weight in weights.items():
            total += weight * (numbers(tuned[task][name]) - numbers(start))
        wanted[name] = cast(numbers(start) + total, start)
    models.assert_same(models.read(tmp_path / "out"), wanted)


def test_task_arithmetic_scales_the_sum(three, models, tmp_path):
    repo, base, tuned = three

    repo.wvc("checkout", "--method", "task_arithmetic", "-p", "scaling=0.3", "-o", tmp_path / "out")

    found = models.read(tmp_path / "out")
    for name in ("pooler.weight", "encoder.layer.1.attention.query.weight"):
        start = numbers(base[name])
        total = sum(numbers(tensors[name]) - start for tensors in tuned.values())
        np.testing.assert_allclose(numbers(found[name]), start + 0.3 * total, rtol=2e-7)
        assert abs(numbers(found[name]) - start).max() > 0.01


def test_linear_is_the_average_of_the_models(three, models, tmp_path):
    repo, base, tuned = three

    repo.wvc("checkout", "--tasks", "alpha,beta,gamma=2", "--method", "linear", "-o", tmp_path / "out")

    found = models.read(tmp_path / "out")
    tolerance = {torch.float64: 1e-14, torch.float32: 2e-7, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    for name, start in base.items():
        if start.is_floating_point():
            average = (
                numbers(tuned["alpha"][name]) + numbers(tuned["beta"][name]) + 2 * numbers(tuned["gamma"][name])
            ) / 4
            np.testing.assert_allclose(numbers(found[name]), average, rtol=tolerance[start.dtype], atol=1e-7)


def wide(seed):
    """Return a model whose matrix and vector each take several spans."""
    made = torch.Generator().manual_seed(seed)
    return {
        "layer.0.weight": torch.randn(SPAN // 4 // 300 + 9, 300, generator=made),
        "layer.0.bias": torch.randn(SPAN // 4 + 4099, generator=made),
        "layer.1.weight": torch.randn(64, 300, generator=made).bfloat16(),
        "layer.2.weight": torch.randn(20, 20, generator=made).double(),
        "embed.weight": torch.randn(30, 16, generator=made),
        "counts": torch.arange(5),
    }


@pytest.fixture(scope="module")
def wide_models(tmp_path_factory, models):
    root = tmp_path_factory.mktemp("wide")
    tensors = {"base": wide(0)}
    for seed, name in enumerate(("a", "b", "c"), 1):
        tensors[name] = models.tuned(tensors["base"], seed, only="layer.0" if name == "b" else "")
    for name, held in tensors.items():
        models.write(root / name, held, files={})
    return root, tensors


@pytest.fixture(scope="module")
def wide_repo(sandbox, wide_models):
    """Tests of this module only check out of it."""
    root, _ = wide_models
    repo = sandbox(root / "repo")
    repo.path.mkdir()
    repo.wvc("init", "--base", root / "base")
    for name in ("a", "b", "c"):
        repo.json("add", root / name, "--task", name)
    repo.wvc("commit", "-m", "Add tasks")
    return repo


def in_memory(method, base, tasks, weights):
    """Fold whole tensors, as a paper's pseudo-code would, and return the merged model and its split ranks."""
    squares, merged, sums, ranks = {task: [] for task in tasks}, [], {}, {}
    with linalg.single_thread():
        for name in sorted(base):
            start, state = base[name], None
            changing = [t for t in tasks if not torch.equal(tasks[t][name], start)]
            if not changing:
                continue
            spec = TensorSpec(name, "F64", tuple(start.shape))
            project = len(changing) > 1 and method.projects(spec)
            for task in changing:
                vector = weights[task] * (tasks[task][name].double() - start.double())
                squares[task].append(square(vector, project, start))
                state, rank = method.step(state, vector.clone(), project=project)
                if rank is not None:
                    ranks.setdefault(name, []).append(rank)
            merged.append(square(state, project, start))
            sums[name] = state
        norms = [math.sqrt(math.fsum(parts)) for parts in squares.values()]
        factor = method.scale(norms, math.sqrt(math.fsum(merged)))
        done = {n: s.double().add(sums[n], alpha=factor).to(s.dtype) if n in sums else s for n, s in base.items()}
    return done, ranks


def square(vector, project, start):
    """Return a squared norm, added up as the engine adds it: whole matrices, else spans of stored bytes."""
    flat = vector.reshape(-1)
    parts = [flat] if project else flat.split(SPAN // start.element_size())
    total = 0.0
    for part in parts:
        total += float(torch.dot(part, part))
    return total


@pytest.mark.parametrize("name", ["opcm-s", "opcm"])
def test_opcm_equals_the_method_driven_in_memory(wide_repo, wide_models, models, tmp_path, name):
    _, tensors = wide_models
    tasks = {task: tensors[task] for task in ("a", "b", "c")}
    wanted, ranks = in_memory(table.create(name, {}), tensors["base"], tasks, {"a": 1.0, "b": 0.5, "c": 1.0})

    done = wide_repo.json("checkout", "--tasks", "a,b=0.5,c", "--method", name, "-o", tmp_path / "out")

    models.assert_same(models.read(tmp_path / "out"), wanted)
    assert done["rules"] == {"base": 1, "task": 0, "elementwise": 2, "projected": 3, "factored": 0, "joined": 0}
    lock = json.loads((tmp_path / "out/wvc.lock.json").read_text())
    assert {line["name"]: line["ranks"] for line in lock["tensors"] if "ranks" in line} == ranks
    assert {n: len(r) for n, r in ranks.items()} == {"layer.0.weight": 2, "layer.1.weight": 1, "layer.2.weight": 1}
    assert not list((wide_repo.path / ".git/wvc/tmp").iterdir())


def test_a_method_that_projects_and_does_not_scale_projects(wide_repo, wide_models, models, tmp_path, monkeypatch):
    _, tensors = wide_models
    monkeypatch.setattr(OpcmS, "scaled", False)
    monkeypatch.setattr(OpcmS, "scale", lambda *_: 0.5)
    tasks = {task: tensors[task] for task in ("a", "b", "c")}
    wanted, ranks = in_memory(
        OpcmS(0.5, "mean", table.OTHER, "float64"), tensors["base"], tasks, dict.fromkeys(tasks, 1.0)
    )

    wide_repo.wvc("checkout", "-o", tmp_path / "out")

    models.assert_same(models.read(tmp_path / "out"), wanted)
    assert ranks


def test_the_number_of_threads_changes_no_byte(wide_repo, models, tmp_path):
    for jobs in (1, 2):
        wide_repo.wvc("checkout", "--jobs", jobs, "-o", tmp_path / f"out{jobs}")

    one, two = (models.contents(tmp_path / f"out{jobs}") for jobs in (1, 2))
    assert one == two
    locks = [(tmp_path / f"out{jobs}/wvc.lock.json").read_bytes() for jobs in (1, 2)]
    assert locks[0] == locks[1]


def test_materialize_gives_what_checkout_writes(wide_repo, models, tmp_path):
    wide_repo.wvc("checkout", "-o", tmp_path / "out")

    pairs = list(wide_repo.api().materialize())

    assert [name for name, _ in pairs] == sorted(name for name, _ in pairs)
    models.assert_same(dict(pairs), models.read(tmp_path / "out"))


def test_materialize_gives_0d_and_empty_tensors(two, models, tmp_path):
    two.wvc("checkout", "--method", "task_arithmetic", "-o", tmp_path / "out")

    found = dict(two.api().materialize(method="task_arithmetic"))

    models.assert_same(found, models.read(tmp_path / "out"))
    assert (found["logit_scale"].shape, found["empty"].shape) == ((), (0, 4))


def test_a_task_that_changed_nothing_adds_nothing(two, templates, models, tmp_path):
    two.wvc("checkout", "--method", "task_arithmetic", "-o", tmp_path / "before")
    two.put("copy", templates.base)

    two.wvc("checkout", "--method", "task_arithmetic", "-o", tmp_path / "after")

    models.assert_same(models.read(tmp_path / "after"), models.read(tmp_path / "before"))


def test_a_coefficient_of_zero_leaves_a_task_out(two, models, tmp_path):
    done = two.json("checkout", "--tasks", "alpha=0,beta=0", "-o", tmp_path / "out")

    models.assert_same(models.read(tmp_path / "out"), models.base())
    assert (done["exact"], done["rules"]) == (
        False,
        {"base": 17, "task": 0, "elementwise": 0, "projected": 0, "factored": 0, "joined": 0},
    )


MASK = torch.tensor([0.0, -math.inf, 1.0, math.nan])


@pytest.fixture
def masked(repository, models, tmp_path):
    """A repository whose base holds infinities, with two tasks that leave those alone."""
    base = {**models.base(), "mask": MASK}
    repo = repository(models.write(tmp_path / "base", base), "--allow-nonfinite")
    tuned = {}
    for seed, name in enumerate(("one", "two"), 1):
        tuned[name] = {**models.tuned(models.base(), seed), "mask": MASK + torch.tensor([float(seed), 0.0, 0.0, 0.0])}
        repo.put(name, models.write(tmp_path / name, tuned[name]), "--allow-nonfinite")
    return repo, base, tuned


@pytest.mark.parametrize("method", ["opcm-s", "opcm", "linear", "task_arithmetic"])
def test_infinities_that_no_task_moves_stay_and_spoil_nothing(masked, models, tmp_path, method):
    repo, _, _ = masked

    repo.wvc("checkout", "--method", method, "-o", tmp_path / "out")

    merged = models.read(tmp_path / "out")
    assert merged["mask"][1] == -math.inf
    assert merged["mask"][3].isnan()
    assert merged["mask"][2] == 1.0
    assert all(bool(t.isfinite().all()) for name, t in merged.items() if name != "mask" and t.is_floating_point())


def test_infinities_that_a_task_moves_are_refused(masked, models, tmp_path):
    repo, base, _ = masked
    moved = {**base, "mask": torch.tensor([0.0, 5.0, 1.0, math.nan])}
    repo.put("moved", models.write(tmp_path / "moved", moved), "--allow-nonfinite")

    ran = repo.run("checkout", "--tasks", "one,moved", "-o", tmp_path / "out")

    assert ran.code == 3
    assert "tensor mask: a task changed a value from or to NaN or infinity" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dtype", "F16", "--method", "task_arithmetic", "-p", "scaling=1e9"], "do not fit into F16"),
        (["--tasks", "alpha=1e300,beta", "--method", "task_arithmetic"], "the merged values do not fit into"),
        (["--tasks", "alpha=1e308,beta=1e308", "--method", "linear"], "1e+308, 1e+308 is beyond double precision"),
        (["--tasks", "alpha=1e200,beta", "-p", "other=*"], "the merged model's norm is beyond double precision"),
    ],
)
def test_a_merge_that_overflows_is_refused(two, tmp_path, options, words):
    ran = two.run("checkout", *options, "-o", tmp_path / "out")

    assert ran.code == 3
    assert words in ran.err
    assert "use smaller coefficients" in ran.err
    assert not (tmp_path / "out").exists()
