"""Lossy codecs from add to checkout: asked for, measured, and said wherever the task is met."""

import json

import pytest
import torch

CODECS = ["int8", "int4", "int2", "bitdelta", "t-switch", "skillpack", "svd:4"]
NOTE = "task fine is stored lossily: "


def tensors(seed=0):
    made = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(300, 40, generator=made),
        "h.bias": torch.randn(40, generator=made),
        "h.conv": torch.randn(16, 8, 60, generator=made).half(),
        "h.weight": torch.randn(128, 64, generator=made).bfloat16(),
        "ids": torch.arange(5000).reshape(50, 100),
    }


def moved(seed=1, scale=0.05):
    """Every float tensor moved, but no row of the embedding beyond the first hundred; and a head."""
    made = torch.Generator().manual_seed(seed)
    found = {
        name: (t + scale * torch.randn(t.shape, generator=made)).to(t.dtype) if t.is_floating_point() else t.clone()
        for name, t in tensors().items()
    }
    found["embed.weight"][100:] = tensors()["embed.weight"][100:]
    return found | {"score": torch.randn(80, 60, generator=made)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, models):
    root = tmp_path_factory.mktemp("lossy")
    models.write(root / "base", tensors())
    models.write(root / "fine", moved())
    models.write(root / "other", moved(2))
    return root


@pytest.fixture
def repo(made, repository):
    return repository(made / "base")


def lossy_of(repo, task="fine"):
    return {line["name"]: line["lossy"] for line in repo.manifest(task)["tensors"] if "lossy" in line}


def test_a_dry_run_says_what_would_be_lost(repo, made):
    ran = repo.run("add", made / "fine", "--task", "fine", "--codec", "int4", "-n")
    assert ran.out.startswith("would add task fine by int4: ")
    assert "note: stored lossily: a checkout gives back tensors near" in ran.err
    assert "lossily" not in repo.run("add", made / "fine", "--task", "fine", "-n").err


def test_what_takes_room_says_that_it_is_lossy(repo, made):
    repo.put("fine", made / "fine", "--codec", "int4")
    repo.put("exact", made / "fine")
    found = {one["name"]: one["lossy"] for one in repo.json("du")["usage"]}
    assert found == {"base": [], "exact": [], "fine": ["int4"]}
    assert repo.wvc("du").splitlines()[3].endswith("  lossy: int4")


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_lost_is_measured_and_stated(repo, made, models, tmp_path, codec):
    added = repo.put("fine", made / "fine", "--codec", codec)
    exact = repo.put("exact", made / "fine")
    repo.wvc("checkout", "--tasks", "fine", "-o", tmp_path / "out")
    back, wanted, base = models.read(tmp_path / "out"), moved(), tensors()
    stated = lossy_of(repo)
    assert sorted(stated) == ["embed.weight", "h.conv", "h.weight"]
    for name in ("h.bias", "ids", "score"):
        assert torch.equal(back[name], wanted[name])
    assert torch.equal(back["embed.weight"][100:], base["embed.weight"][100:])
    originals = {line["name"]: line["digest"] for line in repo.manifest("exact")["tensors"]}
    lost = gone = 0.0
    for name, loss in stated.items():
        error, step = back[name].double() - wanted[name].double(), wanted[name].double() - base[name].double()
        lost, gone = lost + float(error.square().sum()), gone + float(step.square().sum())
        assert loss["relative"] == pytest.approx(float(error.norm() / step.norm()), rel=1e-5)
        assert loss["maximum"] == pytest.approx(float(error.abs().max()), rel=1e-5)
        assert loss["original"] == originals[name]
    worst = max(loss["relative"] for loss in stated.values())
    assert added["lossy"] == {
        "tensors": 3,
        "codecs": [codec],
        "worst": worst,
        "maximum": max(loss["maximum"] for loss in stated.values()),
        "overall": pytest.approx((lost / gone) ** 0.5, rel=1e-5),
    }
    assert added["codec"] == codec
    assert added["stored_bytes"] < exact["stored_bytes"]
    assert exact["lossy"] is None
    assert added["manifest"] != exact["manifest"]


def test_every_command_says_so(repo, made, tmp_path):
    ran = repo.run("add", made / "fine", "--task", "fine", "--codec", "lossy")
    assert "lossy: 3 tensors by int4, relative error of task vectors " in ran.out
    assert " % overall, " in ran.out
    assert " % at worst" in ran.out
    assert (
        "note: stored lossily: a checkout gives back tensors near those that were added, and not their bits" in ran.err
    )
    repo.wvc("commit", "-m", "Add fine")
    repo.put("other", made / "other")
    assert "lossy    3 tensors by int4, relative error of task vectors " in repo.wvc("show", "fine")
    assert "lossy" not in repo.wvc("show", "other")
    lines = {line.split()[0]: line for line in repo.wvc("status").splitlines() if line}
    assert lines["fine"].endswith("%  lossy")
    assert lines["other"].endswith("%")
    assert [line["lossy"] for line in repo.json("status")["tasks"]] == [3, 0]
    for sides in (["fine"], ["other", "fine"], ["HEAD"], ["HEAD", "other"]):
        assert f"note: {NOTE}3 tensors by int4" in repo.run("diff", *sides).err
    assert "lossily" not in repo.run("diff", "other").err
    ran = repo.run("checkout", "--tasks", "fine", "-o", tmp_path / "one")
    assert ": fine lossy, 6 tensors" in ran.out
    assert f"note: {NOTE}3 tensors by int4, relative error of task vectors " in ran.err
    ran = repo.run("checkout", "--tasks", "other", "-o", tmp_path / "two")
    assert ": other bit for bit, " in ran.out
    assert "lossily" not in ran.err
    ran = repo.run("checkout", "-o", tmp_path / "both", "--dry-run")
    assert f"note: {NOTE}3 tensors" in ran.err


def test_a_lock_names_lossy_tasks_and_replays(repo, made, tmp_path):
    repo.put("other", made / "other")
    repo.put("fine", made / "fine", "--codec", "int4")
    for name, request, wanted in (
        ("both", (), ["fine"]),
        ("fine", ("--tasks", "fine"), ["fine"]),
        ("other", ("--tasks", "other"), None),
        ("base", ("--tasks", ""), None),
    ):
        if name != "base":
            repo.wvc("checkout", *request, "-o", tmp_path / name)
            lock = json.loads((tmp_path / name / "wvc.lock.json").read_text())
            assert lock.get("lossy") == wanted
            repo.wvc("verify", tmp_path / name, "--replay")
    done = repo.json("revert", "other")
    assert {item["output"] for item in done["rebuilt"]} >= {str(tmp_path / "both"), str(tmp_path / "other")}
    assert done["unproved"] == []
    repo.wvc("verify", tmp_path / "both", "--replay")
    repo.json("revert", "fine")
    assert "lossy" not in json.loads((tmp_path / "both" / "wvc.lock.json").read_text())
    repo.wvc("fsck", "--full")


def test_a_task_goes_from_lossless_to_lossy_and_back_as_versions(repo, made):
    first = repo.put("fine", made / "fine")
    ran = repo.run("add", made / "fine", "--task", "fine", "--codec", "int8")
    assert "staged a new version of task fine: " in ran.out
    assert "note: the committed version of task fine is lossless; this one is not" in ran.err
    repo.wvc("commit", "-m", "Lossy")
    again = repo.json("add", made / "fine", "--task", "fine", "--codec", "int8")
    assert again["change"] == "none"
    last = repo.put("fine", made / "fine")
    assert last["change"] == "version"
    assert last["manifest"] == first["manifest"]
    assert lossy_of(repo) == {}


def test_a_lossless_manifest_does_not_speak_of_it(repo, made):
    repo.put("fine", made / "fine")
    assert b"lossy" not in (repo.path / ".wvc/tasks/fine.json").read_bytes()


def test_a_base_is_never_lossy(made, wvc, tmp_path):
    ran = wvc("init", tmp_path / "new", "--base", made / "base", "--codec", "int4")
    assert ran.code == 2
    assert "codec int4 is lossy, and a base is kept as it is" in ran.err


def test_tensors_with_values_that_are_not_finite_are_kept_as_they_are(repo, models, tmp_path):
    odd = moved()
    odd["h.weight"][3, 3] = float("nan")
    models.write(tmp_path / "odd", odd)
    repo.put("fine", tmp_path / "odd", "--codec", "int4", "--allow-nonfinite")
    assert sorted(lossy_of(repo)) == ["embed.weight", "h.conv"]
    repo.wvc("checkout", "--tasks", "fine", "-o", tmp_path / "out")
    models.assert_same({"h.weight": models.read(tmp_path / "out")["h.weight"]}, {"h.weight": odd["h.weight"]})


def test_small_tensors_alone_lose_nothing(two, templates):
    ran = two.run("add", templates.root / "models/alpha", "--task", "small", "--codec", "int4")
    assert "note: codec int4 takes none of the tensors that moved; all are stored losslessly" in ran.err
    two.wvc("commit", "-m", "Small")
    assert lossy_of(two, "small") == {}


@pytest.mark.parametrize("codec", ["svd:0", "svd", "int3"])
def test_an_unknown_one_is_refused(repo, refused, made, codec):
    refused(repo, 3, "add", made / "fine", "--task", "x", "--codec", codec, says=f"codec '{codec}' is unknown")


@pytest.mark.parametrize("codec", ["intdelta", "int2"])
def test_what_is_added_again_after_a_loss_is_known(repo, made, tmp_path, codec):
    repo.put("fine", made / "fine", "--codec", "int4")
    repo.wvc("checkout", "--tasks", "fine", "-o", tmp_path / "out")
    ran = repo.run("add", tmp_path / "out", "--task", "again", "--codec", codec)
    assert "note: 3 tensors are what a lossy codec left of task fine: embed.weight, h.conv, h.weight" in ran.err
    assert "left of task" not in repo.run("add", made / "fine", "--task", "fine", "--codec", codec).err


def test_what_was_lost_is_not_blamed_on_the_codec_that_stores_it_now(repo, made):
    repo.put("fine", made / "fine", "--codec", "int4")
    assert "3 tensors by int4, relative error of task vectors " in repo.wvc("show", "fine")

    repo.wvc("repack", "fine", "--codec", "intdelta")
    repo.wvc("commit", "-m", "Anew")

    assert "lossy    3 tensors, relative error of task vectors " in repo.wvc("show", "fine")
