"""Checkout: what goes into a directory, and what is refused."""

import json
import os
import shutil

import pytest
import torch

from weightvc.repo import checkout as checkouts


def test_the_default_is_all_tasks_in_the_order_of_adding_into_model(two, models):
    done = two.json("checkout")

    assert done["output"] == str(two.path / "model")
    assert (done["recipe"], done["method"], done["exact"]) == (["alpha", "beta"], "opcm-s", False)
    assert done["rules"] == {"base": 2, "task": 0, "elementwise": 9, "projected": 6, "factored": 0, "joined": 0}
    assert done["lock"] == str(two.path / "model/wvc.lock.json")
    lock = json.loads((two.path / "model/wvc.lock.json").read_text())
    assert done["digest"] == lock["digest"]
    assert (done["tensors"], done["bytes"]) == (17, 6404)
    assert set(models.contents(two.path / "model")) == {*models.files, "model.safetensors"}


def test_git_ignores_every_output_in_the_work_tree(two, tmp_path):
    names = ["other", "!a*[b]?\\c ", "#x/#y ", "two\nlines", os.fsdecode(b"latin-\xe9")]
    two.wvc("checkout")
    two.wvc("checkout", "-o", tmp_path / "outside")
    for name in names:
        two.wvc("checkout", "--tasks", "alpha", "-o", two.path / name)
    (two.path / ".model.wvc-1-0123abcd").mkdir()
    (two.path / ".model.wvc-1-0123abcd/x").touch()
    (two.path / "#x/.#y .old-1-0123abcd").mkdir()
    (two.path / "#x/.#y .old-1-0123abcd/x").touch()
    (two.path / "sub/model").mkdir(parents=True)
    (two.path / "sub/model/mine").touch()
    (two.path / "!aXb?").mkdir()
    (two.path / "!aXb?/mine").touch()

    assert two.git("status", "--porcelain", "-z").split("\0") == ["?? !aXb?/", "?? sub/", ""]
    lines = (two.path / ".git/info/exclude").read_text().splitlines()
    assert lines[-3 * 6 :][:6] == [
        "/.model.wvc-*/", "/.model.old-*/", "/model/", "/.other.wvc-*/", "/.other.old-*/", "/other/"
    ]  # fmt: skip
    assert lines[-9:-6] == ["/#x/.#y .wvc-*/", "/#x/.#y .old-*/", "/#x/#y /"]


def test_git_ignores_no_output_that_a_link_leads_out_to(two, tmp_path):
    (tmp_path / "far").mkdir()
    (two.path / "near").symlink_to(tmp_path / "far")
    before = (two.path / ".git/info/exclude").read_bytes()

    two.wvc("checkout", "-o", two.path / "near/out")

    assert (two.path / ".git/info/exclude").read_bytes() == before
    assert (tmp_path / "far/out/wvc.lock.json").is_file()


def test_a_merge_carries_the_bases_other_files_and_a_card(two, models, templates, tmp_path):
    two.wvc("checkout", "--tasks", "alpha,beta=0.5", "-o", tmp_path / "out")

    found, base = models.contents(tmp_path / "out"), models.contents(templates.base)
    for name in set(models.files) - {"README.md"}:
        assert found[name] == base[name]
    card = found["README.md"].decode()
    assert f"\nMade by weightvc from Tiny ({two.json('status')['base']}) with the method `opcm-s`.\n" in card
    versions = [two.manifest(task)["version"][:12] for task in ("alpha", "beta")]
    assert card.startswith(
        "---\nbase_model:\n- example/tiny\nbase_model_relation: merge\ntags:\n- weightvc\n- merge\n"
        "library_name: transformers\nlicense: gpl-3.0\n---\n# Merged model\n"
    )
    assert f"| alpha | 1.0 | `{versions[0]}` |\n| beta | 0.5 | `{versions[1]}` |\n" in card
    assert "| alpha | 0.5 |" in card
    assert "- alpha: gpl-3.0\n- beta: none declared\n" in card


STALE = (
    "pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx",
    "model.gguf", "openvino/openvino_model.bin.index.json",
)  # fmt: skip


def test_a_merge_carries_no_stale_weights(repository, models, tmp_path):
    base = models.write(tmp_path / "base", models.base(), files={**models.files, "2_Dense/model.safetensors": "dense"})
    for name in set(STALE) - {"model.safetensors.index.json"}:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("stale")
    repo = repository(base)
    source = models.write(tmp_path / "tuned", models.tuned(models.base(), 1), shards=2, files=models.files)
    (source / "tf_model.h5").write_text("its own export")
    repo.put("sharded", source)

    repo.wvc("checkout", "--tasks", "sharded=0.5", "-o", tmp_path / "merged")
    repo.wvc("checkout", "--tasks", "sharded", "-o", tmp_path / "exact")

    found = set(models.contents(tmp_path / "merged"))
    assert found == {*models.files, "model.safetensors", "2_Dense/model.safetensors"}
    assert models.contents(tmp_path / "exact") == models.contents(source)


def test_coefficients_are_in_the_lock_as_given(two, tmp_path):
    two.wvc("checkout", "--tasks", "beta=-0.25,alpha=2", "--method", "task_arithmetic", "-o", tmp_path / "out")

    lock = json.loads((tmp_path / "out/wvc.lock.json").read_text())
    assert lock["recipe"]["tasks"] == ["beta=-0.25", "alpha=2.0"]
    assert lock["recipe"]["params"] == {"scaling": 1.0}
    assert [task["task"] for task in lock["tasks"]] == ["beta", "alpha"]
    assert lock["commit"] == two.git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("F64", torch.float64), ("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)],
)
def test_a_dtype_casts_every_float_once(two, models, tmp_path, name, dtype):
    two.wvc("checkout", "--method", "task_arithmetic", "--dtype", "F64", "-o", tmp_path / "wide")

    done = two.json("checkout", "--method", "task_arithmetic", "--dtype", name, "-o", tmp_path / "out")

    wide, found = models.read(tmp_path / "wide"), models.read(tmp_path / "out")
    assert found["embeddings.position_ids"].dtype == torch.int64
    models.assert_same(found, {n: t.to(dtype) if t.is_floating_point() else t for n, t in wide.items()})
    assert (done["exact"], len(found)) == (False, 17)


def test_a_dtype_casts_a_task_and_a_base_alone(two, models, templates, tmp_path):
    two.wvc("checkout", "--tasks", "alpha", "--dtype", "F64", "-o", tmp_path / "task")
    two.wvc("checkout", "--tasks", "", "--method", "linear", "--dtype", "F16", "-o", tmp_path / "base")

    widened = {n: t.double() if t.is_floating_point() else t for n, t in models.read(templates.alpha).items()}
    halved = {n: t.half() if t.is_floating_point() else t for n, t in models.base().items()}
    found = models.read(tmp_path / "task")
    assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in widened.items()}
    for name, tensor in widened.items():
        assert torch.allclose(found[name].double(), tensor.double(), rtol=1e-12, atol=0), name
    models.assert_same(models.read(tmp_path / "base"), halved)


@pytest.mark.parametrize("size", ["1KiB", "2KB", "1"])
def test_shards_hold_at_most_so_many_bytes(two, models, tmp_path, size):
    two.wvc("checkout", "-o", tmp_path / "whole")
    done = two.json("checkout", "--max-shard-size", size, "-o", tmp_path / "out")

    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    limit = {"1KiB": 1024, "2KB": 2000, "1": 1}[size]
    models.assert_same(models.read(tmp_path / "out"), models.read(tmp_path / "whole"))
    assert index["metadata"]["total_size"] == done["bytes"]
    for file in set(index["weight_map"].values()):
        held = models.read(tmp_path / "out" / file)
        assert sum(t.nbytes for t in held.values()) <= limit or len([t for t in held.values() if t.numel()]) == 1
        assert all(index["weight_map"][name] == file for name in held)
    assert done["digest"] == json.loads((tmp_path / "whole/wvc.lock.json").read_text())["digest"]
    assert two.json("verify", tmp_path / "out", "--replay")["ok"]


def test_a_dry_run_says_what_and_writes_nothing(two, tmp_path):
    before = two.everything()

    done = two.json("checkout", "--dry-run")

    assert two.everything() == before
    assert (done["digest"], done["lock"], done["seconds"], done["output"]) == (None, None, 0.0, str(two.path / "model"))
    stored = sum(task["stored_bytes"] for task in two.json("status")["tasks"])
    assert done["read_bytes"] > stored
    assert done["scratch_bytes"] == 8 * 3 * (12 * 12 + 12 * 24)
    assert done["peak_bytes"] > 300 * 2**20
    done = two.json("checkout", "--tasks", "alpha", "-n", "-o", tmp_path / "x")
    assert (done["exact"], done["scratch_bytes"]) == (True, 0)
    assert not (tmp_path / "x").exists()


def test_an_older_revision(two, models, templates, tmp_path):
    done = two.json("checkout", "HEAD~1", "-o", tmp_path / "out")

    assert done["recipe"] == ["alpha"]
    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)


def test_integers_that_tasks_changed_differently(two, refused, models, tmp_path):
    base = models.base()
    for seed, name in ((1, "one"), (2, "same"), (3, "else")):
        ids = base["embeddings.position_ids"] + (2 if name == "else" else 1)
        two.put(name, models.write(tmp_path / name, models.tuned(base, seed) | {"embeddings.position_ids": ids}))

    two.wvc("checkout", "--tasks", "one,same,alpha", "-o", tmp_path / "agree")
    refused(
        two, 3, "checkout", "--tasks", "one,else", "-o", tmp_path / "out",
        says="tensor embeddings.position_ids (I64) was changed in different ways by 2 tasks, and I64 values cannot",
        hint="pass --on-int-mismatch base to keep the base's values",
    )  # fmt: skip
    two.wvc("checkout", "--tasks", "one,else", "--on-int-mismatch", "base", "-o", tmp_path / "base")

    ids = base["embeddings.position_ids"]
    assert torch.equal(models.read(tmp_path / "agree")["embeddings.position_ids"], ids + 1)
    assert torch.equal(models.read(tmp_path / "base")["embeddings.position_ids"], ids)
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "base/wvc.lock.json").read_text())["recipe"]["on_int_mismatch"] == "base"


REFUSED = [
    (("--tasks", "nobody"), 3, "no task 'nobody' at", "run `wvc status` to see the tasks"),
    (("--tasks", "alpha,alpha"), 2, "named twice: alpha", "give each task one coefficient"),
    (("--tasks", "alpha=x"), 2, "'alpha=x': the coefficient is not a finite number", "write TASK=0.7"),
    (("--tasks", "alpha=nan"), 2, "the coefficient is not a finite number", ""),
    (("--tasks", "../x"), 3, "'../x' cannot name a task", ""),
    (("--tasks", "alpha", "--recipe", "x"), 2, "--tasks and --recipe exclude each other", ""),
    (("--recipe", "nobody"), 3, "no recipe 'nobody', and no file of that name; the recipes are: none", ""),
    (("--method", "magic"), 2, "there is no merge method 'magic'", "the methods are opcm-s, opcm"),
    (("-p", "beta=1"), 2, "method opcm-s has no parameter beta", "it takes alpha, norm, other"),
    (("-p", "alpha=1"), 2, "opcm-s: alpha cannot be 1", "alpha is a number from 0 up to"),
    (("-p", "alpha"), 2, "'alpha' is not KEY=VALUE", ""),
    (("-p", "=1"), 2, "'=1' is not KEY=VALUE", ""),
    (("-p", "alpha=0.1", "-p", "alpha=0.2"), 2, "'alpha' is given twice", ""),
    (("--method", "linear", "-p", "x=1"), 2, "method linear has no parameter x", "it takes none"),
    (("--method", "linear", "--tasks", "alpha=1,beta=-1"), 2, "linear: the coefficients 1.0, -1.0 sum to 0.0", ""),
    (("--dtype", "I64"), 2, "'I64' is not one of 'f64', 'f32', 'f16', 'bf16'", "see `wvc checkout --help`"),
    (("--dtype", "float32"), 2, "'float32' is not one of", ""),
    (("--device", "gpu"), 2, "--device gpu names no device", "write auto, cpu, cuda or cuda:N"),
    (("--device", "cpu:1"), 2, "--device cpu:1 names no device", ""),
    (("--device", "cuda:99"), 3, "--device cuda:99: torch sees", "pass --device cpu"),
    (("--max-shard-size", "big"), 2, "'big' is not a size; write for example 5GB or 512MiB", ""),
    (("--max-shard-size", "0"), 2, "'0' is less than one byte", ""),
    (("--jobs", "0"), 2, "0 is not in the range 1<=x<=256", ""),
    (("--on-int-mismatch", "guess"), 2, "'guess' is not one of 'error', 'base'", ""),
    (
        ("--method", "task_arithmetic", "-p", "scaling=hello"),
        2,
        "task_arithmetic: scaling cannot be hello",
        "scaling is a finite number",
    ),
    (("--tasks", "alhpa"), 3, "no task 'alhpa' at", "did you mean alpha? run `wvc status` to see the tasks"),
    (("--method", "OPMC"), 2, "there is no merge method 'OPMC'", "did you mean opcm? the methods are opcm-s, "),
    (("alhpa",), 3, "no revision 'alhpa'", "did you mean alpha? `git log --all --oneline` shows the revisions"),
    (("nowhere",), 3, "no revision 'nowhere'", "`git log --all --oneline` shows the revisions"),
]


@pytest.mark.parametrize("case", REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_requests_that_cannot_be_carried_out(two, refused, case):
    arguments, code, says, hint = case
    refused(two, code, "checkout", *arguments, says=says, hint=hint)


def test_a_task_that_is_only_staged(two, refused, templates):
    two.wvc("add", templates.alpha, "--task", "new")

    refused(
        two, 3, "checkout", "--tasks", "new", says="task new is staged but not committed",
        hint="run `wvc commit -m MESSAGE` first",
    )  # fmt: skip


def test_a_task_that_was_removed_is_said_to_be(two, refused):
    two.wvc("revert", "alpha", "--no-rebuild")

    refused(two, 3, "checkout", "--tasks", "alpha", says="(it was removed; `wvc log` shows when); the tasks are: beta")


def test_a_missing_object_is_named_and_nothing_is_written(two, refused, tmp_path):
    oid = next(entry["object"] for entry in two.manifest("alpha")["tensors"] if "object" in entry)
    two.object_file(oid).unlink()

    for arguments in (("--tasks", "alpha"), ("--method", "linear"), ()):
        says = f" cannot be read: object {oid} is not in the store"
        refused(two, 4, "checkout", *arguments, "-o", tmp_path / "out", says=says, hint="`wvc fetch` brings")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo"]
    assert two.run("checkout", "--tasks", "beta", "-o", tmp_path / "out").code == 0


@pytest.mark.parametrize("at", [30, -3])
def test_a_corrupt_object_is_refused_and_nothing_is_written(two, refused, tmp_path, at):
    oid = next(entry["object"] for entry in two.manifest("alpha")["tensors"] if "object" in entry)
    data = bytearray(two.object_file(oid).read_bytes())
    data[at] ^= 1
    os.chmod(two.object_file(oid), 0o644)
    two.object_file(oid).write_bytes(data)

    refused(two, 4, "checkout", "-o", tmp_path / "out", says=f"object {oid}", hint="run `wvc fsck --full`")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo"]


def test_the_lock_does_not_depend_on_where_or_when(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "one")
    shutil.copytree(two.path, tmp_path / "moved")
    type(two)(tmp_path / "moved").wvc("checkout", "-o", tmp_path / "two")

    assert (tmp_path / "one/wvc.lock.json").read_bytes() == (tmp_path / "two/wvc.lock.json").read_bytes()


def test_the_library_takes_what_the_command_takes(two, models, tmp_path):
    two.wvc("checkout", "--tasks", "alpha,beta=0.5", "--method", "linear", "-o", tmp_path / "cli")
    done = two.api().checkout(["alpha", "beta=0.5"], method="linear", output=tmp_path / "lib", jobs=1)

    assert models.contents(tmp_path / "lib") == models.contents(tmp_path / "cli")
    assert isinstance(done, checkouts.CheckedOut)
    assert done.digest == json.loads((tmp_path / "cli/wvc.lock.json").read_text())["digest"]


def test_a_dtype_that_the_library_is_given_is_checked(two):
    from weightvc.util.errors import UsageError

    with pytest.raises(UsageError, match="--dtype I8 is no dtype for a merge") as caught:
        two.api().checkout(dtype="I8")
    assert caught.value.hint == "use one of BF16, F16, F32, F64, base"


def test_no_jobs_at_all_are_refused_and_nothing_is_written(two, tmp_path):
    from weightvc.util.errors import UsageError

    before = two.everything()
    with pytest.raises(UsageError, match="0 jobs can do nothing"):
        two.api().checkout(output=tmp_path / "out", jobs=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo"]
    assert two.everything() == before


@pytest.mark.parametrize(("name", "kind", "option"), [("alpha", "task", "--tasks"), ("prod", "recipe", "--recipe")])
def test_a_task_or_recipe_in_place_of_a_revision(two, refused, name, kind, option):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Name it")

    refused(two, 3, "checkout", name, says=f"{name} is a {kind}, not a revision", hint=f"pass {option} {name}")


def test_staged_tasks_are_said_to_be_left_out(two, templates, tmp_path):
    two.wvc("add", templates.alpha, "--task", "later")

    ran = two.run("checkout", "-o", tmp_path / "out")

    assert ran.err.endswith("note: staged and not in it: later; `wvc commit` records them\n")
    assert two.run("checkout", "--tasks", "alpha", "-o", tmp_path / "one").err == ""


def test_what_changes_nothing_is_said(two, tmp_path):
    idle = "what is not merged comes in its own files: --max-shard-size changes nothing"
    base = "no task was named: this is the base"
    for tasks, notes in (("", [base, idle]), ("alpha", [idle]), ("alpha,beta", [])):
        made = two.json("checkout", "--tasks", tasks, "--max-shard-size", "1KB", "--dry-run", "-o", tmp_path / "out")
        assert [note for note in made["notes"] if note in (base, idle)] == notes
