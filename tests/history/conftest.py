import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from weightvc.history.git import GitDir, discover
from weightvc.util import fsio

TASK = ".wvc/tasks/a.json"


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch, tmp_path_factory):
    """Nobody's own git settings and no surrounding hook."""
    for name in [*os.environ]:
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("EMAIL", raising=False)
    return home


@dataclass(frozen=True)
class Sandbox:
    """A real repository, driven by plain git."""

    path: Path

    @property
    def git(self) -> GitDir:
        return discover(self.path)

    def run(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout.strip("\n")

    def write(self, path: str, text: str) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self, path: str, text: str, message: str = "by hand") -> str:
        self.write(path, text)
        self.run("add", path)
        self.run("commit", "-q", "-m", message)
        return self.run("rev-parse", "HEAD")

    def assert_clean(self) -> None:
        """Index and work tree are as HEAD says, and nothing of ours is left lying about."""
        assert self.run("status", "--porcelain", "--", ".wvc") == ""
        self.run("fsck", "--strict", "--no-dangling")
        assert not (self.git.git_dir / "wvc/commit").exists()
        assert not list(self.path.rglob("tmp-*"))


@pytest.fixture
def sandbox(tmp_path):
    """Make a repository: ``sandbox(name="repo", *git_init_options)``."""

    def make(name: str = "repo", *options: str) -> Sandbox:
        path = tmp_path / name
        path.mkdir()
        made = Sandbox(path)
        made.run("init", "-q", "-b", "main", *options)
        made.run("config", "user.name", "Ada")
        made.run("config", "user.email", "ada@example.com")
        return made

    return make


@pytest.fixture
def repo(sandbox):
    """A repository with one user file, committed."""
    made = sandbox()
    made.commit("README", "hello\n")
    return made


class Recorder(fsio.Ops):
    """Records operations by name and path, and fails the n-th one."""

    def __init__(self, fail_at: int = -1) -> None:
        self.seen: list[tuple[str, str]] = []
        self.fail_at = fail_at

    def _note(self, what: str, path: object) -> None:
        self.seen.append((what, str(path)))
        if len(self.seen) - 1 == self.fail_at:
            raise OSError(28, "No space left on device")

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
        self._note("rename", new)
        super().rename(old, new)

    def unlink(self, path):
        self._note("unlink", path)
        super().unlink(path)

    def mkdir(self, path):
        self._note("mkdir", path)
        super().mkdir(path)

    def rmtree(self, path):
        self._note("rmtree", path)
        super().rmtree(path)


@pytest.fixture
def record(monkeypatch):
    def start(fail_at: int = -1) -> Recorder:
        recorder = Recorder(fail_at)
        monkeypatch.setattr(fsio, "ops", recorder)
        return recorder

    return start
