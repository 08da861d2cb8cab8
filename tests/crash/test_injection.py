"""A process that dies, and a disk that fails or is full, at any change that a command makes.

``CRASH_STATES=all`` fails every single change; otherwise so many of each command, evenly spread.
``--log-cli-level=info`` prints how many there were.
"""

import errno
import logging
import os
import re
import shutil

import disk
import judge
import pytest
import recorder as recording

COMMANDS = {
    "init": ("nothing", ("init", ".", "--base", "{models}/base", "-j", "1")),
    "add": ("one", ("add", "{models}/beta", "--task", "beta", "-j", "1")),
    "commit": ("staged", ("commit", "-m", "Add beta")),
    "checkout": ("model", ("checkout", "-j", "1")),
}

FAULTS = {
    "SIGKILL": (recording.KILL, False),
    "EIO": (errno.EIO, False),
    "ENOSPC": (errno.ENOSPC, True),
    "EROFS": (errno.EROFS, True),
}
"""The error, and whether it lasts: a full disk stays full."""

_KEPT = re.compile(r"/pending\.json$|^\.model\.old-")

LOG = logging.getLogger(__name__)
STATES = os.environ.get("CRASH_STATES", "8")


class Faults:
    """Runs a command again and again, each time in a copy of where it starts, and fails another of its changes."""

    def __init__(self, name, *, recorder, starts, judged, models, arena):
        start, arguments = COMMANDS[name]
        self.arguments = [part.format(models=models) for part in arguments]
        self.start = starts[start]
        self._recorder, self._judged, self._arena = recorder, judged, arena
        self.root = arena / "fault"
        self.fired = 0
        self.held = ()
        whole = self._run(0, recording.KILL, lasting=False)
        assert whole.code == 0, whole.err
        self.total = whole.tried
        self.removals = {operation.number for operation in whole.operations if operation.kind in "ud"}
        self.new = judge.Judge.look(self.root)
        shutil.rmtree(self.root)

    def _run(self, at, error, *, lasting):
        judge.copy(self.start.path, self.root)
        self.held = disk.scan(self.root)
        return self._recorder.run(self.root, *self.arguments, at=at, error=error, lasting=lasting)

    def at(self, n, error, *, lasting):
        """Fail the n-th change and return what is wrong then."""
        ran = self._run(n, error, lasting=lasting)
        place = self.root.rename(self._arena / f"fault {n} {error}")
        self.fired += ran.fired
        wrong = _said(ran, error) if ran.fired else []
        wrong += self._unswept(place, ran, error) if n not in self.removals else []
        wrong += self._judged.violations(place, self.start.seen, self.new, done=ran.code == 0, unaided=False)
        shutil.rmtree(place)
        if ran.code == 0:
            wrong += self._undurable(place, ran)
        return [f"{n} of {self.total}: {what}" for what in wrong]

    def _unswept(self, place, ran, error):
        """Nothing is left of a command that could clear up, but for what the next one reads or gives its name back."""
        if error in {recording.KILL, errno.EROFS} or ran.code == 0:
            return []
        return [f"not swept: {name}" for name in judge.left_over(place) if not _KEPT.search(name)]

    def _undurable(self, place, ran):
        """A power cut takes nothing of a command that ended well, whatever failed on the way."""
        changed = disk.Disk(*self.held, ran.operations)
        found = []
        for crash in changed.crashes(len(changed)):
            disk.write(crash.tree, place)
            found += [f"ended well, but {crash}: {what}" for what in judge.differs(place, [self.new])]
            shutil.rmtree(place)
        return found


def _said(ran, error):
    """A failure is told in one line and a hint; one that changed nothing may go unsaid, or be a warning."""
    if error == recording.KILL:
        return [] if ran.code == -9 else [f"exit code {ran.code}: {ran.err}"]
    wrong = [f"a traceback: {ran.err}"] if "Traceback" in ran.err or ran.code not in {0, 3, 4} else []
    if ran.code and not ran.err.startswith("wvc: "):
        wrong.append(f"no clear error: {ran.err!r}")
    return wrong


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_at_any_change(name, *, fault, recorder, starts, judged, models, arena):
    error, lasting = FAULTS[fault]
    faults = Faults(name, recorder=recorder, starts=starts, judged=judged, models=models, arena=arena)
    step = 1 if STATES == "all" else max(1, -(-faults.total // int(STATES)))
    first = 1 + [*FAULTS].index(fault) * step // len(FAULTS)  # so that each fault meets others
    wrong = [what for n in range(first, faults.total + 1, step) for what in faults.at(n, error, lasting=lasting)]
    LOG.info("%s, %s: %d changes, %d made to fail", name, fault, faults.total, faults.fired)
    assert wrong == []
    assert faults.fired > 2
