"""A sentence encoder and genuine fine-tunes of it: whole model directories, two dtypes, shards, and what loads."""

import json

import pytest
import torch

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def base(assets):
    return assets.minilm()


@pytest.fixture(scope="module")
def repo(new_repo, base, quick):
    return new_repo(base, {task: folder / "f32" for task, folder in quick.items()})


@pytest.fixture(scope="module")
def merged(repo, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "model"
    repo.wvc("checkout", "--jobs", 2, "-o", out)
    return out


def embed(directory):
    """Embed a sentence with a model directory's encoder and the tokenizer beside it."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModel.from_pretrained(directory, local_files_only=True).eval()
    with torch.no_grad():
        words = tokenizer("git for neural-network weights", return_tensors="pt")
        return model(**words).last_hidden_state.float().mean(1)


def test_a_fine_tune_is_stored_as_deltas(repo, quick):
    for task in quick:
        counts = repo.added[task]["tensors"]
        assert (counts["added"], counts["removed"]) == (0, 0)
        assert counts["delta"] > 90
        assert repo.added[task]["stored_bytes"] < 0.75 * repo.added[task]["bytes"]


@pytest.mark.parametrize("task", ["reuters8", "news20", "movies", "questions"])
def test_a_float32_directory_comes_back_file_by_file(repo, quick, task, tmp_path, models):
    repo.wvc("checkout", "--tasks", task, "-o", tmp_path / "out")

    assert models.files(tmp_path / "out") == models.files(quick[task] / "f32")


def test_bfloat16_directories_come_back_file_by_file(new_repo, finetunes, quick, tmp_path, models):
    repo = new_repo(finetunes.base_bf16(), {task: folder / "bf16" for task, folder in quick.items()})

    for task, folder in quick.items():
        repo.wvc("checkout", "--tasks", task, "-o", tmp_path / task)
        assert models.files(tmp_path / task) == models.files(folder / "bf16")
        assert repo.added[task]["stored_bytes"] < 0.5 * repo.added[task]["bytes"]


def test_a_merge_of_bfloat16_stays_bfloat16(new_repo, finetunes, quick, tmp_path, models):
    two = {task: quick[task] / "bf16" for task in ("movies", "questions")}
    repo = new_repo(finetunes.base_bf16(), two)

    repo.wvc("checkout", "--method", "opcm-s", "-o", tmp_path / "out")

    found = models.tensors(tmp_path / "out")
    assert {t.dtype for name, t in found.items() if name != "embeddings.position_ids"} == {torch.bfloat16}
    assert all(torch.isfinite(t.float()).all() for t in found.values())


def test_a_sharded_directory_comes_back_file_by_file(new_repo, base, quick, tmp_path, models):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(quick["news20"] / "f32", local_files_only=True)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20MB")
    repo = new_repo(base, {"sharded": tmp_path / "sharded"})

    repo.wvc("checkout", "--tasks", "sharded", "-o", tmp_path / "out")

    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    assert repo.added["sharded"]["tensors"]["added"] == 0
    assert models.files(tmp_path / "out") == models.files(tmp_path / "sharded")
    models.assert_same_tensors(models.tensors(tmp_path / "out"), model.state_dict())


def test_a_merge_written_in_shards_holds_the_same_tensors(repo, merged, tmp_path, models):
    repo.wvc("checkout", "--max-shard-size", "20MB", "-o", tmp_path / "out")

    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    models.assert_same_tensors(models.tensors(tmp_path / "out"), models.tensors(merged))


def test_a_merge_loads_and_differs_from_the_base(merged, base, quick):
    found = embed(merged)

    assert found.shape == (1, 384)
    assert torch.isfinite(found).all()
    assert 1e-4 < (found - embed(base)).abs().max() < 1
    assert not torch.equal(found, embed(quick["movies"] / "f32"))


def test_a_merge_carries_tokenizer_pooling_and_a_card(merged, base, models):
    carried = models.files(base, "README.md", "model.safetensors")

    assert {"tokenizer.json", "modules.json", "1_Pooling/config.json", "config.json"} <= set(carried)
    assert models.files(merged, "README.md", "model.safetensors") == carried
    card = (merged / "README.md").read_text()
    assert card.startswith("---\n")
    assert "base_model_relation: merge" in card
    assert "license: apache-2.0" in card
    assert "| movies |" in card


def test_the_same_tensors_from_another_publisher_are_not_stored_again(repo, assets):
    before = repo.objects_bytes()

    added = repo.wvc("add", assets.minilm_twin(), "--task", "twin")

    assert (added["tensors"]["same"], added["tensors"]["delta"]) == (repo.init["base"]["tensors"], 0)
    assert added["bytes"] > 90_000_000
    assert added["stored_bytes"] < 64 * 1024
    assert repo.objects_bytes() - before < 64 * 1024
