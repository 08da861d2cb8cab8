"""How a checkpoint's tensors become objects."""

import json

import pytest
import torch

from weightvc.objects.manifest import Manifest
from weightvc.repo import pieces, snapshot
from weightvc.util.progress import Silent


def entries(repo, task, section="tensors"):
    return {entry["name"]: entry for entry in repo.manifest(task)[section]}


def test_small_tensors_share_bundles_and_large_ones_do_not(empty, models, tmp_path):
    edge = pieces.SMALL // 4
    tensors = {"small": torch.ones(edge), "large": torch.ones(edge + 1), "tiny": torch.ones(1)}
    empty.put("x", models.write(tmp_path / "x", models.base() | tensors))

    found = entries(empty, "x")

    assert "part" not in found["large"]
    assert found["small"]["object"] == found["tiny"]["object"] != found["large"]["object"]
    assert found["small"]["part"] != found["tiny"]["part"]


def test_bundles_are_closed_when_they_are_full(empty, models, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "BUNDLE", 1000)
    empty.put("x", models.write(tmp_path / "x", {f"t{n:02}": torch.randn(64) for n in range(20)} | models.base()))
    empty.wvc("checkout", "--tasks", "x", "-o", tmp_path / "out")

    objects = [entry["object"] for entry in entries(empty, "x").values() if "object" in entry]

    assert 4 <= len(set(objects)) <= 8
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "x")
    assert empty.json("fsck", "--full")["ok"]


def test_files_and_headers_that_equal_the_bases_are_not_stored(two):
    assert {e["state"] for e in entries(two, "alpha", "headers").values()} == {"same"}
    files = entries(two, "alpha", "files")
    assert {name for name, entry in files.items() if entry["state"] != "same"} == {"README.md"}


def test_the_header_is_kept_as_it_stands_in_the_file(two, templates):
    data = (templates.base / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")

    (header,) = json.loads((two.path / ".wvc/base.json").read_text())["headers"]

    assert (header["name"], header["dtype"], header["shape"]) == ("model.safetensors", "U8", [length])


def test_progress_counts_every_byte_that_is_read_for_a_stage(two, models, templates):
    """All while it is checked; while it is stored, what differs from the base."""
    from weightvc.repo import add

    class Counting(Silent):
        def __init__(self):
            self.stages = []
            self.done = 0

        def stage(self, label, total):
            self.stages.append((label, total))
            return super().stage(label, total)

        def advance(self, nbytes):
            self.done += nbytes

    progress = Counting()
    add.add(two.api(), templates.alpha, "x", add.Options(), progress)

    (checking, everything), (storing, moved) = progress.stages
    assert (checking, everything) == ("Checking task x", sum(map(len, models.contents(templates.alpha).values())))
    staged = Manifest.from_bytes(two.staged("tasks/x.json"), "x")
    assert (storing, moved) == ("Storing task x", sum(e.spec.nbytes for e in staged.entries() if e.state != "same"))
    assert 0 < moved < everything
    assert progress.done == everything + moved


def test_the_number_of_threads_changes_nothing_that_is_stored(two, templates):
    one = two.json("add", templates.alpha, "--task", "one", "--jobs", "1")
    first = two.objects()
    two.json("add", templates.alpha, "--task", "two", "--jobs", "4")

    assert two.objects() == first
    assert one["stored_bytes"] == next(t for t in two.json("status")["tasks"] if t["task"] == "alpha")["stored_bytes"]


def test_codecs_give_other_bytes_and_the_same_version(two, templates):
    plain = two.json("add", templates.alpha, "--task", "raw", "--codec", "raw")

    assert plain["manifest"] == two.manifest("alpha")["version"]
    assert plain["stored_bytes"] > plain["bytes"]


@pytest.mark.parametrize("name", ["encoder.layer.0.attention.query.weight", "large", "README.md"])
def test_a_checkpoint_that_is_rewritten_while_it_is_read_is_refused(two, models, tmp_path, monkeypatch, name):
    path = models.write(tmp_path / "x", models.tuned(models.base(), 9) | {"large": torch.ones(pieces.SMALL)})
    (path / "README.md").write_text("before")
    encode = snapshot.encode

    def rewriting(spec, data, *more):
        """Hand the encoder other bytes than those that were hashed, as a writer of the mapped file would."""
        if spec.name == name:
            file = path / ("README.md" if name == "README.md" else "model.safetensors")
            with file.open("r+b") as held:
                held.seek(file.read_bytes().index(bytes(data)))
                held.write(bytes([data[0] ^ 1]))
        return encode(spec, data, *more)

    monkeypatch.setattr(snapshot, "encode", rewriting)
    ran = two.run("add", path, "--task", "x")

    assert (ran.code, ran.out) == (3, "")
    assert f"{path}: {name} changed while it was being read\n" in ran.err
    assert "hint: let the program that writes the checkpoint finish, then run the command again" in ran.err
    assert two.json("status")["staged"] == {}


@pytest.mark.parametrize("how", ["in place", "renamed", "gone"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_checkpoint_that_is_rewritten_between_two_tensors_is_refused(
    two, models, tmp_path, monkeypatch, *, how, kind
):
    shards = 2 if how != "gone" else 1
    path = models.write(tmp_path / "tuned", models.tuned(models.base(), 1), shards=shards, kind=kind)
    other = models.write(tmp_path / "other", models.tuned(models.base(), 2), shards=shards, kind=kind)
    shard = max(path.glob(f"*.{kind}"))
    take = snapshot._Taker.__call__
    done = []

    def taking(self, item):
        piece = take(self, item)
        done.append(item)
        if len(done) == 3:
            if how == "in place":
                shard.write_bytes((other / shard.name).read_bytes())
            elif how == "renamed":
                (other / shard.name).rename(shard)
            else:
                shard.unlink()
        return piece

    monkeypatch.setattr(snapshot._Taker, "__call__", taking)
    before = two.everything()
    ran = two.run("add", path, "--task", "new", "--jobs", "1")

    assert (ran.code, ran.out) == (3, "")
    early = f"wvc: {path}: encoder.layer.0.attention.query.bias changed while it was being read\n"
    late = f"wvc: {shard}: changed while it was read; nothing was staged\n"
    assert (early if how == "in place" else late) in ran.err
    assert "finish, then run the command again\n" in ran.err
    now = two.everything()
    assert {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)} <= {
        name for name in now if name.startswith(".git/wvc/objects")
    }
