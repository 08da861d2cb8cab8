"""What goes in comes out: every layout, dtype and oddity, through the command line."""

import json
import shutil

import numpy as np
import pytest
import torch

from weightvc.checkpoint.writer import Layout, Writer
from weightvc.objects.tensors import BITS, TensorSpec
from weightvc.repo.decode import SPAN


def test_a_model_directory_comes_back_file_by_file(two, models, templates, tmp_path):
    done = two.json("checkout", "--tasks", "alpha", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)
    assert "1_Pooling/config.json" in models.contents(tmp_path / "out")
    assert (done["exact"], done["digest"]) == (True, two.manifest("alpha")["version"])


def test_a_single_file_comes_back_under_its_name(two, models, templates, tmp_path):
    source = tmp_path / "my-tune.safetensors"
    shutil.copy(templates.alpha / "model.safetensors", source)
    two.put("single", source)

    two.wvc("checkout", "--tasks", "single", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == {"my-tune.safetensors": source.read_bytes()}


def test_shards_and_their_index_come_back(empty, models, tmp_path):
    tuned = models.tuned(models.base(), 3)
    source = models.write(tmp_path / "source", tuned, shards=3)
    empty.put("sharded", source)

    empty.wvc("checkout", "--tasks", "sharded", "-o", tmp_path / "out")

    found = models.contents(tmp_path / "out")
    assert found == models.contents(source)
    assert "model.safetensors.index.json" in found
    assert len([name for name in found if name.endswith(".safetensors")]) == 3


@pytest.mark.parametrize("shards", [1, 3])
def test_pytorch_files_come_back_tensor_by_tensor(empty, models, tmp_path, shards):
    tuned = models.tuned(models.base(), 3)
    source = models.write(tmp_path / "source", tuned, shards=shards, kind="bin")
    added = empty.put("torch", source)

    empty.wvc("checkout", "--tasks", "torch", "-o", tmp_path / "out")

    assert added["tensors"]["delta"] == 15
    models.assert_same(models.read(tmp_path / "out"), tuned)
    found = models.contents(tmp_path / "out")
    assert found.keys() == {*models.files, "model.safetensors"}
    assert all(found[name] == text.encode() for name, text in models.files.items())


def test_a_base_in_pytorch_files_takes_safetensors_tasks(repository, models, templates, tmp_path):
    repo = repository(models.write(tmp_path / "source", models.base(), shards=2, kind="bin"))
    added = repo.put("alpha", templates.alpha)

    repo.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    repo.wvc("checkout", "--tasks", "", "-o", tmp_path / "base")

    assert (added["tensors"]["same"], added["tensors"]["delta"]) == (2, 15)
    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)
    models.assert_same(models.read(tmp_path / "base"), models.base())


def test_a_base_comes_back_when_there_are_no_tasks(empty, models, templates, tmp_path):
    done = empty.json("checkout", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(templates.base)
    assert (done["recipe"], done["exact"], done["digest"]) == ([], True, empty.json("status")["base"])


def every_dtype(path, seed):
    """Write a tensor of every dtype that the format has, of random bits, 24 elements each, and a 0-d and empty one."""
    specs = [TensorSpec(f"t.{dtype}", dtype, (4, 6)) for dtype in BITS]
    specs += [TensorSpec(f"zero.{dtype}", dtype, ()) for dtype, bits in BITS.items() if bits >= 8]
    specs += [TensorSpec(f"empty.{dtype}", dtype, (3, 0)) for dtype in BITS]
    numbers = np.random.default_rng(seed)
    path.mkdir()
    with Writer(path, Layout.pack(specs, 10**9)) as writer:
        for spec in specs:
            data = numbers.integers(0, 2 if spec.dtype == "BOOL" else 256, spec.nbytes, dtype=np.uint8)
            writer.write(spec.name, data.tobytes())
        writer.finish()
    return path


@pytest.mark.parametrize("codec", ["intdelta", "raw"])
def test_every_dtype_comes_back(repository, models, tmp_path, codec):
    base, tuned = every_dtype(tmp_path / "base", 1), every_dtype(tmp_path / "tuned", 2)
    repo = repository(base, "--allow-nonfinite", "--codec", codec)
    added = repo.put("all", tuned, "--allow-nonfinite", "--codec", codec, "--force-base")

    repo.wvc("checkout", "--tasks", "all", "-o", tmp_path / "out")
    repo.wvc("checkout", "--tasks", "", "-o", tmp_path / "again")

    assert models.contents(tmp_path / "out") == models.contents(tuned)
    assert models.contents(tmp_path / "again") == models.contents(base)
    assert added["codec"] == codec
    assert {entry.get("codec", codec) for entry in repo.manifest("all")["tensors"]} == {codec}
    assert set(repo.json("show", "all")["dtypes"]) == set(BITS)


def test_nan_payloads_come_back_and_are_recorded(empty, models, tmp_path):
    tuned = models.base()
    bits = tuned["pooler.weight"].view(torch.int64)
    bits[0, :3] = torch.tensor([0x7FF8DEADBEEF0001, -0x000FFFFFFFFFFFF, 0x7FF0000000000000])
    source = models.write(tmp_path / "source", tuned)
    empty.put("odd", source, "--allow-nonfinite")

    empty.wvc("checkout", "--tasks", "odd", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(source)
    assert empty.manifest("odd")["nonfinite"] == 3
    assert "warning  3 non-finite values" in empty.wvc("show", "odd")


def big(seed, rows=SPAN // 4 // 1033 + 5):
    """Return tensors of which one is larger than a span, in every mergeable dtype's width that matters."""
    made = torch.Generator().manual_seed(seed)
    whole = torch.randn(rows, 1033, generator=made)
    return {"big.weight": whole, "big.bias": torch.randn(2 * SPAN // 4 + 7, generator=made), "small": whole[0].clone()}


def test_tensors_larger_than_a_span_come_back(repository, models, tmp_path):
    tensors = big(1)
    assert tensors["big.weight"].nbytes > SPAN
    repo = repository(models.write(tmp_path / "base", tensors))
    tuned = {**tensors, "big.bias": tensors["big.bias"] + 0.01, "new": big(2)["big.weight"]}
    source = models.write(tmp_path / "tuned", tuned)
    repo.put("large", source)

    repo.wvc("checkout", "--tasks", "large", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(source)
    models.assert_same(dict(repo.api().materialize(["large"])), tuned)


@pytest.mark.parametrize("side", ["the base", "this checkpoint"])
def test_a_prefix_on_one_side_is_said_recorded_and_undone(repository, models, tmp_path, side):
    base = {name: t for name, t in models.base().items() if "embeddings" in name or "encoder" in name}
    tuned = models.tuned(base, 4)
    long = {f"bert.{name}": tensor for name, tensor in (base if side == "the base" else tuned).items()}
    head = {"cls.weight": torch.ones(2, 12)}
    base, tuned = (long, tuned | head) if side == "the base" else (base, long | head)
    repo = repository(models.write(tmp_path / "base", base))
    source = models.write(tmp_path / "tuned", tuned)

    added = repo.json("add", source, "--task", "prefixed")
    repo.wvc("commit", "-m", "Add it")
    repo.wvc("checkout", "--tasks", "prefixed", "-o", tmp_path / "out")
    repo.wvc("checkout", "--tasks", "prefixed=1.5", "--method", "task_arithmetic", "-o", tmp_path / "merged")

    assert added["tensors"] == {"same": 1, "delta": 13, "added": 1, "removed": 0, "reshaped": 0, "updated": 0}
    assert added["notes"][0] == f"names matched after the prefix 'bert.' that only {side} carries"
    lines = {entry["name"]: entry for entry in repo.manifest("prefixed")["tensors"]}
    assert all(name.removeprefix("bert.") == entry["of"].removeprefix("bert.") for name, entry in lines.items()
               if "of" in entry)  # fmt: skip
    assert sum("of" in entry for entry in lines.values()) == 14
    assert "14 tensors differ from the base's names by a prefix" in repo.wvc("show", "prefixed")
    assert models.contents(tmp_path / "out") == models.contents(source)
    assert models.read(tmp_path / "merged").keys() == base.keys()
    assert models.read(tmp_path / "merged/heads/prefixed.safetensors").keys() == {"cls.weight"}


def odd_one(models):
    """Return a base, and a fine-tune with tensors that are new, missing, reshaped and of another dtype."""
    base = models.base()
    tuned = models.tuned(base, 5)
    del tuned["pooler.weight"]
    tuned["classifier.weight"] = torch.ones(3, 12)
    tuned["classifier.bias"] = torch.tensor(2.0)
    tuned["embeddings.word_embeddings.weight"] = torch.randn(41, 12)
    tuned["encoder.layer.0.attention.query.bias"] = tuned["encoder.layer.0.attention.query.bias"].half()
    return base, tuned


def test_tensors_unlike_the_bases_are_named_and_given_back(empty, models, tmp_path):
    _, tuned = odd_one(models)
    source = models.write(tmp_path / "source", tuned)

    ran = empty.run("add", source, "--task", "odd")
    empty.wvc("commit", "-m", "Add it")
    empty.wvc("checkout", "--tasks", "odd", "-o", tmp_path / "out")

    assert ran.err == (
        "note: 2 tensors that the base does not have, stored whole: classifier.bias, classifier.weight\n"
        "note: 2 tensors of another shape or dtype than the base's, stored whole and left out of merges: "
        "embeddings.word_embeddings.weight, encoder.layer.0.attention.query.bias\n"
        "note: 1 tensor of the base not in it: pooler.weight\n"
    )
    assert "2 same, 12 delta, 2 added, 1 removed, 1 reshaped, 1 retyped" in ran.out
    assert models.contents(tmp_path / "out") == models.contents(source)
    whole = {entry["name"] for entry in empty.manifest("odd")["tensors"] if entry["state"] == "whole"}
    assert whole == {
        "classifier.bias",
        "classifier.weight",
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.attention.query.bias",
    }


def test_a_merge_has_the_bases_names_and_keeps_heads_apart(two, models, tmp_path):
    base, tuned = odd_one(models)
    two.put("odd", models.write(tmp_path / "source", tuned))

    rule = ("--rule", "embeddings.word_embeddings.weight=task_arithmetic")
    done = two.json("checkout", "--method", "task_arithmetic", *rule, "-o", tmp_path / "out")

    merged = models.read(tmp_path / "out")
    assert {name: t.shape for name, t in merged.items()} == {name: t.shape for name, t in base.items()}
    assert {name: t.dtype for name, t in merged.items()} == {name: t.dtype for name, t in base.items()}
    names = [
        "classifier.bias",
        "classifier.weight",
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.attention.query.bias",
    ]
    models.assert_same(models.read(tmp_path / "out/heads/odd.safetensors"), {name: tuned[name] for name in names})
    goes = "task odd: 4 tensors that the base does not have in that shape and dtype go to heads/odd.safetensors: "
    assert done["notes"] == [f"{goes}{', '.join(names[:3])} and 1 more (-v lists them)"]
    lock = json.loads((tmp_path / "out/wvc.lock.json").read_text())
    heads = [line["name"] for line in lock["tensors"] if line["file"] == "heads/odd.safetensors"]
    assert heads == names
    assert two.json("verify", tmp_path / "out", "--replay")["ok"]


TABLE, DECODER = "embeddings.word_embeddings.weight", "decoder.weight"


def tied(models, *, broken=False, lacking=False):
    base = models.base()
    base[DECODER] = base[TABLE].clone()
    tuned = models.tuned(base, 6)
    if not broken:
        tuned[DECODER] = tuned[TABLE].clone()
    if lacking:
        del tuned[DECODER]
    return base, tuned


@pytest.mark.parametrize("case", ["kept", "broken", "lacking"])
def test_tied_weights(repository, models, tmp_path, case):
    base, tuned = tied(models, broken=case == "broken", lacking=case == "lacking")
    repo = repository(models.write(tmp_path / "base", base))
    source = models.write(tmp_path / "tuned", tuned)
    repo.put("tune", source)
    repo.put("other", models.write(tmp_path / "other", {**tied(models)[0], "logit_scale": torch.tensor(9.0)}))

    repo.wvc("checkout", "--tasks", "tune", "-o", tmp_path / "out")
    repo.wvc("checkout", "--method", "task_arithmetic", "-o", tmp_path / "merged")

    assert models.contents(tmp_path / "out") == models.contents(source)
    merged = models.read(tmp_path / "merged")
    models.assert_same({TABLE: merged[TABLE]}, {TABLE: tuned[TABLE]})
    models.assert_same({DECODER: merged[DECODER]}, {DECODER: tuned[TABLE if case == "lacking" else DECODER]})
    assert torch.equal(merged[TABLE], merged[DECODER]) == (case != "broken")


def large(seed):
    return torch.randn(256, 128, generator=torch.Generator().manual_seed(seed))


def test_equal_tensors_are_stored_once_whoever_has_them(repository, models, tmp_path):
    base = {"a": large(1), "b": large(2), "tied": large(1)}
    repo = repository(models.write(tmp_path / "base", base, files={}))
    assert len({entry["object"] for entry in json.loads((repo.path / ".wvc/base.json").read_text())["tensors"]}) == 2
    tuned = {**base, "a": large(1) + 0.01}
    repo.put("one", models.write(tmp_path / "one", tuned, files={}))
    before = repo.objects()

    again = repo.put("two", tmp_path / "one")

    assert repo.objects() == before
    assert again["tensors"] == {"same": 2, "delta": 1, "added": 0, "removed": 0, "reshaped": 0, "updated": 0}


def test_unchanged_tensors_store_nothing(empty, templates):
    before = empty.objects()

    added = empty.put("copy", templates.base)

    assert (added["tensors"]["same"], added["stored_bytes"]) == (17, 0)
    assert empty.objects() == before


def test_a_checkout_can_be_added_as_a_task(two, models, tmp_path):
    two.wvc("checkout", "--tasks", "alpha,beta=0.5", "-o", tmp_path / "merged")
    two.put("merged", tmp_path / "merged")

    two.wvc("checkout", "--tasks", "merged=1.0", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "merged")
    assert "wvc.lock.json" not in two.json("show", "merged")["files"]


def test_links_to_files_come_back_as_files(empty, models, templates, tmp_path):
    for name, data in models.contents(templates.alpha).items():
        (tmp_path / "blobs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "blobs" / name).write_bytes(data)
        (tmp_path / "snapshot" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    empty.put("linked", tmp_path / "snapshot")

    empty.wvc("checkout", "--tasks", "linked", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_names_are_no_paths(empty, models, tmp_path):
    names = [
        "../../x",
        "/etc/passwd",
        "C:\\x",
        "a/b/c",
        "\u00fc",
        "u\u0308",
        "\u202eevil",
        " ",
        "heads/x",
        "__metadata",
    ]
    tuned = models.base() | {name: torch.full((2,), n + 0.5) for n, name in enumerate(names)}
    source = models.write(tmp_path / "source", tuned, files={"a b.txt": "1", "\u00fc/\u202e.json": "2", "-rf": "3"})
    empty.put("odd", source)

    empty.wvc("checkout", "--tasks", "odd", "-o", tmp_path / "out")
    empty.wvc("checkout", "--tasks", "odd=0.5", "-o", tmp_path / "merged")

    assert models.contents(tmp_path / "out") == models.contents(source)
    assert models.read(tmp_path / "merged/heads/odd.safetensors").keys() == set(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "out", "repo", "source"]
