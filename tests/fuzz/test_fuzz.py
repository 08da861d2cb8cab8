"""Every parser takes or refuses whatever it is given, in little time: a short run of what ``run.py`` does for long."""

import importlib.util
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import large
import pytest
from parsers import PARSERS

from weightvc.util.errors import WeightvcError

HERE = Path(__file__).parent
SMALL, LARGE = 2**16, 2**20 - 2**10
SECONDS = 5
"""What a megabyte may take of a processor; a second, on one that has nothing else to do."""

SLOW = {"round_trip": 60, "torch": 400, "card": 800, "chunk": 3000, "cached_state": 1500, "pattern": 1500}
"""Runs of those that take more than a tenth of a millisecond each."""


KEPT = [
    pytest.param(name, path, id=f"{name}/{path.name}")
    for name in PARSERS
    for path in sorted((HERE / "regressions" / name).glob("*"))
]


@pytest.mark.parametrize("name", PARSERS)
def test_what_weightvc_writes_is_taken(name):
    taken = 0
    for data in PARSERS[name].seeds():
        with suppress(WeightvcError):
            PARSERS[name].check(data)
            taken += 1
    assert taken


@pytest.mark.parametrize(("name", "path"), KEPT)
def test_what_was_once_a_finding(name, path):
    with suppress(WeightvcError):
        PARSERS[name].check(path.read_bytes())


def test_every_kept_input_belongs_to_a_parser():
    assert {path.name for path in (HERE / "regressions").iterdir()} <= PARSERS.keys()


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", PARSERS)
def test_a_short_run_finds_nothing(name, tmp_path):
    path = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    runs = ["--runs", str(SLOW.get(name, 3000)), "--seconds", "4", "--seed", "1"]
    ran = subprocess.run(
        [sys.executable, str(HERE / "run.py"), name, *runs, "--findings", str(tmp_path / "findings")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(scratch)}, capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:].decode(errors="replace")
    assert not [*scratch.iterdir()], "a run leaves its scratch behind"
    assert b"stat::number_of_executed_units" in ran.stderr
    assert not [*(tmp_path / "findings").iterdir()]


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "round_trip"])
def test_a_megabyte_takes_no_more_than_its_share(name):
    """Linear within a wide margin, so that a busy machine does not fail it and what is quadratic does."""
    for small, big in zip(large.inputs(name, SMALL), large.inputs(name, LARGE), strict=True):
        before, taken = (_seconds(name, data) for data in (small, big))
        assert taken < SECONDS, big[:80]
        assert taken < 4 * LARGE / SMALL * max(before, 0.01), big[:80]


def _seconds(name, data):
    start = time.process_time()
    with suppress(WeightvcError):
        PARSERS[name].check(data)
    return time.process_time() - start
