"""The power goes at any moment of any command that writes: what may then be on disk is whole, and old or new.

``CRASH_STATES=all`` checks every state that disk.py makes, which takes minutes; otherwise so many of each command.
``--log-cli-level=info`` prints how many there were.
"""

import logging
import os
import shutil

import disk
import judge
import pytest

COMMANDS = {
    "init": ("nothing", ("init", ".", "--base", "{models}/base", "-j", "1")),
    "add": ("one", ("add", "{models}/beta", "--task", "beta", "-j", "1")),
    "add a version": ("one", ("add", "{models}/beta", "--task", "alpha", "-j", "1")),
    "commit": ("staged", ("commit", "-m", "Add beta")),
    "checkout": ("two", ("checkout", "-j", "1")),
    "checkout again": ("model", ("checkout", "-j", "1")),
    "revert": ("model", ("revert", "alpha", "-j", "1")),
    "recipe save": ("two", ("recipe", "save", "prod", "--tasks", "alpha,beta=0.5")),
    "repack": ("two", ("repack", "alpha", "--codec", "raw", "-j", "1")),
    "unstage": ("staged", ("unstage",)),
}
"""Every command that writes: where it starts, and its command line."""

LOG = logging.getLogger(__name__)
STATES = os.environ.get("CRASH_STATES", "24")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_power_cut_at_any_moment(name, *, record, judged, models, arena):
    start, arguments = COMMANDS[name]
    recorded = record(start, *(part.format(models=models) for part in arguments))
    crashes = disk.distinct(recorded.disk, judge.UNREAD.fullmatch)
    chosen = crashes if STATES == "all" else disk.spread(crashes, int(STATES))
    wrong = []
    for n, crash in enumerate(chosen):
        root = arena / f"{name} {n}"
        disk.write(crash.tree, root)
        found = judged.violations(root, recorded.old, recorded.new, done=crash.ended)
        wrong += [f"{crash}: {what}" for what in found]
        shutil.rmtree(root)
    LOG.info("%s: %d changes, %d states, %d checked", name, len(recorded.disk), len(crashes), len(chosen))
    assert wrong == []
