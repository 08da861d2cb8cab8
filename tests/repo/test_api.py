"""The library as users import it."""

from importlib import metadata

import pytest
import torch

import weightvc
from weightvc import repo as rooms
from weightvc.util.errors import NotARepository, Unsupported, UsageError


def test_names_load_on_first_use():
    assert weightvc.open == weightvc.Repository.open
    assert weightvc.errors.NotARepository is NotARepository
    for name in weightvc.__all__:
        assert getattr(weightvc, name) is not None
    with pytest.raises(AttributeError, match="module 'weightvc' has no attribute 'nothing'"):
        _ = weightvc.nothing
    with pytest.raises(AttributeError):
        _ = rooms.nothing


def test_names_are_listed_before_they_are_loaded():
    assert {*weightvc.__all__, "__version__", "__doc__"} <= set(dir(weightvc))
    assert weightvc.__version__ == metadata.version("weightvc")


def test_open_finds_the_repository_from_below(two):
    (two.path / "a/b").mkdir(parents=True)

    assert weightvc.open(two.path / "a/b").git.work_tree == two.path
    assert weightvc.open(str(two.path)).status().repository == str(two.path)


def test_open_refuses_what_is_no_repository(tmp_path):
    with pytest.raises(NotARepository, match="is not in a git repository"):
        weightvc.open(tmp_path)


def test_a_whole_story(templates, models, tmp_path):
    weightvc.initialize(tmp_path / "repo", templates.base)
    repo = weightvc.open(tmp_path / "repo")
    repo.add(templates.alpha, "alpha")
    repo.add(templates.beta, "beta", derived_from=())
    assert repo.commit("Add both").tasks == ("alpha", "beta")

    models.assert_same(dict(repo.materialize(["alpha"])), models.read(templates.alpha))
    merged = dict(repo.materialize(["alpha", "beta=0.5"], method="task_arithmetic", jobs=1))
    start = models.base()["pooler.weight"]
    assert torch.allclose(merged["pooler.weight"], models.read(templates.alpha)["pooler.weight"], rtol=1e-12)
    assert not torch.equal(merged["pooler.weight"], start)
    repo.revert("alpha")
    models.assert_same(dict(repo.materialize()), models.read(templates.beta))
    assert [line.removed for line in repo.log(limit=1)] == [("alpha",)]


def test_text_is_no_list_of_tasks(two):
    for method in (two.api().materialize, two.api().checkout, lambda tasks: two.api().save_recipe("r", tasks)):
        with pytest.raises(UsageError, match=r"^tasks is a list of names, not 'alpha'$") as caught:
            method("alpha")
        assert caught.value.hint == "write tasks=['a', 'b=0.7']"


@pytest.mark.parametrize(
    "call",
    [
        lambda repo, jobs: repo.revert("alpha", jobs=jobs),
        lambda repo, jobs: repo.checkout(dry_run=True, jobs=jobs),
        lambda repo, jobs: repo.materialize(jobs=jobs),
        lambda repo, jobs: repo.fsck(jobs=jobs),
    ],
)
@pytest.mark.parametrize("jobs", [0, -3])
def test_less_than_one_thread_is_refused_before_anything_is_done(two, call, jobs):
    before = two.everything()
    with pytest.raises(UsageError, match=f"{jobs} jobs can do nothing"):
        call(two.api(), jobs)
    assert two.everything() == before


def test_a_cast_while_materializing(two):
    found = dict(two.api().materialize(["alpha"], dtype="F16"))

    assert {t.dtype for t in found.values()} == {torch.float16, torch.int64}


def test_dtypes_that_torch_does_not_have(repository, tmp_path):
    from weightvc.checkpoint.writer import Layout, Writer
    from weightvc.objects.tensors import TensorSpec

    base = tmp_path / "base"
    base.mkdir()
    with Writer(base, Layout.pack([TensorSpec("packed", "F6_E2M3", (4,)), TensorSpec("a", "U8", (2,))], 10)) as writer:
        writer.write("packed", b"abc")
        writer.write("a", b"xy")
        writer.finish()
    pairs = repository(base).api().materialize()

    assert next(pairs)[1].tolist() == [120, 121]
    with pytest.raises(Unsupported, match="packed: torch has no dtype F6_E2M3") as caught:
        next(pairs)
    assert caught.value.hint == "use `wvc checkout` instead"


def test_every_dtype_that_torch_has_is_given(repository, tmp_path):
    from weightvc.checkpoint.writer import Layout, Writer
    from weightvc.objects.tensors import TensorSpec
    from weightvc.repo.build import TORCH

    base = tmp_path / "base"
    base.mkdir()
    specs = [TensorSpec(dtype, dtype, (2, 2)) for dtype in TORCH]
    with Writer(base, Layout.pack(specs, 10**6)) as writer:
        for spec in specs:
            writer.write(spec.name, bytes([0, 1] * (spec.nbytes // 2)))
        writer.finish()

    found = dict(repository(base).api().materialize())

    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (TORCH[name], (2, 2))
        assert tensor.reshape(-1).view(torch.uint8).tolist() == [0, 1] * (tensor.nbytes // 2)
