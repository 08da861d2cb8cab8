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
    "gc": ("littered", ("gc", "--grace", "0")),
    "fsck --repair": ("damaged", ("fsck", "--repair", "--from", "{models}/../starts/two", "-j", "1")),
}
"""Every command that writes: where it starts, and its command line."""

AGAIN = {"fsck --repair"}
"""Commands that mend what is broken before them: run again, they must go on where they were cut off."""

LOG = logging.getLogger(__name__)
STATES = os.environ.get("CRASH_STATES", "24")


@pytest.fixture
def wrong(judged, arena, request):
    """Check what a power cut during a recorded command may leave, and return what is wrong: ``wrong(recorded)``."""

    def check(recorded, arguments=()):
        crashes = disk.distinct(recorded.disk, judge.UNREAD.fullmatch)
        chosen = crashes if STATES == "all" else disk.spread(crashes, int(STATES))
        name = request.node.callspec.id
        LOG.info("%s: %d changes, %d states, %d checked", name, len(recorded.disk), len(crashes), len(chosen))
        found = []
        for n, crash in enumerate(chosen):
            root = arena / f"{name} {n}"
            disk.write(crash.tree, root)
            judge.restart(root)
            if name in AGAIN:
                assert judged.run(root, *arguments).code == 0
            left = judged.violations(root, recorded.old, recorded.new, done=crash.ended, unaided=True)
            found += [f"{crash}: {what}" for what in left]
            shutil.rmtree(root)
        return found

    return check


@pytest.mark.parametrize("name", COMMANDS)
def test_a_power_cut_at_any_moment(name, record, wrong, models):
    start, words = COMMANDS[name]
    arguments = [word.format(models=models) for word in words]

    assert wrong(record(start, *arguments), arguments) == []


def _unsettled(tree, head):
    """The commit is made, but nothing else knows of it yet."""
    moved = tree[".git/refs/heads/main"].decode() == f"{head}\n" and ".git/HEAD.lock" not in tree
    return moved and ".git/wvc/commit/pending.json" in tree


def _aside(tree, _):
    """The old model is moved aside, and the new one is not there yet."""
    return "model" not in tree and any(name.startswith(".model.old-") for name in tree)


@pytest.mark.parametrize(
    ("name", "when", "then"),
    [("commit", _unsettled, ("status",)), ("checkout again", _aside, ("checkout", "-j", "1"))],
    ids=["commit", "checkout"],
)
def test_a_second_power_cut_while_the_first_is_repaired(name, when, then, *, record, wrong):
    start, arguments = COMMANDS[name]
    first = record(start, *arguments)
    whole = (first.disk.crashes(after) for after in range(len(first.disk)))
    done = (crash for crashes in whole for crash in crashes if crash.what == "everything is there")
    crash = next(crash for crash in done if when(crash.tree, first.new.head))
    second = record(crash, *then)

    assert (second.new.head, second.new.model) == (first.new.head, first.new.model)
    assert len(second.disk) > 10
    assert wrong(second) == []
