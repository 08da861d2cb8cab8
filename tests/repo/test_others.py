"""The other files of a directory: what a checkout carries along, what it leaves out, and that it says so."""

import tracemalloc

import pytest
import torch

CONFIG = {"config.json": "{}\n"}
STALE = "left out, because they hold weights or a training state of the base, not of the merge: "
OWN = "left out, because this checkout writes files of its own there: "


@pytest.fixture
def over(repository, models, tmp_path):
    """Make a repository over a base with other files, and two tasks with the same and with heads of their own."""

    def make(*others: str, kind: str = "safetensors", content: str = "mine"):
        files = CONFIG | dict.fromkeys(others, content)
        repo = repository(models.write(tmp_path / "base", models.base(), kind=kind, files=files))
        for seed, task in enumerate(("one", "two"), 1):
            tensors = models.tuned(models.base(), seed) | {"head.weight": torch.full((2, 3), float(seed))}
            repo.put(task, models.write(tmp_path / task, tensors, kind=kind, files=files))
        return repo

    return make


@pytest.mark.parametrize(
    "others",
    [
        ("heads", "readme.md"),
        ("Heads/one.safetensors/x", "README.md/x"),
        ("heads/one.safetensors",),
    ],
)
def test_a_merge_writes_its_own_files_and_says_whose_place_they_take(over, models, tmp_path, others):
    repo = over(*others)
    notes = repo.json("checkout", "--dry-run")["notes"]

    ran = repo.run("checkout", "-o", tmp_path / "out")
    repo.wvc("checkout", "--tasks", "one", "-o", tmp_path / "exact")

    assert f"note: {OWN}{', '.join(others)}\n" in ran.err
    assert notes[-1] == OWN + ", ".join(others)
    own = {"model.safetensors", "README.md", "heads/one.safetensors", "heads/two.safetensors"}
    found = models.contents(tmp_path / "out")
    assert set(found) == {*own, *CONFIG}
    assert found["README.md"].startswith(b"---\nbase_model_relation: merge\n")
    assert torch.equal(models.read(tmp_path / "out/heads/two.safetensors")["head.weight"], torch.full((2, 3), 2.0))
    assert repo.json("verify", tmp_path / "out", "--replay")["ok"]
    assert models.contents(tmp_path / "exact") == models.contents(tmp_path / "one")


def test_a_configuration_may_name_another_dtype_than_a_cast(over, tmp_path):
    repo = over()
    says = "config.json is the base's, and may name another dtype than F16"

    assert says not in repo.json("checkout", "-o", tmp_path / "own")["notes"]
    assert says in repo.json("checkout", "--dtype", "f16", "-o", tmp_path / "cast")["notes"]
    assert says in repo.json("checkout", "--tasks", "one", "--dtype", "f16", "-o", tmp_path / "alone")["notes"]


@pytest.mark.parametrize("tasks", [(), ("--tasks", "one")])
def test_a_large_file_is_never_held_whole(over, models, tmp_path, tasks):
    repo = over("README.md", "vocabulary.txt", content="x" * 2**25)

    tracemalloc.start()
    try:
        repo.wvc("checkout", *tasks, "-j", "1", "-o", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()

    assert models.contents(tmp_path / "out")["vocabulary.txt"] == b"x" * 2**25


def test_a_file_beside_a_merges_own_ones_stays(over, models, tmp_path):
    repo = over("heads/one.json", "README.md", "model.safetensors.md", "sub/README.md")

    done = repo.json("checkout", "-o", tmp_path / "out")

    assert not any(note.startswith("left out") for note in done["notes"])
    found = models.contents(tmp_path / "out")
    assert {name: found[name] for name in ("heads/one.json", "sub/README.md")} == dict.fromkeys(
        ("heads/one.json", "sub/README.md"), b"mine"
    )


@pytest.mark.parametrize("tasks", ["one", ""])
def test_weights_take_the_place_of_a_directory_that_has_their_name(over, models, tmp_path, tasks):
    repo = over("model.safetensors/x", "sub/y", kind="bin")

    done = repo.json("checkout", "--tasks", tasks, "-o", tmp_path / "out")

    assert done["notes"][0] == OWN + "model.safetensors/x"
    models.assert_same(models.read(tmp_path / "out"), models.read(tmp_path / (tasks or "base") / "pytorch_model.bin"))
    assert set(models.contents(tmp_path / "out")) == {*CONFIG, "sub/y", "model.safetensors"}


def test_a_directory_of_a_weight_files_name_stays_where_there_is_room(over, tmp_path):
    repo = over("model.safetensors/x", "model.safetensors.index.json/x", kind="bin")

    done = repo.json("checkout", "--tasks", "one", "--max-shard-size", "1KiB", "-o", tmp_path / "out")

    assert done["notes"][0] == OWN + "model.safetensors.index.json/x"
    assert (tmp_path / "out/model.safetensors/x").read_text() == "mine"


def test_a_merge_names_every_export_that_it_leaves_out_and_keeps_all_else(over, models, tmp_path):
    exports = sorted(
        ["weights.npz", "tf_model.h5", "openvino/openvino_model.bin", *(f"onnx/{i}.onnx" for i in range(9))]
    )
    kept = {"tokenizer.bin", "mel_filters.npz", "2_Dense/pytorch_model.bin", "onnx/config.json", "vocab.pt"}
    repo = over("heads", *exports, *kept)

    done = repo.json("checkout", "-o", tmp_path / "out")
    ran = repo.run("checkout", "-o", tmp_path / "out")
    exact = repo.json("checkout", "--tasks", "one", "-o", tmp_path / "exact")

    assert done["left_out"] == sorted(["heads", *exports])
    assert done["notes"][-2:] == [f"{STALE}{', '.join(exports[:10])} and 2 more", OWN + "heads"]
    assert f"note: {done['notes'][-2]}\n" in ran.err
    own = {"model.safetensors", "README.md", "heads/one.safetensors", "heads/two.safetensors"}
    assert set(models.contents(tmp_path / "out")) == {*own, *CONFIG, *kept}
    assert (exact["notes"], exact["left_out"]) == ([], [])
    assert models.contents(tmp_path / "exact") == models.contents(tmp_path / "one")


def test_an_exact_checkout_brings_back_all_but_what_tools_keep_beside_the_model(over, tmp_path):
    others = {"sub/wvc.lock.json", "sub/.cache/huggingface/x", ".cache/x", "sub/.wvc/x", ".git.txt"}
    repo = over(*others, "wvc.lock.json", ".cache/huggingface/x", ".wvc/x", ".git/config")

    repo.wvc("checkout", "--tasks", "one", "-o", tmp_path / "out")

    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {*CONFIG, *others, "model.safetensors", "wvc.lock.json"}
    assert (tmp_path / "out/sub/wvc.lock.json").read_text() == "mine"
    assert repo.json("verify", tmp_path / "out", "--replay")["ok"]
    repo.wvc("checkout", "-o", tmp_path / "out")
