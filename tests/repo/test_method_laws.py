"""What holds for merges by every method of the table."""

import shutil

import pytest
import torch

from weightvc.merge.table import METHODS
from weightvc.repo.decode import SPAN

ALL = pytest.mark.parametrize("method", METHODS)
WIDE = (3, SPAN // 2)
"""Shape of a tensor of several spans."""

GPU = "cuda"


def wide(seed):
    return torch.randn(WIDE, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.fixture(scope="module")
def tuned(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = models.base() | {"wide.weight": wide(0)}
    paths = {"base": models.write(root / "base", base)}
    for at, name in enumerate("abc", 1):
        tensors = models.tuned(base, at) | {"wide.weight": (wide(0) + 0.1 * wide(at)).bfloat16()}
        paths[name] = models.write(root / name, tensors)
    return paths


@pytest.fixture(scope="module")
def three(sandbox, tuned, wvc, tmp_path_factory):
    made = sandbox(tmp_path_factory.mktemp("three") / "repo")
    assert wvc("init", made.path, "--base", tuned["base"]).code == 0
    for name in "abc":
        made.put(name, tuned[name])
    return made


def tasks(method):
    """Two tasks for what is between two, else three."""
    return "a,b" if method == "slerp" else "a,b,c"


def digest(repo, *options):
    return repo.json("checkout", *options)["digest"]


@ALL
def test_the_number_of_threads_and_of_files_changes_no_byte(three, tmp_path, method):
    options = ("--tasks", tasks(method), "--method", method)
    digests = {
        digest(three, *options, "--jobs", jobs, "--max-shard-size", size, "-o", tmp_path / f"{jobs}{size}")
        for jobs, size in ((1, "5GB"), (2, "5GB"), (2, "1MB"))
    }
    assert len(digests) == 1


@ALL
def test_without_a_task_is_what_it_would_be_had_it_never_been_added(three, repository, tuned, tmp_path, method):
    first, sandbox = repository(tuned["base"], name="never"), type(three)
    for name in "ac":
        first.put(name, tuned[name])
    repo = sandbox(shutil.copytree(three.path, tmp_path / "repo", symlinks=True))
    repo.wvc("checkout", "--tasks", tasks(method), "--method", method, "-o", tmp_path / "out")

    removed = repo.json("revert", "b", "-m", "Take it out")

    assert removed["unproved"] == []
    left = "a,c"
    assert digest(repo, "--tasks", left, "--method", method, "-o", tmp_path / "x") == digest(
        first, "--tasks", left, "--method", method, "-o", tmp_path / "y"
    )


@ALL
def test_codecs_change_no_byte(three, sandbox, tmp_path, method):
    options = ("--tasks", tasks(method), "--method", method)
    before = digest(three, *options, "-o", tmp_path / "before")
    repo = sandbox(shutil.copytree(three.path, tmp_path / "repo", symlinks=True))
    repo.wvc("repack", "a", "--codec", "raw")
    repo.wvc("commit", "-m", "Raw")

    assert digest(repo, *options, "-o", tmp_path / "after") == before


@ALL
def test_one_task_alone_is_itself_and_replays_verify(three, tuned, models, tmp_path, method):
    three.wvc("checkout", "--tasks", "a", "--method", method, "-o", tmp_path / "one")
    assert models.contents(tmp_path / "one") == models.contents(tuned["a"])

    three.wvc("checkout", "--tasks", tasks(method), "--method", method, "-o", tmp_path / "all")

    assert three.json("verify", tmp_path / "all", "--replay")["ok"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@ALL
def test_a_gpu_gives_its_bytes_again_and_those_of_a_cpu_within_the_tolerance(three, tmp_path, method):
    options = ("--tasks", tasks(method), "--method", method, "--device", GPU)
    digests = {digest(three, *options, "--jobs", jobs, "-o", tmp_path / str(jobs)) for jobs in (1, 2)}

    assert len(digests) == 1
    for device in (GPU, "cpu"):
        assert three.json("verify", tmp_path / "1", "--replay", "--device", device)["ok"]


def test_a_checkout_says_how_far_mdm_oc_took_a_task_out(three, tmp_path):
    done = three.json("checkout", "--tasks", "a,b=0,c", "--method", "mdm-oc", "-p", "unmerge=subtract",
                      "-o", tmp_path / "out")  # fmt: skip
    (note,) = [note for note in done["notes"] if "subtraction" in note]
    assert note.startswith("task b: taken out by subtraction, an approximation: weight fidelity 0.")
    replayed = three.json("checkout", "--tasks", "a,b=0,c", "--method", "mdm-oc", "-o", tmp_path / "replayed")
    assert not any("subtraction" in note for note in replayed["notes"])
