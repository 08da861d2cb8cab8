"""Making repositories."""

import json
import subprocess

import pytest
import torch

import weightvc


def test_a_new_directory_becomes_a_repository(wvc, templates, tmp_path):
    path = tmp_path / "a/b"

    done = wvc("--json", "init", path, "--base", templates.base).json

    assert done["schema"] == "weightvc/init/1"
    assert done["repository"] == str(path)
    assert done["base"]["tensors"] == 17
    assert done["base"]["bytes"] == 6404
    assert 0 < done["base"]["stored_bytes"] < 9000
    log = subprocess.run(["git", "-C", path, "log", "--format=%H %s"], capture_output=True, text=True, check=True)
    assert log.stdout == f"{done['commit']} wvc init: base base\n"
    assert json.loads((path / ".wvc/base.json").read_text())["version"] == done["base"]["digest"]
    assert (path / ".wvc/config.toml").read_text() == 'format = 1\n\n[merge]\nmethod = "opcm-s"\n\n[merge.params]\n'


def test_a_git_repository_gets_weightvc(wvc, templates, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "mine").write_text("mine")
    subprocess.run(["git", "-C", tmp_path, "add", "mine"], check=True)
    (tmp_path / "sub").mkdir()

    assert wvc("init", tmp_path / "sub", "--base", templates.base).code == 0

    status = subprocess.run(
        ["git", "-C", tmp_path, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert status.stdout == "A  mine\n"
    assert (tmp_path / ".wvc/base.json").is_file()


def test_a_second_base_is_refused(two, refused, templates):
    for options in ((), ("--dry-run",)):
        refused(
            two, 3, "init", two.path, "--base", templates.base, *options,
            says=f"{two.path} is a weightvc repository already", hint="add fine-tunes with `wvc add PATH --task NAME`",
        )  # fmt: skip


def test_a_dry_run_makes_nothing(wvc, templates, tmp_path):
    ran = wvc("init", tmp_path / "new", "--base", templates.base, "--dry-run")

    first, second = ran.out.splitlines()
    assert first == f"would make {tmp_path / 'new'} over 17 tensors, 6.3 KiB"
    assert second.startswith("peak memory ")
    assert list(tmp_path.iterdir()) == []
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert wvc("init", tmp_path, "--base", templates.base, "-n").code == 0
    assert not (tmp_path / ".git/wvc").exists()


@pytest.mark.parametrize("bad", ["missing", "nan", "codec"])
def test_nothing_is_left_of_an_init_that_failed(wvc, models, templates, tmp_path, bad):
    base = templates.base
    if bad == "nan":
        tensors = {**models.base(), "large": torch.ones(300, 300), "odd": torch.tensor(float("nan"))}
        base = models.write(tmp_path / "bad", tensors)
    options = ["--codec", "zip"] if bad == "codec" else []

    ran = wvc("init", tmp_path / "new/repo", "--base", tmp_path / "no" if bad == "missing" else base, *options)

    assert ran.code == 3
    assert not (tmp_path / "new").exists()
    subprocess.run(["git", "init", "-q", tmp_path / "old"], check=True)
    assert wvc("init", tmp_path / "old", "--base", tmp_path / "no" if bad == "missing" else base, *options).code == 3
    assert not (tmp_path / "old/.git/wvc").exists()
    assert [path.name for path in (tmp_path / "old").iterdir()] == [".git"]


def test_a_bare_repository(wvc, templates, tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", tmp_path], check=True)

    ran = wvc("init", tmp_path, "--base", templates.base)

    assert (ran.code, ran.out) == (3, "")
    assert "is in a git repository without a work tree" in ran.err


def test_the_library_initializes_too(templates, tmp_path):
    done = weightvc.initialize(tmp_path / "repo", templates.base, jobs=1)

    assert done.base.tensors == 17
    assert weightvc.open(tmp_path / "repo").status().base == done.base.digest


def test_a_file_can_be_a_base(wvc, templates, tmp_path):
    ran = wvc("init", tmp_path / "repo", "--base", templates.base / "model.safetensors")

    assert ran.out.splitlines()[0].endswith("with 17 tensors")
    assert json.loads((tmp_path / "repo/.wvc/base.json").read_text())["files"] == []
