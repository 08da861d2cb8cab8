import os
from pathlib import Path

import pytest

from weightvc.store.local import LocalStore
from weightvc.util import fsio


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "wvc" / "objects", tmp_path / "wvc" / "tmp")


class Recorder(fsio.Ops):
    """Performs every operation, records it by name and path, and fails the n-th one with ``error``."""

    def __init__(self, fail_at=-1, error=None):
        self.seen = []
        self.fail_at = fail_at
        self.error = error or OSError(28, "No space left on device")

    def _note(self, what, *paths):
        self.seen.append((what, *(str(path) for path in paths)))
        if len(self.seen) - 1 == self.fail_at:
            raise self.error

    def create(self, path):
        self._note("create", path)
        return super().create(path)

    def pwrite(self, fd, data, offset):
        self._note("pwrite", os.readlink(f"/proc/self/fd/{fd}"))
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        self._note("fsync", os.readlink(f"/proc/self/fd/{fd}"))
        super().fsync(fd)

    def rename(self, old, new):
        self._note("rename", old, new)
        super().rename(old, new)

    def link(self, old, new):
        self._note("link", old, new)
        super().link(old, new)

    def unlink(self, path):
        self._note("unlink", path)
        super().unlink(path)

    def mkdir(self, path):
        self._note("mkdir", path)
        super().mkdir(path)

    def utime(self, path):
        self._note("utime", path)
        super().utime(path)


@pytest.fixture
def record(monkeypatch):
    def start(**options):
        recorder = Recorder(**options)
        monkeypatch.setattr(fsio, "ops", recorder)
        return recorder

    return start


@pytest.fixture
def file_of():
    def path(store: LocalStore, oid: str) -> Path:
        return store.root / oid[:2] / oid[2:]

    return path
