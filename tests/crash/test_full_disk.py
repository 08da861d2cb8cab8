"""A file system that is full of bytes or of files, but for some room: old state, clear words, nothing left over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")
SCENARIOS = [
    f"{name}, {kind}" for name in ("init", "add", "commit", "checkout", "revert") for kind in ("bytes", "inodes")
]


@pytest.fixture(scope="module")
def results(namespace, starts, models, tmp_path_factory):
    """What full_disk.py found."""
    where = tmp_path_factory.mktemp("full")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*namespace, sys.executable, str(SCRIPT), str(starts["one"].path.parent), str(models), str(where)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_full_disk(results, scenario):
    assert results[scenario]["wrong"] == []
    assert results[scenario]["short"] > 0
