"""Making repositories."""

import json
import subprocess

import pytest
import torch

import weightvc
from weightvc.repo import init as inits


def test_a_new_directory_becomes_a_repository(wvc, templates, tmp_path):
    path = tmp_path / "a/b"

    done = wvc("--json", "init", path, "--base", templates.base).json

    assert done["schema"] == "weightvc/init/1"
    assert done["repository"] == str(path)
    assert done["base"]["tensors"] == 17
    assert done["base"]["bytes"] == 6404
    assert 0 < done["base"]["stored_bytes"] < 9000
    log = subprocess.run(["git", "-C", path, "log", "--format=%H %s"], capture_output=True, text=True, check=True)
    assert log.stdout == f"{done['commit']} wvc init --base base\n"
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


@pytest.mark.parametrize("where", ["new", "deep/new"])
def test_a_new_directory_in_a_repository_becomes_one_of_its_own(two, wvc, models, tmp_path, where):
    head, base = two.git("rev-parse", "HEAD"), (two.path / ".wvc/base.json").read_bytes()
    path = two.path / where

    done = wvc("--json", "init", path, "--base", models.write(tmp_path / "other", models.base(5))).json

    assert done["repository"] == str(path)
    assert weightvc.open(path).status().base == done["base"]["digest"]
    assert (two.git("rev-parse", "HEAD"), (two.path / ".wvc/base.json").read_bytes()) == (head, base)


def test_a_failed_init_in_a_repository_leaves_it_alone(two, refused, templates):
    (two.path / "kept").mkdir()

    refused(two, 3, "init", two.path / "kept/new/deep", "--base", templates.base, "--codec", "zip", says="zip")


@pytest.mark.parametrize("damage", ["empty", "file", "link", "head"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_git_directory_that_git_cannot_read_is_left_alone(two, refused, templates, tmp_path, *, damage, inside):
    path = (two.path if inside else tmp_path) / "damaged"
    path.mkdir()
    own = path / ".git"
    match damage:
        case "empty":
            own.mkdir()
        case "file":
            own.write_text(f"gitdir: {tmp_path / 'gone'}\n")
        case "link":
            own.symlink_to(tmp_path / "gone")
        case "head":
            subprocess.run(["git", "init", "-q", path], check=True)
            (own / "HEAD").unlink()
    before = sorted(path.rglob("*"))

    for options in ((), ("--dry-run",)):
        refused(
            two, 3, "init", path, "--base", templates.base, *options, says=f"{own} exists but git cannot read it",
            hint="repair it with git, or move it away",
        )  # fmt: skip

    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("where", ["file", "file/sub", "link", "link/sub"])
def test_a_place_that_cannot_be_a_directory(wvc, templates, tmp_path, where):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")

    ran = wvc("init", tmp_path / where, "--base", templates.base)

    assert (ran.code, ran.out) == (3, "")
    assert f"{tmp_path / where.partition('/')[0]} is not a directory\nhint: name another directory" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_base_that_another_process_commits_meanwhile_stays(wvc, templates, models, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    take = inits.snapshot.take

    def late(*args, **named):
        monkeypatch.setattr(inits.snapshot, "take", take)
        assert wvc("init", tmp_path / "repo", "--base", templates.base).code == 0
        return take(*args, **named)

    monkeypatch.setattr(inits.snapshot, "take", late)
    ran = wvc("init", tmp_path / "repo", "--base", models.write(tmp_path / "other", models.base(5)))

    assert (ran.code, ran.out) == (3, "")
    assert f"{tmp_path / 'repo'} is a weightvc repository already" in ran.err
    log = subprocess.run(["git", "-C", tmp_path / "repo", "log", "--format=%s"], capture_output=True, check=True)
    assert log.stdout == b"wvc init --base base\n"


def test_what_another_process_makes_meanwhile_is_not_removed(wvc, templates, tmp_path, monkeypatch):
    path, make_dirs = tmp_path / "new/repo", inits.fsio.make_dirs

    def late(directory):
        monkeypatch.setattr(inits.fsio, "make_dirs", make_dirs)
        assert wvc("init", path, "--base", templates.base).code == 0
        make_dirs(directory)

    monkeypatch.setattr(inits.fsio, "make_dirs", late)
    ran = wvc("init", path, "--base", templates.base)

    assert (ran.code, ran.out) == (3, "")
    assert f"another process makes a repository at {path}\nhint: look at it with `wvc status`" in ran.err
    assert weightvc.open(path).fsck(full=True).ok


def test_git_may_hash_with_sha256(wvc, sandbox, templates, tmp_path):
    subprocess.run(["git", "init", "-q", "--object-format=sha256", str(tmp_path / "new")], check=True)
    assert wvc("init", tmp_path / "new", "--base", templates.base).code == 0
    made = sandbox(tmp_path / "new")
    assert made.json("status")["edited"] == []

    (made.path / ".wvc/config.toml").write_text("")

    assert made.json("status")["edited"] == [".wvc/config.toml"]
    made.git("restore", ".wvc")
    for file in (made.path / ".wvc").rglob("*.*"):  # as git writes them with core.autocrlf
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert made.json("status")["edited"] == []


def test_what_a_killed_one_left_is_cleared_away(wvc, templates, tmp_path):
    (tmp_path / "repo/..git.wvc-1-0123abcd/.git").mkdir(parents=True)

    assert wvc("init", tmp_path / "repo", "--base", templates.base).code == 0

    assert sorted(path.name for path in (tmp_path / "repo").iterdir()) == [".git", ".wvc"]


@pytest.mark.parametrize("how", ["symbolic", "link", "directories"])
def test_a_branch_without_commits_behind_another_name(repository_of_git, templates, how):
    repo = repository_of_git
    if how == "symbolic":
        repo.git("symbolic-ref", "refs/heads/master", "refs/heads/main")
        repo.git("symbolic-ref", "HEAD", "refs/heads/master")
    elif how == "directories":
        (repo.path / ".git/refs/heads/main/x").mkdir(parents=True)
    else:
        (repo.path / ".git/HEAD").unlink()
        (repo.path / ".git/HEAD").symlink_to("refs/heads/main")
    repo.wvc("init", ".", "--base", templates.base)
    repo.wvc("status")


@pytest.fixture
def repository_of_git(two, tmp_path):
    two.git("init", "-q", "--initial-branch=main", str(tmp_path / "new"))
    return type(two)(tmp_path / "new")
