"""A BERT for chemistry and its two published fine-tunes: `.bin` files, other prefixes, other heads, a tied decoder."""

import pytest
import torch

pytestmark = pytest.mark.real

WEIGHTS = {"model.safetensors", "pytorch_model.bin"}
TASKS = ["bert-ft", "bert-ft-10k"]
TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def sources(assets):
    found = assets.rxnfp()
    return {"base": found.base, "bert-ft": found.bert_ft, "bert-ft-10k": found.bert_ft_10k_25s}


@pytest.fixture(scope="module")
def repo(new_repo, sources):
    return new_repo(sources["base"], {name: sources[name] for name in TASKS})


@pytest.fixture(scope="module")
def merged(repo, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "model"
    both = "bert-ft=0.5,bert-ft-10k=0.25"
    repo.wvc("checkout", "--tasks", both, "--method", "task_arithmetic", "--jobs", 2, "-o", out)
    return out


@pytest.mark.parametrize("task", TASKS)
def test_a_published_fine_tune_comes_back_bit_for_bit(repo, sources, task, tmp_path, models):
    repo.wvc("checkout", "--tasks", task, "-o", tmp_path / "out")

    models.assert_same_tensors(models.tensors(tmp_path / "out"), models.tensors(sources[task]))
    assert models.files(tmp_path / "out", *WEIGHTS) == models.files(sources[task], *WEIGHTS)


def test_prefixes_and_heads_are_recognised(repo):
    counts = {task: repo.added[task]["tensors"] for task in TASKS}

    assert repo.init["base"]["tensors"] == 207
    assert counts["bert-ft"]["same"] + counts["bert-ft"]["delta"] == 199
    assert counts["bert-ft-10k"]["same"] + counts["bert-ft-10k"]["delta"] == 199
    assert (counts["bert-ft"]["added"], counts["bert-ft"]["removed"]) == (0, 8)
    assert (counts["bert-ft-10k"]["added"], counts["bert-ft-10k"]["removed"]) == (2, 8)


def test_a_fine_tune_is_stored_smaller_than_it_is(repo):
    for task in TASKS:
        assert repo.added[task]["bytes"] > 26_000_000
        assert repo.added[task]["stored_bytes"] < 0.9 * repo.added[task]["bytes"]


def test_a_merge_adds_the_weighted_differences(merged, sources, models):
    base, one, two = (models.tensors(sources[name]) for name in ("base", *TASKS))
    found = models.tensors(merged)

    assert sorted(found) == sorted(base)
    for name in (TABLE, "bert.encoder.layer.11.attention.self.query.weight", "bert.pooler.dense.bias"):
        start = base[name].double()
        wanted = start + 0.5 * (one[name.removeprefix("bert.")].double() - start) + 0.25 * (two[name].double() - start)
        assert torch.equal(found[name], wanted.float()), name
    assert torch.equal(found["cls.predictions.bias"], base["cls.predictions.bias"])


def test_a_merge_keeps_what_only_one_task_has(merged, sources, models):
    head = {k: v for k, v in models.tensors(sources["bert-ft-10k"]).items() if k.startswith("classifier.")}

    models.assert_same_tensors(models.tensors(merged / "heads/bert-ft-10k.safetensors"), head)


def test_a_merge_passes_verification(repo, merged):
    assert repo.run("verify", merged, "--replay").returncode == 0


def test_reverting_gives_what_would_have_been_without_the_task(new_repo, sources, tmp_path, models):
    tasks = {name: sources[name] for name in TASKS}
    repo = new_repo(sources["base"], tasks)
    never = new_repo(sources["base"], {"bert-ft": tasks["bert-ft"]})
    before = repo.wvc("checkout", "-o", tmp_path / "before")

    removed = repo.wvc("revert", "bert-ft-10k")
    after = repo.wvc("checkout", "-o", tmp_path / "after")
    without = never.wvc("checkout", "-o", tmp_path / "never")

    assert removed["task"] == "bert-ft-10k"
    assert after["digest"] == without["digest"] != before["digest"]
    assert models.files(tmp_path / "after") == models.files(tmp_path / "never")
    assert repo.run("fsck", "--full").returncode == 0
