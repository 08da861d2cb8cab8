"""Push and fetch through an S3 server, and what it costs."""

import pytest

from weightvc.remote import retry
from weightvc.remote.bucket import Bucket


@pytest.fixture
def shared(two, s3):
    """A repository with a bucket to push to."""
    two.wvc("remote", "add", "cloud", f"s3://{s3}/team")
    return two


def another(repo, s3, path):
    repo.git("clone", "-q", str(repo.path), str(path))
    made = type(repo)(path)
    made.wvc("remote", "add", "cloud", f"s3://{s3}/team")
    return made


def test_push_and_fetch(shared, s3, tmp_path):
    sent = shared.json("push", "cloud", "--objects-only")
    assert sent["objects"] == len(shared.objects())
    assert shared.json("remote", "test", "cloud")["present"] > 0
    other = another(shared, s3, tmp_path / "clone")
    assert other.json("fetch", "cloud", "--all")["bytes"] == sent["bytes"]
    assert other.json("fsck", "--full")["ok"]


def test_a_second_push_sends_nothing_and_asks_little(shared, monkeypatch):
    shared.wvc("push", "--objects-only")
    asked = []
    real = Bucket._listed
    monkeypatch.setattr(Bucket, "put", None)
    monkeypatch.setattr(Bucket, "_listed", lambda self, shard: asked.append(shard) or real(self, shard))
    assert shared.json("push", "--objects-only")["objects"] == 0
    assert len(asked) < len(shared.objects())


def test_a_push_and_a_fetch_that_are_cut_off_go_on(shared, s3, tmp_path, monkeypatch):
    """Each at every object: what has arrived is not moved again."""
    monkeypatch.setattr(retry, "PAUSES", ())
    total = len(shared.objects())
    moved = []
    for method, repo, words in (
        ("put_file", shared, ("push", "cloud", "--objects-only")),
        ("get_file", another(shared, s3, tmp_path / "clone"), ("fetch", "cloud", "--all", "--objects-only")),
    ):
        for _ in range(total + 1):
            with monkeypatch.context() as patch:
                patch.setattr(Bucket, "__init__", _failing(Bucket.__init__, method, 1, moved))
                ran = repo.run(*words, "-j", "1")
                if ran.code == 0:
                    break
                assert ran.code == 5
                assert "hint: try again; what has arrived is not sent again" in ran.err
        repo.wvc(*words)
        assert repo.json("fsck", "--full")["ok"] or repo is shared
    assert len(moved) == 2 * total


def _failing(real, method, after, moved):
    """Make a store whose file system moves ``after`` files and then fails."""

    def init(self, url, files, tmp):
        real(self, url, files, tmp)
        inner, left = getattr(files, method), [after]

        def call(*arguments, **options):
            if not left[0]:
                raise OSError("connection reset")
            left[0] -= 1
            inner(*arguments, **options)
            moved.append(arguments)

        setattr(files, method, call)

    return init
