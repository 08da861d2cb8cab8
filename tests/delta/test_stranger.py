"""A codec of another distribution: found by its entry point, held to the laws, missed with words when it is gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from weightvc.testing.codecs import CodecLaws
from weightvc.util import plugins

HERE = Path(__file__).parent / "stranger"


class TestRuns(CodecLaws):
    """The laws, as the stranger's own tests would run them."""

    codec = "runs"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _installed(cls):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(HERE))
            plugins.load.cache_clear()
            yield
        plugins.load.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every command of this module."""


def wvc(*arguments, installed):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, *([str(HERE)] if installed else [])])
    command = [sys.executable, "-m", "weightvc", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def repo(tmp_path, models):
    models.write(tmp_path / "base", models.base())
    models.write(tmp_path / "tuned", models.tuned(models.base(), 1))
    assert wvc("init", tmp_path / "repo", "--base", tmp_path / "base", installed=True).returncode == 0
    return tmp_path / "repo"


def test_it_stores_and_checks_out_and_is_missed_when_it_is_gone(repo, tmp_path):
    added = wvc("-C", repo, "--json", "add", tmp_path / "tuned", "--task", "t", "--codec", "runs", installed=True)
    assert json.loads(added.stdout)["codec"] == "runs"
    assert wvc("-C", repo, "commit", "-m", "t", installed=True).returncode == 0
    assert wvc("-C", repo, "checkout", "--tasks", "t", "-o", tmp_path / "out", installed=True).returncode == 0
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (tmp_path / "tuned" / weights).read_bytes()
    gone = wvc("-C", repo, "checkout", "--tasks", "t", "-o", tmp_path / "gone", installed=False)
    assert gone.returncode == 3
    assert "codec 'runs' is unknown" in gone.stderr
    assert "for others upgrade weightvc, or install the package that provides it" in gone.stderr
    assert not (tmp_path / "gone").exists()
    refused = wvc("-C", repo, "add", tmp_path / "tuned", "--task", "u", "--codec", "runs", installed=False)
    assert (refused.returncode, "codec 'runs' is unknown" in refused.stderr) == (3, True)
