import pytest

from weightvc.history.exclude import exclude
from weightvc.util.errors import Conflict


def test_a_pattern_is_added_once(repo):
    file = repo.git.common_dir / "info" / "exclude"
    before = file.read_text()
    (file.parent / "tmp-1-0123456789abcdef").write_bytes(b"of a killed process")
    for _ in range(2):
        exclude(repo.git, "/model/")
    assert file.read_text() == before + "/model/\n"
    assert [path.name for path in file.parent.iterdir()] == ["exclude"]
    repo.write("model/weights", "x")
    assert repo.run("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("old", "new"), [(None, "/m/\n"), ("", "/m/\n"), ("a", "a\n/m/\n"), ("/m/", "/m/"), ("x/m/\n", "x/m/\n/m/\n")]
)
def test_what_is_there_stays(repo, old, new):
    file = repo.git.common_dir / "info" / "exclude"
    file.unlink()
    if old is None:
        file.parent.rmdir()
    else:
        file.write_text(old)
    exclude(repo.git, "/m/")
    assert file.read_text() == new


@pytest.mark.parametrize("kind", ["link", "dangling", "directory"])
def test_a_link_is_refused(repo, tmp_path, kind):
    file = repo.git.common_dir / "info" / "exclude"
    file.unlink()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    file.mkdir() if kind == "directory" else file.symlink_to(victim if kind == "link" else tmp_path / "no")
    with pytest.raises(Conflict, match="exclude is not a regular file") as caught:
        exclude(repo.git, "/model/")
    assert caught.value.hint == "replace it by a file, or add the line /model/ yourself"
    assert victim.read_text() == "mine"


def test_linked_worktrees_share_the_list(repo, tmp_path):
    repo.run("worktree", "add", "-q", str(tmp_path / "other"))
    exclude(type(repo)(tmp_path / "other").git, "/model/")
    assert "/model/" in (repo.path / ".git" / "info" / "exclude").read_text()
