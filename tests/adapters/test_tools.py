"""What other commands make of adapters."""

import json
import math
import sys

import pytest
import torch
from lora import BASE, factors, normal, pair, product, write


def test_diff_show_and_the_norm_agree_with_the_factors(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8) | pair("tail", 700, 900)
    source = write(tmp_path / "lora", tensors)
    added = repo.put("lora", source)
    floats = [tensor.double() for tensor in BASE.values() if tensor.is_floating_point()]
    held = math.sqrt(sum(float((tensor**2).sum()) for tensor in floats))
    moved = math.sqrt(sum(float(product(*factors(tensors, m)).norm() ** 2) for m in ("h.0.q", "tail")))

    for other in ("lora", source, "HEAD"):
        row = repo.json("diff", other)
        assert row["total"]["norm_a"] == pytest.approx(3.0 * moved / held, rel=1e-6)
        assert (row["total"]["changed_a"], row["apart"]) == (2, 0)
    assert repo.json("diff", "lora", source)["total"]["differing"] == 0
    assert added["relative_norm"] == pytest.approx(3.0 * moved / held, rel=0.2)
    assert repo.json("show", "lora")["updates"] == {"2": 2}
    assert "adapter  updates 2 tensors by rank 2" in repo.wvc("show", "lora")


def test_the_same_factors_at_another_scale_are_another_version(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    first = repo.put("lora", write(tmp_path / "lora", tensors))

    again = repo.json("add", write(tmp_path / "again", tensors, lora_alpha=12), "--task", "lora")

    assert again["change"] == "version"
    assert again["manifest"] != first["manifest"]


def test_factors_stay_exact_under_a_lossy_codec(repo, models, tmp_path):
    source = write(tmp_path / "lora", pair("tail", 700, 900) | {"base_model.model.h.0.q.weight": normal(8, 8, seed=9)})

    repo.put("lora", source, "--codec", "int8")
    lossy = {line["name"] for line in repo.manifest("lora")["tensors"] if "lossy" in line}
    repo.wvc("checkout", "--tasks", "lora", "-o", tmp_path / "out")

    assert lossy <= {"base_model.model.h.0.q.weight"}
    got, wanted = (models.read(path) for path in (tmp_path / "out", source))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted if "lora_" in name)


def test_estimates_dry_runs_and_another_encoding(repo, models, tmp_path):
    source = write(tmp_path / "lora", pair("tail", 700, 900))

    planned = repo.json("add", source, "--task", "lora", "--dry-run")
    estimated = repo.json("add", source, "--task", "lora", "--estimate")
    repo.put("lora", source)
    repo.wvc("repack", "lora", "--codec", "raw")
    repo.wvc("commit", "-m", "Raw")
    peak = repo.json("checkout", "--tasks", "lora", "--dtype", "F32", "-o", tmp_path / "no", "--dry-run")["peak_bytes"]
    repo.wvc("checkout", "--tasks", "lora", "-o", tmp_path / "out")

    assert planned["tensors"]["updated"] == 1
    assert estimated["bytes"] == 4 * 2 * (700 + 900)
    assert peak > repo.json("checkout", "--tasks", "", "-o", tmp_path / "no", "--dry-run")["peak_bytes"]
    assert models.contents(tmp_path / "out") == models.contents(source)
    repo.wvc("fsck", "--full")


SCORER = """
import sys
from safetensors.torch import load_file

print(float(load_file(sys.argv[1] + "/model.safetensors")["h.0.q.weight"].double().sum()))
"""


def test_an_evaluator_gets_the_adapter_merged_into_the_base(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8)
    (tmp_path / "score.py").write_text(SCORER)

    evaluator = f"{sys.executable} {tmp_path / 'score.py'}"
    done = repo.json("add", write(tmp_path / "lora", tensors), "--task", "lora", "--eval", evaluator)

    before, moved = BASE["h.0.q.weight"].double(), 3.0 * product(*tensors.values())
    score = done["scores"]["score"]
    assert score["base"] == pytest.approx(float(before.sum()))
    assert score["tuned"] == pytest.approx(float((before + moved).sum()), rel=1e-5)
    assert score["stored"] == score["tuned"]


def test_ranks_beyond_the_matrix_are_measured_without_their_gram_matrix(repo, tmp_path):
    tensors = pair("h.0.q", 8, 8, rank=4000)
    small = {name: 0.05 * factor for name, factor in tensors.items()}

    added = repo.put("lora", write(tmp_path / "lora", small, r=4000))
    row = repo.json("diff", "lora")["total"]

    assert added["relative_norm"] == pytest.approx(row["norm_a"], rel=0.2)


def test_a_dry_run_counts_the_factors_that_it_reads(repo, tmp_path):
    repo.put("lora", write(tmp_path / "lora", pair("h.0.q", 8, 8)))

    lines = {line["name"]: line for line in repo.json("checkout", "-n", "--tasks", "lora=0.5")["plan"]}

    places = {line["name"]: line["size"] for line in repo.manifest("lora")["tensors"]}
    base = {line["name"]: line["size"] for line in json.loads((repo.path / ".wvc/base.json").read_text())["tensors"]}
    name = "h.0.q.weight"
    assert lines[name]["read_bytes"] == base[name] + sum(places.values())
    assert (lines[name]["why"], lines[name]["tasks"]) == ("changed by one task", ["lora"])
