"""A repository that a released format wrote is read for ever, and worked on."""

import json
import tarfile
from pathlib import Path

import pytest

ARCHIVES = sorted((Path(__file__).parents[1] / "golden").glob("repository-*.tar.xz"))
TASKS = ("adapter", "head", "lossy", "part", "whole")


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def golden(request, sandbox, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return sandbox(tmp_path / "repo")


def test_there_is_one_of_every_format(golden):
    assert [archive.name for archive in ARCHIVES] == ["repository-1.tar.xz"]
    assert (golden.path / ".wvc/config.toml").read_text().startswith("format = 1\n")


def test_a_golden_repository_is_whole_and_says_what_it_holds(golden):
    assert golden.json("fsck", "--full")["ok"]
    status = golden.json("status")
    assert sorted(task["task"] for task in status["tasks"]) == [*TASKS]
    assert status["staged"] == {".wvc/tasks/staged.json": "new"}
    assert len(golden.json("log")["commits"]) == 9
    (recipe,) = golden.json("recipe", "list")["recipes"]
    assert recipe["tasks"] == ["whole", "part=0.7", "adapter", "head"]
    assert recipe["rules"] == [r"pooler\..*=task_arithmetic:scaling=0.5"]


@pytest.mark.parametrize("task", TASKS)
def test_its_tasks_come_back_as_they_were_added(golden, models, tmp_path, task):
    golden.wvc("checkout", "--tasks", task, "-o", tmp_path / "out")

    wanted = models.contents(tmp_path / "models" / task)
    found = models.contents(tmp_path / "out")
    if task in ("whole", "lossy"):  # whose tensors are what is kept, of pickles and of a lossy codec
        weights = [files.pop(name) for files, name in ((wanted, "pytorch_model.bin"), (found, "model.safetensors"))
                   if name in files]  # fmt: skip
        assert len(weights) == (2 if task == "whole" else 1)
        wanted.pop("model.safetensors", None)
    assert found == wanted
    if task == "whole":
        models.assert_same(models.read(tmp_path / "out"), models.read(tmp_path / "models/whole"))


def test_its_checkout_verifies_and_is_built_again(golden, tmp_path):
    assert golden.json("verify", golden.path / "model", "--replay")["ok"]
    golden.wvc("checkout", "--recipe", "prod", "-o", tmp_path / "again")
    assert golden.json("verify", tmp_path / "again", "--replay")["ok"]


def test_work_goes_on(golden, models, tmp_path):
    golden.wvc("commit", "-m", "Add what was staged")
    done = golden.json("revert", "part", "-m", "Take it out")
    golden.put("more", tmp_path / "models/part")
    golden.wvc("checkout", "--tasks", "staged", "-o", tmp_path / "out")

    assert done["unproved"] == []
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "models/staged")
    assert golden.json("fsck", "--full")["ok"]
    assert len(list((golden.path / ".wvc/removals").iterdir())) == 2
    assert json.loads((golden.path / "model/wvc.lock.json").read_text())["recipe"]["tasks"] == [
        "whole",
        "adapter",
        "head",
    ]
