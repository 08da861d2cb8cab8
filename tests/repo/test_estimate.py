"""What a fine-tune would take in the store, said from a sample of it."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from weightvc.delta import codec as codecs
from weightvc.delta.codec import CHUNK
from weightvc.delta.raw import Raw
from weightvc.objects.tensors import TensorSpec
from weightvc.repo import estimate, pieces
from weightvc.repo.snapshot import Item

ROWS = [("intdelta", "fast"), ("intdelta", "default"), ("intdelta", "best"), ("raw", "default")]


def told(repo, path, *options):
    found = repo.json("add", path, "--task", "x", "--estimate", *options)
    return found, {(line["codec"], line["level"]): line for line in found["estimates"]}


def stored(repo, path, codec, level):
    return repo.json("add", path, "--task", "x", "--codec", codec, "--level", level)["stored_bytes"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, sandbox, wvc):
    """A model of 20 MB of all kinds: dense and sparse changes, a merged LoRA, decay, BF16, frozen, new, small."""
    root = tmp_path_factory.mktemp("mixed")
    made = torch.Generator().manual_seed(5)
    base, tuned = {}, {}

    def put(name, before, after):
        base[name], tuned[name] = before, after

    for n in range(4):
        start = 0.05 * torch.randn(512, 768, generator=made)
        put(f"{n}.dense", start, start + 0.001 * torch.randn(512, 768, generator=made))
        put(f"{n}.frozen", start.clone(), start.clone())
        low = torch.randn(512, 4, generator=made) @ torch.randn(4, 768, generator=made)
        put(f"{n}.lora", start + 0, start + 0.001 * low)
        half = start.bfloat16()
        put(f"{n}.half", half, (half.float() + 0.002 * torch.randn(512, 768, generator=made)).bfloat16())
        put(f"{n}.norm", torch.ones(768), torch.ones(768) + 0.01 * torch.randn(768, generator=made))
    table = 0.05 * torch.randn(3000, 768, generator=made)
    rows = table.clone()
    rows[100:160] += 0.001 * torch.randn(60, 768, generator=made)
    put("table", table, rows)
    tuned["head"] = torch.randn(700, 768, generator=made)
    for name, tensors in (("base", base), ("tuned", tuned)):
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors")
    assert wvc("init", root / "repo", "--base", root / "base").code == 0
    return sandbox(root / "repo"), root / "tuned"


def test_an_estimate_is_near_what_is_stored(mixed, monkeypatch):
    repo, tuned = mixed
    monkeypatch.setattr(estimate, "CHUNKS", 24)
    before = repo.everything()

    found, lines = told(repo, tuned)

    assert repo.everything() == before
    assert (found["schema"], found["task"], [*lines]) == ("weightvc/estimate/1", "x", ROWS)
    assert found["bytes"] > 25 * 10**6
    assert found["sampled_bytes"] <= (24 + 3) * CHUNK
    for (codec, level), line in lines.items():
        assert line["stored_bytes"] == pytest.approx(stored(repo, tuned, codec, level), rel=0.1), level
        assert line["ratio"] == pytest.approx(line["stored_bytes"] / found["bytes"])
        assert line["encode_mb_s"] > 0
    again = told(repo, tuned)[1]
    assert [line["stored_bytes"] for line in again.values()] == [line["stored_bytes"] for line in lines.values()]


def test_a_small_model_is_encoded_whole(two, models, templates, tmp_path):
    found, lines = told(two, templates.alpha, "--codec", "full")

    assert found["bytes"] == 6404
    assert [*lines] == [*ROWS[:3], ("full", "default"), ROWS[3]]
    for (codec, level), line in lines.items():
        assert line["stored_bytes"] == stored(two, templates.alpha, codec, level)
    small = models.write(tmp_path / "x", models.base(), files={})
    assert {line["stored_bytes"] for line in told(two, small)[1].values()} == {0}
    assert told(two, small)[0]["sampled_bytes"] == 0


def test_a_tensor_that_is_there_twice_is_stored_once(two, models, tmp_path):
    twin = torch.randn(pieces.SMALL)
    path = models.write(tmp_path / "x", models.base() | {"one": twin, "other": twin.clone()}, files={})

    for (codec, level), line in told(two, path)[1].items():
        assert line["stored_bytes"] == stored(two, path, codec, level)
        assert line["stored_bytes"] < 1.2 * twin.nbytes


def test_what_people_read(two, templates):
    first, head, *rows = two.wvc("add", templates.beta, "--task", "x", "--estimate").splitlines()

    assert first.startswith("task x: 6.3 KiB, of which ")
    assert head.split() == ["CODEC", "LEVEL", "STORED", "RATIO", "MB/S", "OF", "ONE", "THREAD"]
    assert [tuple(row.split()[:2]) for row in rows] == ROWS
    assert all(row.split()[5] == "%" for row in rows)


def test_what_add_refuses_is_refused(two, refused, models, templates, tmp_path):
    other = models.write(tmp_path / "other", models.base(99))
    options = ("--task", "x", "--estimate")

    refused(two, 3, "add", other, *options, says="times as large as the base itself")
    refused(two, 3, "add", tmp_path / "none", *options, says="no such file or directory")
    refused(two, 3, "add", templates.alpha, "--task", "A", "--estimate", says="cannot name a task")
    refused(two, 3, "add", templates.alpha, *options, "--codec", "zip", says="codec 'zip' is unknown")
    assert two.json("add", other, *options, "--force-base")["bytes"] == 6404


def test_a_codec_of_another_package_is_tried_when_it_is_named(two, templates, monkeypatch):
    class Other(Raw):
        name = "other"

    monkeypatch.setattr("weightvc.util.plugins.load", lambda _group, _name: Other)

    lines = told(two, templates.alpha, "--codec", "other")[1]

    assert [key for key in lines if key not in ROWS] == [("other", level) for level in estimate.LEVELS]
    assert "other" not in codecs.CODECS


def test_a_lossy_codec_is_tried_when_it_is_named(mixed):
    repo, tuned = mixed

    lines = told(repo, tuned, "--codec", "int4")[1]

    assert [key for key, line in lines.items() if line["lossy"]] == [("int4", level) for level in estimate.LEVELS]
    want = stored(repo, tuned, "int4", "default")
    assert lines["int4", "default"]["stored_bytes"] == pytest.approx(want, rel=0.1)


def test_each_kind_of_tensor_is_drawn():
    specs = [("big", "F32", (200, CHUNK)), ("half", "BF16", (3, CHUNK)), ("tiny", "I64", (5,))]
    items = [Item("tensors", TensorSpec(*spec), None) for spec in specs]

    drawn = {one.item.spec.name: one.stands for one in estimate._draw(items)}

    assert {name: len(stands) for name, stands in drawn.items()} == {"big": 64, "half": 1, "tiny": 1}
    assert [sum(stands.values()) for stands in drawn.values()] == [item.spec.nbytes for item in items]


def test_chunks_are_drawn_evenly_by_bytes():
    items = [Item("tensors", TensorSpec(f"t{n}", "U8", ((n % 7 + 1) * CHUNK // 3,)), None) for n in range(300)]
    total = sum(item.spec.nbytes for item in items)

    drawn = estimate._draw(items)

    assert drawn == estimate._draw(items)
    assert sum(sum(one.stands.values()) for one in drawn) == pytest.approx(total)
    assert sum(len(one.stands) for one in drawn) == estimate.CHUNKS
    assert all(0 <= at * CHUNK < one.item.spec.nbytes for one in drawn for at in one.stands)
    assert estimate._draw([]) == estimate._draw([Item("tensors", TensorSpec("e", "U8", (0,)), None)]) == []
    few = estimate._draw(items[:30])
    assert [sum(one.stands.values()) for one in few] == [item.spec.nbytes for item in items[:30]]


def test_the_result_of_the_library(two, templates):
    found = two.api().estimate(templates.alpha, "x", jobs=1)

    assert [(line.codec, line.level) for line in found.estimates] == ROWS
    assert dataclasses.asdict(found)["task"] == "x"
