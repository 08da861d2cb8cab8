"""A repository that may be read but not written: on read-only media, or another user's."""

import errno
import os
import tempfile

import pytest

from weightvc.util import canon, fsio


@pytest.fixture
def read_only(two, monkeypatch):
    """Give a repository in which every write fails: ``read_only(errno)``."""

    def make(code: int):
        class ReadOnly(fsio.Ops):
            def create(self, path):
                self._refuse(path)
                return super().create(path)

            def mkdir(self, path):
                self._refuse(path)
                super().mkdir(path)

            def rename(self, old, new):
                self._refuse(new)
                super().rename(old, new)

            @staticmethod
            def _refuse(path):
                if path.is_relative_to(two.path):
                    raise OSError(code, os.strerror(code), str(path))

        monkeypatch.setattr(fsio, "ops", ReadOnly())
        return two

    return make


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_replay_a_diff_and_a_checkout_elsewhere_work(two, read_only, models, tmp_path, monkeypatch, *, code):
    two.wvc("checkout", "-o", tmp_path / "before")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    repo = read_only(code)
    everything = repo.everything()

    assert repo.json("verify", tmp_path / "before", "--replay")["ok"]
    assert repo.json("diff", "HEAD")["total"]["changed_a"] > 0
    ran = repo.run("checkout", "-o", tmp_path / "out")
    again = repo.json("checkout", "-o", tmp_path / "before")

    warning = f"{repo.path}/.git/wvc is read-only: `wvc revert` will not know of {tmp_path / 'out'}"
    assert (ran.code, ran.err) == (0, f"warning: {warning}\n")
    assert again["warnings"] == []
    assert repo.json("checkout", "-o", tmp_path / "out")["warnings"] == [warning]
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "before")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "out", "repo", "scratch"]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert repo.everything() == everything


def test_a_full_disk_is_no_read_only_one(read_only, refused, tmp_path):
    repo = read_only(errno.ENOSPC)

    refused(repo, 3, "checkout", "-o", tmp_path / "out", says="No space left on device")
    refused(repo, 3, "diff", "HEAD", says="No space left on device")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo"]


def test_an_interrupted_commit_does_not_stop_those_who_read(two, read_only, monkeypatch):
    def refuse(path, **_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(fsio, "locked", refuse)
    scratch = two.path / ".git/wvc/commit"
    scratch.mkdir()
    head = two.git("rev-parse", "HEAD")
    (scratch / "pending.json").write_bytes(
        canon.document({"boot": "", "commit": head, "paths": [".wvc/tasks/alpha.json"]})
    )

    ran = read_only(errno.EROFS).run("status")

    assert ran.code == 0
    assert "warning: what an interrupted commit left in" in ran.err
    assert "alpha" in ran.out
