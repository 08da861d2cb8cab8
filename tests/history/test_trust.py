"""Who may write to a store: its owner, and whoever git was told to trust from outside of the repository."""

import os

import pytest

from weightvc.history.trust import refuse_strangers
from weightvc.util.errors import RequestError


@pytest.fixture
def store(repo):
    place = repo.path / ".git/wvc"
    place.mkdir()
    place.chmod(0o755)
    return place


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775, 0o2775, 0o770])
def test_a_store_that_its_owner_or_a_group_writes(repo, store, mode):
    store.chmod(mode)
    refuse_strangers(repo.git, store, store / "not there")


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777, 0o702])
def test_a_store_that_everybody_writes(repo, store, mode):
    store.chmod(mode)
    with pytest.raises(RequestError) as caught:
        refuse_strangers(repo.git, store.parent, store)
    assert caught.value.what == f"{store} can be written to by every user of this machine"
    accept = f"git config --global --add safe.directory {repo.path}"
    assert caught.value.hint == f"`chmod -R o-w {store}`, or accept it with `{accept}`"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_store_of_somebody_else(repo, store):
    os.chown(store, 4711, -1)
    with pytest.raises(RequestError) as caught:
        refuse_strangers(repo.git, store)
    assert caught.value.what == f"{store} belongs to somebody else than its repository"
    assert caught.value.hint.startswith(f"`chown -R {os.geteuid()} {store}`, or accept it with ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_store_of_whoever_owns_the_repository(repo, store):
    git = repo.git
    for path in (git.common_dir, store):
        os.chown(path, 4711, -1)
    refuse_strangers(git, store)


def test_a_link_is_not_followed(repo, store, tmp_path):
    """What a link leads to is not written through, and refused where it is met."""
    (tmp_path / "elsewhere").mkdir(mode=0o777)
    (store / "objects").symlink_to(tmp_path / "elsewhere")
    refuse_strangers(repo.git, store / "objects")


@pytest.mark.parametrize(
    ("values", "trusted"),
    [
        (["*"], True),
        (["{}"], True),
        (["{}/.git"], False),
        (["{}/../*"], False),
        (["/elsewhere"], False),
        (["/elsewhere", "{}"], True),
        (["{}", ""], False),
        (["", "{}"], True),
        (["/*"], True),
    ],
)
def test_whom_the_user_told_git_to_trust(repo, store, values, trusted):
    store.chmod(0o777)
    for value in values:
        repo.run("config", "--global", "--add", "safe.directory", value.format(repo.path))
    if trusted:
        refuse_strangers(repo.git, store)
    else:
        with pytest.raises(RequestError):
            refuse_strangers(repo.git, store)


def test_a_repository_cannot_ask_to_be_trusted(repo, store):
    store.chmod(0o777)
    repo.run("config", "safe.directory", "*")
    with pytest.raises(RequestError):
        refuse_strangers(repo.git, store)
