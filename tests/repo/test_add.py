"""Adding fine-tunes: what is counted, named and refused."""

import json
import math
import os
import pickle
import struct
from datetime import UTC, datetime

import pytest
import torch
from safetensors.torch import save, save_file

from weightvc.repo import add as adds


def raw(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


BAD = {
    "empty.safetensors": (b"", "0 bytes, too short for a safetensors file"),
    "text.safetensors": (b"hello, this is no model" * 9, "more than the limit"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer"),
    "zip.safetensors": (b"PK\x03\x04" + b"\xff" * 99, "a zip archive, not safetensors"),
    "long.safetensors": (struct.pack("<Q", 2**63) + b"{}", "a header of 9223372036854775808 bytes"),
    "lies.safetensors": (raw({"a": ENTRY | {"shape": [3]}}, bytes(8)), "has 8 bytes where its dtype and shape need 12"),
    "hole.safetensors": (raw({"a": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)), "leaves a hole of 4 bytes"),
    "tail.safetensors": (raw({"a": ENTRY}, bytes(9)), "1 bytes after the last tensor"),
    "short.safetensors": (raw({"a": ENTRY}, bytes(7)), "bytes where its header needs"),
    "twice.safetensors": (
        raw(b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8)),
        "duplicate name 'a'",
    ),
    "space.safetensors": (raw(b' {"a":%s}' % json.dumps(ENTRY).encode(), bytes(8)), "does not start with '{'"),
    "nothing.safetensors": (raw({}), "a checkpoint with no tensors"),
    "name.safetensors": (raw({"a\x1b[2J": ENTRY}, bytes(8)), "a name holds no control characters"),
    "code.bin": (pickle.dumps({"a": Evil()}), "holds code or objects other than tensors"),
    "junk.pt": (b"junk", "junk.pt: PyTorch cannot read it"),
    "model.onnx": (b"onnx", "not a .safetensors, .bin, .pt or .pth file"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_checkpoints_are_refused(two, refused, tmp_path, name, capfd):
    data, says = BAD[name]
    (tmp_path / name).write_bytes(data)

    refused(two, 3, "add", tmp_path / name, "--task", "bad", says=says)

    assert "code ran" not in "".join(capfd.readouterr())


def test_a_truncated_file_is_refused(two, refused, templates, tmp_path):
    whole = (templates.alpha / "model.safetensors").read_bytes()
    for cut in (3, 100, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:cut])
        refused(two, 3, "add", tmp_path / "cut.safetensors", "--task", "cut", says="cut.safetensors: ")


def test_a_path_that_is_not_there(two, refused, tmp_path):
    refused(two, 3, "add", tmp_path / "no", "--task", "x", says="no such file or directory", hint="check the path")


def test_directories_that_are_no_models(two, refused, models, tmp_path):
    (tmp_path / "none").mkdir()
    refused(two, 3, "add", tmp_path / "none", "--task", "x", says="no .safetensors, .bin, .pt or .pth weights")
    (tmp_path / "none/adapter_config.json").write_text("{}")
    refused(two, 3, "add", tmp_path / "none", "--task", "x", says="adapter_config.json without adapter_model.saf")
    sharded = models.write(tmp_path / "sharded", models.base(), shards=2)
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(two, 3, "add", sharded, "--task", "x", says="its shard model-00002-of-00002.safetensors is missing")


def test_another_model_of_this_architecture_is_refused_unless_forced(two, refused, models, tmp_path):
    other = models.write(tmp_path / "other", models.base(99))

    ran = refused(
        two, 3, "add", other, "--task", "x", says="times as large as the base itself",
        hint="check that PATH is a fine-tune of this repository's base, or pass --force-base",
    )  # fmt: skip
    added = two.put("x", other, "--force-base")

    assert 1.3 < added["relative_norm"] < 1.5
    assert f"the task vector is {added['relative_norm']:.2f} times" in ran.err


def test_a_model_without_one_name_of_the_base_is_refused(two, refused, tmp_path):
    save_file({"unheard.of": torch.ones(3)}, tmp_path / "other.safetensors")

    refused(
        two, 3, "add", tmp_path / "other.safetensors", "--task", "x", says="not one tensor has a name that the base"
    )


def test_the_relative_norm_is_that_of_the_task_vector(two, models, templates):
    base, tuned = models.base(), models.read(templates.alpha)
    floats = [name for name, tensor in base.items() if tensor.is_floating_point()]
    moved = sum(((tuned[name].double() - base[name].double()) ** 2).sum() for name in floats)
    held = sum((base[name].double() ** 2).sum() for name in floats)

    added = two.json("add", templates.alpha, "--task", "again")

    assert added["relative_norm"] == pytest.approx(float((moved / held) ** 0.5), rel=1e-9)
    assert added["relative_norm"] == pytest.approx(0.05, rel=0.1)


def test_there_is_no_relative_norm_without_floats(repository, tmp_path):
    save_file({"n": torch.arange(4), "e": torch.empty(0)}, tmp_path / "base.safetensors")
    save_file({"n": torch.arange(4) + 1, "e": torch.empty(0)}, tmp_path / "tuned.safetensors")

    ran = repository(tmp_path / "base.safetensors").run("add", tmp_path / "tuned.safetensors", "--task", "x")

    assert ran.out.startswith("staged task x: 1 same, 1 delta\n")


@pytest.mark.parametrize("values", [[float("nan")], [float("inf")], [-float("inf"), 1.0, float("nan"), float("nan")]])
def test_values_that_are_not_finite_are_refused(two, refused, models, tmp_path, values):
    tuned = models.tuned(models.base(), 7)
    # A tensor that would be stored before anybody looks at the last and small one.
    tuned["large"] = torch.ones(200, 200)
    tuned["pooler.weight"].view(-1)[: len(values)] = torch.tensor(values, dtype=torch.float64)
    source = models.write(tmp_path / "source", tuned)

    count = sum(not math.isfinite(value) for value in values)
    refused(
        two, 3, "add", source, "--task", "x",
        says=f"tensor pooler.weight holds {count} non-finite values (NaN or infinity)",
        hint="pass --allow-nonfinite to store it all the same",
    )  # fmt: skip


def test_booleans_that_are_none_are_refused(repository, refused, tmp_path):
    (tmp_path / "base.safetensors").write_bytes(raw({"m": ENTRY | {"dtype": "BOOL", "shape": [8]}}, bytes(8)))
    (tmp_path / "bad.safetensors").write_bytes(raw({"m": ENTRY | {"dtype": "BOOL", "shape": [8]}}, bytes([7] * 8)))
    repo = repository(tmp_path / "base.safetensors")

    refused(repo, 3, "add", tmp_path / "bad.safetensors", "--task", "x", says="m is BOOL but holds bytes other than 0")


@pytest.mark.parametrize("name", ["../../x", "-D", "x.lock", "a\nb", "con", "A", "", "a" * 65, "a..b", "x.", "@{"])
def test_names_that_can_name_no_task(two, refused, templates, name):
    shown = name.replace("\n", "\\\\u000a")
    refused(
        two, 3, "add", templates.alpha, f"--task={name}", says=f"'{shown}' cannot name a task",
        hint="use 1 to 64 of a-z 0-9 . _ -",
    )  # fmt: skip


def test_an_unknown_codec(two, refused, templates):
    refused(two, 3, "add", templates.alpha, "--task", "x", "--codec", "zip", says="codec 'zip' is unknown")


def test_an_unknown_source_of_lineage(two, refused, templates):
    refused(
        two, 3, "add", templates.alpha, "--task", "x", "--derived-from", "nobody",
        says="--derived-from nobody: no task or recipe of that name is committed", hint="run `wvc status`",
    )  # fmt: skip


def test_lineage_from_tasks_and_recipes(two, templates):
    two.wvc("recipe", "save", "both", "--tasks", "alpha,beta=0.5")
    two.wvc("commit", "-m", "Save it")

    two.put("child", templates.alpha, "--derived-from", "both", "--derived-from", "alpha")

    lineage = two.manifest("child")["lineage"]
    assert [parent["task"] for parent in lineage] == ["alpha", "beta"]
    assert lineage[0] == {k: two.manifest("alpha")[k] for k in ("task", "uuid", "version")}


def test_files_that_may_not_be_meant_are_named(two, models, tmp_path):
    files = {
        ".env": "SECRET=1",
        "optimizer.pt": "x",
        "checkpoint-5/model.safetensors": "x",
        "model.onnx": "x",
        "a.txt": "x",
    }
    source = models.write(tmp_path / "run", models.tuned(models.base(), 7), files=files)

    for options in ((), ("--dry-run",)):
        done = two.json("add", source, "--task", "run", *options)
        (note,) = [note for note in done["notes"] if "hidden" in note]
        assert note == (
            "3 files that are hidden, weights or a state of training are stored beside the weights; "
            "move away what is no part of the model: .env, model.onnx, optimizer.pt"
        )
        assert (done["files"], done["files_bytes"]) == (5, 12)


def test_the_index_of_shards_is_no_stray_file(two, models, tmp_path):
    source = models.write(tmp_path / "shards", models.tuned(models.base(), 7), shards=2)
    assert two.json("add", source, "--task", "shards")["notes"] == []


def test_a_directory_that_holds_the_repository_is_no_model(two, refused, models):
    models.write(two.path / "weights", models.tuned(models.base(), 7))
    for path in (two.path, two.path.parent):
        (path / "model.safetensors").write_bytes((two.path / "weights/model.safetensors").read_bytes())

        refused(
            two, 3, "add", path, "--task", "x", says=f"{path}: holds this repository",
            hint="give the directory of the model alone",
        )  # fmt: skip


def test_no_task_derives_from_itself(two, refused, templates):
    refused(
        two, 2, "add", templates.beta, "--task", "alpha", "--derived-from", "alpha",
        says="--derived-from alpha: no task derives from itself",
    )  # fmt: skip
    two.wvc("recipe", "save", "both", "--tasks", "alpha,beta")
    two.wvc("commit", "-m", "Save it")
    two.put("alpha", templates.beta, "--derived-from", "both")
    assert two.json("show", "alpha")["lineage"] == ["beta"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(two, templates):
    before = two.everything()

    done = two.json("add", templates.alpha, "--task", "x", "--dry-run")
    text = two.wvc("add", templates.alpha, "--task", "x", "--dry-run")

    assert done["tensors"] == {"matched": 17, "added": 0, "removed": 0, "reshaped": 0, "updated": 0}
    assert (done["staged"], done["stored_bytes"], done["bytes"]) == (False, 0, 6404)
    assert done["peak_bytes"] > 64 * 2**20
    first, files, second = text.splitlines()
    assert files == "and 6 other files of the directory, 108 B"
    assert first == "would add task x by intdelta: 17 matched, 6.3 KiB; moved 5.00 % of the base's norm"
    assert second.startswith("peak memory ")
    assert two.everything() == before


def test_a_new_version_keeps_the_identity_and_the_place_in_the_order(two, models, tmp_path):
    first = two.manifest("alpha")

    two.put("alpha", models.write(tmp_path / "again", models.tuned(models.base(), 8)))

    second = two.manifest("alpha")
    assert (second["uuid"], second["added"]) == (first["uuid"], first["added"])
    assert second["version"] != first["version"]
    assert [task["task"] for task in two.json("status")["tasks"]] == ["alpha", "beta"]


def test_a_task_staged_twice_keeps_its_identity(two, templates):
    two.wvc("add", templates.alpha, "--task", "x")
    first = json.loads(two.staged("tasks/x.json"))

    two.wvc("add", templates.beta, "--task", "x")

    second = json.loads(two.staged("tasks/x.json"))
    assert (second["uuid"], second["added"]) == (first["uuid"], first["added"])
    assert second["version"] == two.manifest("beta")["version"]


def test_a_task_is_never_older_than_another_even_if_the_clock_was_set_back(two, templates, monkeypatch):
    class Past(datetime):
        @classmethod
        def now(cls, _tz):
            return datetime(2001, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(adds, "datetime", Past)

    two.json("add", templates.alpha, "--task", "one")
    two.json("add", templates.alpha, "--task", "two")
    two.wvc("commit", "-m", "Add them")

    times = [two.manifest(name)["added"] for name in ("alpha", "beta", "one", "two")]
    assert times == sorted(times)
    assert len(set(times)) == 4
    assert times[3] == times[2][:-7] + f"{int(times[2][-7:-1]) + 1:06d}Z"


def test_tasks_can_be_added_after_one_of_the_last_time_there_is(two, templates, monkeypatch):
    class Last(datetime):
        @classmethod
        def now(cls, _tz):
            return datetime.max.replace(tzinfo=UTC)

    with monkeypatch.context() as patch:
        patch.setattr(adds, "datetime", Last)
        two.put("one", templates.alpha)
    two.put("two", templates.alpha)

    assert [two.manifest(name)["added"] for name in ("one", "two")] == ["9999-12-31T23:59:59.999999Z"] * 2
    assert [task["task"] for task in two.json("status")["tasks"]] == ["alpha", "beta", "one", "two"]


def test_the_first_task_has_the_time_of_the_clock(empty, templates):
    before = datetime.now(UTC)

    empty.put("first", templates.alpha)

    added = datetime.strptime(empty.manifest("first")["added"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert before <= added <= datetime.now(UTC)


def test_a_model_of_another_architecture_is_refused_with_a_tensor_to_look_at(two, refused, models, tmp_path):
    import torch

    wide = {name: torch.cat([t, t], -1) if t.dim() == 2 else t for name, t in models.base().items()}
    models.write(tmp_path / "wide", wide)

    ran = refused(
        two, 3, "add", tmp_path / "wide", "--task", "wide",
        says="% of its values are in tensors of another shape than the base's, for example "
        "embeddings.word_embeddings.weight: [40, 24] here, [40, 12] in the base\n",
        hint="it is no fine-tune of this base: start a repository over its own base with `wvc init DIR --base PATH`, "
        "or pass --force-base to keep it whole and out of merges\n",
    )  # fmt: skip

    assert "dtype" not in ran.err
    assert two.json("add", tmp_path / "wide", "--task", "wide", "--force-base")["tensors"]["reshaped"] == 10


def test_the_result_of_the_library_is_the_commands_document(two, templates):
    done = two.api().add(templates.alpha, "lib")

    assert done.tensors == {"same": 2, "delta": 15, "added": 0, "removed": 0, "reshaped": 0, "updated": 0}
    assert (done.task, done.bytes, done.codec, done.staged) == ("lib", 6404, "intdelta", True)
    assert done.notes == ["task alpha has the same weights"]
    assert done.manifest == two.manifest("alpha")["version"]
    assert done.stored_bytes == sum(
        entry.get("size", 0)
        for kind in ("tensors", "files", "headers")
        for entry in json.loads(two.staged("tasks/lib.json"))[kind]
    )


def test_a_checkpoint_of_bytes_is_the_same_wherever_it_lies(two, models, tmp_path):
    (tmp_path / "one.safetensors").write_bytes(save(models.tuned(models.base(), 9)))

    one = two.json("add", tmp_path / "one.safetensors", "--task", "one")
    two.json("add", tmp_path / "one.safetensors", "--task", "other")

    assert one["manifest"] == json.loads(two.staged("tasks/other.json"))["version"]


def test_a_copy_of_the_base_is_said_to_be_one_and_changes_no_merge(two, templates, models, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "before")

    ran = two.run("add", templates.base, "--task", "copy")
    two.wvc("commit", "-m", "A copy")
    two.wvc("checkout", "-o", tmp_path / "after")

    assert "note: every tensor equals the base's: this task adds nothing to a merge" in ran.err
    models.assert_same(models.read(tmp_path / "after"), models.read(tmp_path / "before"))


def test_a_checkpoint_in_another_dtype_throughout_is_refused(two, refused, models, tmp_path):
    half = {name: t.double() if t.is_floating_point() else t for name, t in models.base().items()}
    models.write(tmp_path / "half", half)

    refused(two, 3, "add", tmp_path / "half", "--task", "half",
            says="% of its values have another dtype or shape than the base's, and could not be merged",
            hint="convert it to the base's dtype first (load it with transformers' `torch_dtype=torch.float32`, and "
            "save it), or pass --force-base")  # fmt: skip

    assert two.json("add", tmp_path / "half", "--task", "half", "--force-base")["tensors"]["delta"] == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_stands_in_the_place_of_an_object(two, templates, make):
    (oid, *_) = sorted(
        {
            line["object"]
            for line in json.loads((two.path / ".wvc/tasks/alpha.json").read_bytes())["tensors"]
            if "object" in line
        }
    )
    file = two.object_file(oid)
    file.unlink()
    make(file)
    ran = two.run("add", templates.alpha, "--task", "alpha")
    if make is os.mkfifo:
        assert ran.code == 0, ran.err
        assert two.json("fsck", "--full")["ok"]
    else:
        assert (ran.code, ran.err) == (
            3,
            f"wvc: {file} is a directory where the file of an object belongs\nhint: move it away\n",
        )
