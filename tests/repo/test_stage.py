import os
import shutil
import threading

import pytest

from weightvc.repo import stage
from weightvc.util import fsio
from weightvc.util.errors import Conflict


def test_what_is_staged_is_what_was_put_last(two):
    repo = two.api()

    stage.put(repo, ".wvc/tasks/a.json", b"one")
    stage.put(repo, ".wvc/tasks/a.json", b"two")
    stage.delete(repo, ".wvc/recipes/r.toml")
    stage.put(repo, ".wvc/recipes/s.toml", b"three")
    stage.delete(repo, ".wvc/recipes/s.toml")
    assert stage.changes(repo) == {
        ".wvc/recipes/r.toml": None,
        ".wvc/recipes/s.toml": None,
        ".wvc/tasks/a.json": b"two",
    }

    stage.put(repo, ".wvc/recipes/r.toml", b"again")
    stage.forget(repo, ".wvc/recipes/s.toml")
    assert stage.changes(repo) == {".wvc/recipes/r.toml": b"again", ".wvc/tasks/a.json": b"two"}


def test_scratch_files_and_links_are_passed_over(two, tmp_path):
    repo = two.api()
    stage.put(repo, ".wvc/tasks/a.json", b"one")
    (repo.stage_dir / "tasks/tmp-123-0123456789abcdef").write_bytes(b"torn")
    (repo.stage_dir / "tasks/b.json").symlink_to(tmp_path)
    (repo.stage_dir / "tasks/c.json").mkdir()

    assert stage.changes(repo) == {".wvc/tasks/a.json": b"one"}
    stage.put(repo, ".wvc/recipes/r.toml", b"two")
    assert sorted(path.name for path in (repo.stage_dir / "tasks").iterdir()) == ["a.json", "b.json", "c.json"]


@pytest.mark.parametrize(
    "name", ["evil/x", "tasks/x.toml", "tasks/X.json", "tasks/x.json~", "recipes/x.json", "removals/x.json", "tasks/x"]
)
@pytest.mark.parametrize("suffix", ["", ".removed"])
def test_what_wvc_does_not_stage_is_named_and_never_committed(two, name, suffix):
    file = two.path / ".git/wvc/stage" / (name + suffix)
    file.parent.mkdir(parents=True, exist_ok=True)
    before = two.everything()
    file.write_bytes(b"x")

    for command in (("status",), ("commit", "-m", "x"), ("checkout", "--dry-run")):
        ran = two.run(*command)
        assert (ran.code, ran.err) == (4, f"wvc: {file}: wvc stages no file of that name\nhint: move it away\n")
    file.unlink()
    assert two.everything() == before


def test_a_manifest_staged_under_another_name_is_not_committed(two, templates):
    two.wvc("add", templates.alpha, "--task", "new")
    place = two.path / ".git/wvc/stage/tasks"
    (place / "new.json").rename(place / "other.json")

    ran = two.run("commit", "-m", "x")

    assert ran.code == 4
    assert ran.err.startswith(
        "wvc: the manifest staged as .wvc/tasks/other.json says that it is new\nhint: run `wvc un"
    )


@pytest.mark.parametrize("where", [".git/wvc/outputs", ".git/wvc/stage/tasks/x.json"])
def test_what_is_too_large_to_be_wvcs_is_named(two, where):
    file = two.path / where
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.truncate(file, 5 * 2**30)

    ran = two.run("status")

    assert ran.code == 4
    assert ran.err.startswith(f"wvc: {file}: 5368709120 bytes, more than the limit of ")
    assert "hint: delete it, and " in ran.err


def test_a_file_in_the_work_tree_that_is_too_large_is_an_edit(two):
    (two.path / ".wvc/tasks/alpha.json").write_bytes(b"")
    os.truncate(two.path / ".wvc/tasks/alpha.json", 5 * 2**30)

    assert two.json("status")["edited"] == [".wvc/tasks/alpha.json"]


def test_nothing_is_staged_at_first(two):
    assert stage.changes(two.api()) == {}


def test_settling_drops_what_was_committed_and_keeps_what_is_new(two):
    repo = two.api()
    stage.put(repo, ".wvc/tasks/a.json", b"one")
    stage.put(repo, ".wvc/tasks/b.json", b"one")
    stage.delete(repo, ".wvc/tasks/c.json")
    committed = stage.changes(repo)
    stage.put(repo, ".wvc/tasks/b.json", b"newer")

    stage.settle(repo, {**committed, ".wvc/tasks/d.json": b"elsewhere"})

    assert stage.changes(repo) == {".wvc/tasks/b.json": b"newer"}


def test_a_worktree_has_a_stage_of_its_own(two, templates, tmp_path):
    two.git("worktree", "add", "-q", str(tmp_path / "tree"))
    tree = type(two)(tmp_path / "tree")
    tree.wvc("add", templates.alpha, "--task", "new")

    assert two.json("status")["staged"] == {}
    assert tree.json("commit", "-m", "Add it")["tasks"] == ["new"]
    assert [task["task"] for task in tree.json("status")["tasks"]] == ["alpha", "beta", "new"]


@pytest.mark.parametrize("name", ["tmp-x", "tmp-1-0123456789abcdef"])
def test_a_task_may_be_named_like_a_scratch_file(two, templates, name):
    two.wvc("add", templates.alpha, "--task", name)
    two.wvc("recipe", "save", name, "--tasks", "beta")

    done = two.json("commit", "-m", "Add it")

    assert (done["tasks"], done["recipes"]) == ([name], [name])


@pytest.mark.parametrize("change", ["put", "delete", "forget", "settle"])
def test_whoever_changes_the_stage_waits_for_its_lock(two, change):
    repo, path = two.api(), ".wvc/tasks/a.json"
    stage.put(repo, path, b"one")
    more = {"put": [path, b"two"], "settle": [{path: b"one"}]}.get(change, [path])
    thread = threading.Thread(target=getattr(stage, change), args=(repo, *more))

    with fsio.locked(two.path / ".git/wvc/stage.lock", shared=False):
        thread.start()
        thread.join(0.2)
        assert stage.changes(repo) == {path: b"one"}
    thread.join(10)

    wanted = {"put": {path: b"two"}, "delete": {path: None}, "forget": {}, "settle": {}}
    assert stage.changes(repo) == wanted[change]


@pytest.mark.parametrize("where", ["stage", "stage/tasks"])
def test_a_link_in_the_place_of_a_directory_is_refused(two, tmp_path, where):
    place = two.path / ".git/wvc" / where
    shutil.rmtree(place)
    (tmp_path / "victim").mkdir()
    place.symlink_to(tmp_path / "victim")

    with pytest.raises(Conflict, match=f"{place} is not a plain directory; wvc writes nothing through it"):
        stage.put(two.api(), ".wvc/tasks/a.json", b"one")
    with pytest.raises(Conflict, match="not a plain directory"):
        stage.delete(two.api(), ".wvc/tasks/a.json")
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_version_that_another_process_commits_meanwhile_is_not_staged_any_more(two, templates, monkeypatch):
    two.wvc("add", templates.alpha, "--task", "new")
    read = stage._read
    monkeypatch.setattr(stage, "_read", lambda file: (file.unlink(), read(file)))

    assert stage.changes(two.api()) == {}
