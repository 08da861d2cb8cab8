"""Comparing a checkout with its lock, and the lock with a replay."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightvc.objects.tensors import TensorHasher, tensor_digest
from weightvc.util.errors import NotFound


@pytest.fixture
def out(two, models, tmp_path):
    """A merged checkout with heads."""
    tuned = {**models.tuned(models.base(), 3), "head.weight": torch.ones(2, 2)}
    two.put("gamma", models.write(tmp_path / "gamma", tuned))
    two.wvc("checkout", "-o", tmp_path / "out")
    return tmp_path / "out"


def found(ran):
    return {check["name"]: check["detail"] for check in ran.json["checks"] if not check["ok"]}


def test_a_checkout_as_it_was_written(two, out, wvc, tmp_path):
    done = two.json("verify", out)
    replayed = two.json("verify", out, "--replay")

    assert [(c["name"], c["detail"]) for c in done["checks"]] == [
        ("files", "8 files as locked"),
        ("heads/gamma.safetensors", "1 tensor as locked"),
        ("model.safetensors", "17 tensors as locked"),
    ]
    assert replayed["checks"][-1] == {"name": "replay", "ok": True,
                                      "detail": "18 tensors rebuilt from sources, byte for byte"}  # fmt: skip
    assert done["digest"] == json.loads((out / "wvc.lock.json").read_text())["digest"]
    shutil.move(out, tmp_path / "elsewhere")
    assert wvc("-C", "/", "verify", tmp_path / "elsewhere").code == 0


@pytest.mark.parametrize("tasks", ["", "alpha", "beta=0.5"])
def test_exact_and_single_checkouts_replay(two, tmp_path, tasks):
    two.wvc("checkout", "--tasks", tasks, "-o", tmp_path / "out")

    assert two.json("verify", tmp_path / "out", "--replay")["ok"]


@pytest.mark.parametrize(
    ("name", "change", "found_in"),
    [
        ("config.json", b"{}", ("files", "config.json differs")),
        ("config.json", None, ("files", "config.json is missing")),
        ("extra.txt", b"mine", ("files", "extra.txt was added")),
        ("model.safetensors", b"short", ("model.safetensors", "5 bytes, too short for a safetensors file")),
        ("model.safetensors", None, ("model.safetensors", "no such file or directory")),
        ("heads/gamma.safetensors", None, ("heads/gamma.safetensors", "no such file or directory")),
    ],
)
def test_changed_files(two, out, name, change, found_in):
    (out / name).write_bytes(change) if change is not None else (out / name).unlink()

    ran = two.run("--json", "verify", out)

    assert ran.code == 1
    assert ran.json["ok"] is False
    check, detail = found_in
    assert detail in found(ran)[check]


def test_a_changed_value_and_a_changed_header(two, out):
    tensors = load_file(out / "model.safetensors")
    tensors["pooler.weight"][0, 0] += 1e-9
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    value = two.run("--json", "verify", out)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt", "by": "me"})
    header = two.run("--json", "verify", out)

    assert (value.code, header.code) == (1, 1)
    assert found(value) == {"model.safetensors": "pooler.weight differs"}
    assert found(header) == {"model.safetensors": "its header differs"}


def test_a_link_in_place_of_a_file(two, out, tmp_path):
    shutil.move(out / "config.json", tmp_path / "config.json")
    (out / "config.json").symlink_to(tmp_path / "config.json")

    assert found(two.run("--json", "verify", out)) == {"files": "config.json differs"}


def test_a_tampered_lock(two, refused, out):
    lock = out / "wvc.lock.json"
    whole = lock.read_text()
    digest = json.loads(whole)["tensors"][-1]["digest"]
    for text in (whole.replace(digest, "0" * 64), whole[:-4], whole.replace("\n", " "), "{}"):
        lock.write_text(text)
        refused(two, 4, "verify", out, says=str(lock), hint="build the directory again with `wvc checkout`")
    lock.write_text(whole.replace("lock/1", "lock/2"))
    refused(two, 3, "verify", out, says="schema 'weightvc/lock/2'", hint="upgrade weightvc")


def test_directories_that_are_no_checkouts(two, refused, tmp_path):
    for path, says in ((tmp_path, "no wvc.lock.json here"), (tmp_path / "nowhere", "no such directory")):
        refused(
            two, 3, "verify", path, says=f"{path}: {says}",
            hint="name a directory that `wvc checkout` wrote",
        )  # fmt: skip


def relock(out, change):
    """Write a lock that is whole but tells of something else."""
    from weightvc.objects.lock import Lock

    path = out / "wvc.lock.json"
    path.write_bytes(change(Lock.from_bytes(path.read_bytes(), "lock")).to_bytes())


def test_a_replay_finds_what_a_consistent_forgery_hides(two, out):
    tensors = load_file(out / "model.safetensors")
    tensors["pooler.weight"][0, 0] += 1
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    hasher = TensorHasher("F64", (6, 12))
    hasher.update(tensors["pooler.weight"].numpy().tobytes())
    forged = hasher.digest()
    relock(out, lambda lock: replace(lock, tensors=tuple(
        replace(line, digest=forged) if line.name == "pooler.weight" else line for line in lock.tensors
    )))  # fmt: skip

    plain, replayed = two.run("--json", "verify", out), two.run("--json", "verify", out, "--replay")

    assert (plain.code, replayed.code) == (0, 1)
    assert found(replayed) == {"replay": "1 tensor built otherwise: pooler.weight"}


def test_a_replay_compares_the_other_files_too(two, out):
    changed = b'{"model_type": "evil"}\n'
    (out / "config.json").write_bytes(changed)
    digest = tensor_digest("U8", [len(changed)], changed)
    relock(out, lambda lock: replace(lock, files={**lock.files, "config.json": digest}))

    plain, replayed = two.run("--json", "verify", out), two.run("--json", "verify", out, "--replay")

    assert (plain.code, replayed.code) == (0, 1)
    assert found(replayed) == {"replay": "1 file built otherwise: config.json"}


def test_a_replay_compares_how_tensors_came_about(two, out):
    relock(out, lambda lock: replace(lock, tensors=(*lock.tensors[:-1], replace(lock.tensors[-1], rule="base"))))

    assert found(two.run("--json", "verify", out, "--replay")) == {
        "replay": "1 tensor came about otherwise: pooler.weight"
    }


def test_a_replay_elsewhere_leaves_the_card_out_and_other_files_in(two, out):
    (out / "README.md").write_text("another version's\n")
    card = tensor_digest("U8", [18], b"another version's\n")
    relock(out, lambda lock: replace(lock, wvc="9.9", files={**lock.files, "README.md": card}))
    assert two.json("verify", out, "--replay")["ok"]

    (out / "config.json").unlink()
    relock(out, lambda lock: replace(lock, files={path: d for path, d in lock.files.items() if path != "config.json"}))
    assert found(two.run("--json", "verify", out, "--replay")) == {
        "replay": "1 file built otherwise "
        "(built in another environment; bytes are promised for equal ones only): config.json"
    }


def test_a_replay_without_the_locks_commit_says_what_it_leaves_out(two, out):
    relock(out, lambda lock: replace(lock, commit="0" * 40))

    check = two.json("verify", out, "--replay")["checks"][-1]

    assert check["ok"]
    assert check["detail"] == (
        "18 tensors rebuilt from sources, byte for byte; other files not compared: no commit 000000000000 here"
    )


def test_a_tensor_that_the_file_does_not_have(two, out):
    relock(out, lambda lock: replace(lock, tensors=(*lock.tensors, replace(lock.tensors[-1], name="nobody"))))

    assert found(two.run("--json", "verify", out)) == {"model.safetensors": "nobody is missing"}


def test_a_replay_in_another_environment_says_so(two, out):
    relock(out, lambda lock: replace(lock, environment={**lock.environment, "torch": "1.0"}, tensors=lock.tensors[:-1]))

    detail = found(two.run("--json", "verify", out, "--replay"))["replay"]

    assert detail.startswith("1 tensor built otherwise (built in another environment; bytes are promised for equal")


def change(out, name, by):
    """Write other values of one tensor and a lock, of another environment, that has them."""
    tensors = load_file(out / "model.safetensors")
    by(tensors[name])
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    dtype = {torch.float64: "F64", torch.float32: "F32"}[tensors[name].dtype]
    digest = tensor_digest(dtype, tuple(tensors[name].shape), tensors[name].numpy().tobytes())
    relock(out, lambda lock: replace(
        lock,
        environment={**lock.environment, "torch": "1.0"},
        tensors=tuple(replace(line, digest=digest) if line.name == name else line for line in lock.tensors),
    ))  # fmt: skip


def test_a_replay_elsewhere_allows_for_rounding(two, out):
    change(out, "pooler.weight", lambda values: values.copy_(values.nextafter(values + 1)))

    check = two.json("verify", out, "--replay")["checks"][-1]

    assert check["ok"]
    assert check["detail"] == (
        "18 tensors rebuilt from sources, byte for byte but for 1 within 1e-12 of their task vectors "
        "(built in another environment; bytes are promised for equal ones only)"
    )


def test_a_replay_elsewhere_allows_for_nothing_more(two, out):
    change(out, "pooler.weight", lambda values: values[0, :1].mul_(1 + 1e-10))

    assert found(two.run("--json", "verify", out, "--replay")) == {
        "replay": "1 tensor built otherwise by more than 1e-12 "
        "(built in another environment; bytes are promised for equal ones only): pooler.weight"
    }


def test_a_replay_elsewhere_has_copies_as_they_are(two, tmp_path):
    two.wvc("checkout", "--tasks", "", "-o", tmp_path / "base")
    change(tmp_path / "base", "pooler.weight", lambda values: values.copy_(values.nextafter(values + 1)))

    assert "1 tensor built otherwise" in found(two.run("--json", "verify", tmp_path / "base", "--replay"))["replay"]


def test_a_replay_elsewhere_of_many_tasks_by_the_published_rule_promises_nothing(two, templates, tmp_path):
    for number in range(7):
        two.put(f"more{number}", templates.beta)
    two.wvc("checkout", "--method", "opcm", "-o", tmp_path / "out")
    change(tmp_path / "out", "pooler.weight", lambda values: values.copy_(values.nextafter(values + 1)))

    assert found(two.run("--json", "verify", tmp_path / "out", "--replay")) == {
        "replay": "1 tensor built otherwise "
        "(built in another environment; bytes are promised for equal ones only): pooler.weight"
    }


def test_a_replay_uses_the_versions_that_the_lock_pins(two, out, templates):
    two.put("alpha", templates.beta)
    two.wvc("revert", "beta", "--no-rebuild")

    assert two.json("verify", out, "--replay")["ok"]


def test_a_replay_without_those_versions(refused, out, repository, templates):
    other = repository(templates.alpha, name="second")

    refused(
        other, 3, "verify", out, "--replay",
        says="this repository does not have the versions that the lock pins (alpha, beta, gamma) at HEAD or at",
        hint="fetch the commit with git",
    )  # fmt: skip


def test_a_replay_finds_the_repository_that_the_directory_lies_in(two, repository, templates, wvc, tmp_path):
    two.wvc("checkout")
    other = repository(templates.alpha, name="second")
    for place in (tmp_path, other.path):
        assert wvc("-C", place, "verify", two.path / "model", "--replay").code == 0
    (tmp_path / "git").mkdir()
    type(two)(tmp_path / "git").git("init", "-q")
    assert wvc("-C", tmp_path / "git", "verify", two.path / "model", "--replay").code == 0
    assert wvc("-C", tmp_path, "verify", tmp_path / "nothing", "--replay").code == 3


def test_a_failed_check_does_not_state_the_digest_as_true(two, out):
    digest = two.json("verify", out)["digest"]
    (out / "config.json").write_text("{}")

    says = f"\nwhat is here is not what the lock describes, whose digest is {digest}\n"
    assert two.run("verify", out).out.endswith(says)


def test_a_replay_needs_a_repository(wvc, out, tmp_path):
    from weightvc.repo.verify import verify

    assert wvc("-C", tmp_path, "verify", out, "--replay").code == 3
    with pytest.raises(NotFound, match="a replay needs the repository"):
        verify(out, None, replay=True)


def test_the_library_verifies_too(two, out):
    assert two.api().verify(out, replay=True, device="cpu", jobs=1).ok
