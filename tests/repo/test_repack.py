"""Storing tasks anew: other bytes in the store, the same everywhere else."""

import json
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from weightvc.delta import codec as codecs
from weightvc.delta.raw import Raw
from weightvc.objects.ids import Digest
from weightvc.objects.manifest import Manifest
from weightvc.repo import pieces, repack, stage
from weightvc.repo.decode import SPAN
from weightvc.util.progress import Silent

PLACE = ("codec", "object", "size", "part")


def placeless(manifest):
    lists = ("tensors", "files", "headers")
    return manifest | {
        name: [{k: v for k, v in entry.items() if k not in PLACE} for entry in manifest[name]] for name in lists
    }


def codecs_of(repo, task):
    return {entry["codec"] for entry in repo.manifest(task)["tensors"] if "codec" in entry}


@pytest.fixture
def loose(two, templates):
    """Alpha as raw bytes, and beta as small as it gets."""
    two.wvc("repack")
    two.json("commit", "-m", "Smaller")
    two.put("alpha", templates.alpha, "--codec", "raw")
    return two


@pytest.fixture
def broad(models, repository, tmp_path):
    """A task of one tensor that no thread holds whole, one of more than a bundle takes, a new one, and small ones."""
    made = torch.Generator().manual_seed(3)
    base = {
        "wide": torch.randn(SPAN // 2048 + 9, 1024, generator=made),
        "middle": torch.randn(pieces.SMALL // 2, generator=made),
        "small": torch.randn(30, generator=made),
        "none": torch.empty(0, 3),
    }
    tuned = models.tuned(base, 1) | {"head": torch.ones(pieces.SMALL // 2), "tip": torch.ones(3)}
    repo = repository(models.write(tmp_path / "base", base), name="broad")
    repo.put("x", models.write(tmp_path / "x", tuned), "--level", "fast")
    return repo


def test_a_task_is_stored_smaller_and_is_the_same(loose, models, templates, tmp_path):
    before = loose.manifest("alpha")
    loose.wvc("checkout", "-o", tmp_path / "merged")
    small = next(t["stored_bytes"] for t in loose.json("show", "HEAD~1")["tasks"] if t["task"] == "alpha")

    done = loose.json("repack")

    (alpha, beta) = done["tasks"]
    assert (alpha["task"], beta["task"], done["staged"]) == ("alpha", "beta", ["alpha"])
    assert alpha["bytes"] == 6404
    assert alpha["after_bytes"] <= small < alpha["before_bytes"]
    assert beta["after_bytes"] == beta["before_bytes"]
    assert loose.json("status")["staged"] == {".wvc/tasks/alpha.json": "stored"}
    assert "  stored anew:  alpha\n" in loose.wvc("status")
    loose.json("commit", "-m", "Smaller")
    after = loose.manifest("alpha")
    assert after != before
    assert placeless(after) == placeless(before)
    assert (
        sum(entry.get("size", 0) for name in ("tensors", "files", "headers") for entry in after[name])
        == (alpha["after_bytes"])
    )
    loose.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)
    assert loose.json("verify", tmp_path / "merged", "--replay")["ok"]
    assert loose.json("fsck", "--full")["ok"]
    assert all(directory["state"] == "current" for directory in loose.json("status")["directories"])


def test_the_log_says_so(loose):
    loose.wvc("repack", "alpha")
    loose.json("commit", "-m", "Smaller")

    assert loose.wvc("log", "--limit", "2").splitlines()[0].endswith("  Smaller  ~alpha (stored anew)")
    line = loose.json("log", "alpha")["commits"][0]
    assert (line["changed"], line["stored"]) == ([], ["alpha"])
    assert "\nstored anew: alpha\n" in loose.wvc("show", "HEAD")


def test_what_people_read(loose):
    text = loose.wvc("repack", "beta", "alpha", "beta")

    first, same, last = text.splitlines()
    assert first.startswith("staged task alpha, stored anew in ")
    assert first.endswith(" KiB before")
    assert same == "nothing changes for beta"
    assert last == "earlier commits keep the old encodings, so the store holds both; now run `wvc commit -m MESSAGE`"


def test_without_anything_to_gain_nothing_is_staged(loose):
    loose.wvc("repack")
    loose.json("commit", "-m", "Smaller")
    before = loose.everything()

    assert loose.wvc("repack") == "nothing is staged: no task would get half a percent smaller\n"
    assert loose.json("repack")["staged"] == []
    changed = {name for name, data in loose.everything().items() if before.get(name) != data}
    assert changed <= {".git/wvc/stage.lock", ".git/wvc/tmp"}


def test_a_codec_or_a_level_is_used_whatever_the_size(two, broad):
    done = two.json("repack", "beta", "--codec", "raw")
    assert done["staged"] == ["beta"]
    assert done["tasks"][0]["after_bytes"] > done["tasks"][0]["before_bytes"]
    two.json("commit", "-m", "Raw")
    assert codecs_of(two, "beta") == {"raw"}
    assert two.wvc("repack", "beta", "--codec", "raw") == "nothing is staged: all is stored so already\n"

    assert broad.wvc("repack", "--level", "fast") == "nothing is staged: all is stored so already\n"
    assert broad.json("repack", "--level", "best")["staged"] == ["x"]
    broad.json("commit", "-m", "Best")
    assert codecs_of(broad, "x") == {"intdelta", "full"}


def test_no_tasks(empty):
    assert empty.wvc("repack") == "no tasks yet; add one with `wvc add PATH --task NAME`\n"


@pytest.mark.parametrize("jobs", [1, 3])
def test_large_tensors_pass_through_scratch_files(broad, models, tmp_path, jobs):
    before = broad.manifest("x")

    raw = broad.json("repack", "--codec", "raw", "--jobs", jobs)["tasks"][0]
    broad.json("commit", "-m", "Raw")
    assert codecs_of(broad, "x") == {"raw"}
    best = broad.json("repack", "--jobs", jobs)["tasks"][0]
    broad.json("commit", "-m", "Best")

    assert placeless(broad.manifest("x")) == placeless(before)
    assert best["after_bytes"] < raw["before_bytes"] < raw["after_bytes"] == best["before_bytes"]
    assert list((broad.path / ".git/wvc/tmp").iterdir()) == []
    broad.wvc("checkout", "--tasks", "x", "-o", tmp_path / "out")
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "x")
    assert broad.json("fsck", "--full")["ok"]


def test_a_dry_run_says_the_same_and_writes_nothing(loose):
    before = loose.everything()

    dry = loose.json("repack", "-n", "--codec", "full")
    text = loose.wvc("repack", "-n").splitlines()

    assert loose.everything() == before
    done = loose.json("repack", "--codec", "full")
    assert (dry["tasks"], dry["staged"]) == (done["tasks"], [])
    assert done["staged"] == ["alpha", "beta"]
    assert text[0].startswith("would store task alpha anew in ")
    assert text[1].startswith("task beta would stay as large as it is, ")
    assert len(text) == 2


def test_old_revisions_keep_their_encodings(loose, models, templates, tmp_path):
    loose.json("repack")
    loose.json("commit", "-m", "Smaller")

    loose.wvc("checkout", "HEAD~1", "--tasks", "alpha", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)


def test_progress_counts_what_is_stored(two):
    class Counting(Silent):
        stages: ClassVar = []
        done = 0

        def stage(self, label, total):
            self.stages.append((label, total))
            return super().stage(label, total)

        def advance(self, nbytes):
            self.done += nbytes

    progress = Counting()
    two.api().repack(["beta"], jobs=1, progress=progress)

    stored = [entry for name in ("tensors", "files") for entry in two.manifest("beta")[name] if "object" in entry]
    assert len(stored) == 13
    assert progress.stages == [("Repacking task beta", progress.done)]


def test_a_task_of_which_something_is_staged_is_refused(loose, refused, templates):
    loose.wvc("add", templates.beta, "--task", "alpha")
    loose.wvc("add", templates.beta, "--task", "new")

    says = "wvc: something is staged for alpha, and would be lost\n"
    hint = "commit it with `wvc commit -m MESSAGE`, or take it back with `wvc unstage alpha`\n"
    refused(loose, 3, "repack", says=says, hint=hint)
    refused(loose, 3, "repack", "beta", "alpha", "-n", says=says, hint=hint)
    refused(loose, 3, "repack", "new", says="something is staged for new")
    assert loose.json("repack", "beta", "--codec", "raw")["staged"] == ["beta"]


def test_an_unknown_task_and_codec(two, refused):
    refused(two, 3, "repack", "alpa", says="no task 'alpa' at", hint="did you mean alpha? run `wvc status`")
    refused(two, 3, "repack", "--codec", "zip", says="codec 'zip' is unknown")
    assert two.run("repack", "--level", "worst").code == 2


def test_a_missing_and_a_damaged_object(two, refused):
    entry = next(entry for entry in two.manifest("beta")["tensors"] if "object" in entry)
    file = two.object_file(entry["object"])
    data = file.read_bytes()

    file.chmod(0o644)
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(two, 4, "repack", "beta", says="object ", hint="run `wvc fsck --full`")
    file.unlink()
    refused(two, 4, "repack", "beta", says=f"object {entry['object']} is not in the store", hint="`wvc fetch` brings")


def test_a_tensor_that_has_not_its_digest(two, refused):
    path = two.path / ".wvc/tasks/beta.json"
    manifest = Manifest.from_bytes(path.read_bytes(), "beta")
    zero = Digest("0" * 64)
    lies = [replace(entry, digest=zero) if entry.state == "delta" else entry for entry in manifest.tensors]
    wrong = replace(manifest, tensors=tuple(lies))
    path.write_bytes(wrong.to_bytes())
    two.git("commit", "-qam", "Lies")

    refused(two, 4, "repack", "beta", says="its bytes do not have the digest that its manifest states")


def test_a_codec_that_loses_something_is_refused(broad, monkeypatch):
    class Lossy(Raw):
        name = "lossy"

        def encode_chunk(self, index, target, base):
            return bytes(target.nbytes)

    monkeypatch.setitem(codecs.CODECS, "lossy", Lossy)
    monkeypatch.setattr("weightvc.delta.container.frame", unchecked(codecs.CODECS))
    ran = broad.run("repack", "--codec", "lossy", "--jobs", "1")

    assert ran.code == 3, ran.err
    assert "wvc: codec lossy does not give wide back\nhint: name another codec\n" in ran.err
    assert broad.json("status")["staged"] == {}


def test_a_lossy_codec_is_refused_at_once(two, refused):
    refused(
        two, 2, "repack", "--codec", "int4", says="codec int4 is lossy, and a task that is stored anew keeps every bit",
        hint="add the fine-tune again with `wvc add PATH --task NAME --codec int4`",
    )  # fmt: skip


def unchecked(_codecs):
    """Frames whose checksums are those of the bodies: of a codec that is lossy, and decodes without an error."""
    import xxhash

    from weightvc.delta import container

    return lambda body, _raw: container._FRAME.pack(len(body), xxhash.xxh3_64_intdigest(body)) + body


def test_a_task_that_changes_meanwhile_is_not_overwritten(loose, templates, monkeypatch):
    settle = pieces.settle

    def settling(*arguments):
        monkeypatch.setattr(pieces, "settle", settle)
        loose.put("alpha", templates.beta)
        return settle(*arguments)

    monkeypatch.setattr(pieces, "settle", settling)
    ran = loose.run("repack", "alpha")

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "wvc: alpha changed meanwhile; nothing was staged\nhint: run the command again\n"
    assert loose.json("status")["staged"] == {}


def test_all_is_staged_or_nothing(two, monkeypatch):
    put = stage.put

    def failing(repo, path, data):
        if "beta" in path:
            raise KeyboardInterrupt
        put(repo, path, data)

    monkeypatch.setattr(stage, "put", failing)

    assert two.run("repack", "--codec", "raw").code == 130
    assert two.json("status")["staged"] == {}


def test_the_result_of_the_library(loose):
    done = loose.api().repack(["alpha"], jobs=1)

    assert isinstance(done, repack.Repacked)
    assert done.staged == ("alpha",)
    staged = json.loads(loose.staged("tasks/alpha.json"))
    assert placeless(staged) == placeless(loose.manifest("alpha"))
