import os

import pytest

from weightvc.util import fsio


class Recorder(fsio.Ops):
    """Performs operations, recording their names and paths, and fails the n-th."""

    def __init__(self, fail_at=-1):
        self.seen = []
        self.fail_at = fail_at

    def __getattribute__(self, name):
        real = super().__getattribute__(name)
        if name not in vars(fsio.Ops):
            return real

        def step(*arguments):
            shown = [os.readlink(f"/proc/self/fd/{a}") if type(a) is int else a for a in arguments[:2]]
            self.seen.append((name, *(os.path.basename(str(a)) for a in shown if isinstance(a, str | os.PathLike))))
            if len(self.seen) - 1 == self.fail_at:
                raise OSError(5, "Input/output error")
            return real(*arguments)

        return step


@pytest.fixture
def record(monkeypatch):
    def start(fail_at=-1):
        recorder = Recorder(fail_at)
        monkeypatch.setattr(fsio, "ops", recorder)
        return recorder

    return start
