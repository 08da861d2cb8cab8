"""Deleting what nothing refers to, and never anything else."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from weightvc.repo import guard


def age(repo, days, oids=None):
    """Let objects have been put so many days ago."""
    then = time.time() - days * 86400
    for oid in oids or repo.objects():
        os.utime(repo.object_file(oid), (then, then))


@pytest.fixture
def littered(two, templates):
    """A repository with objects that nothing refers to, two weeks and a day old."""
    before = two.objects()
    two.wvc("add", templates.alpha, "--task", "extra", "--codec", "raw")
    two.wvc("unstage", "extra")
    left = two.objects() - before
    assert left
    age(two, 15)
    return two, left


def test_what_nothing_refers_to_goes_and_all_else_stays(littered, tmp_path):
    repo, left = littered
    size = sum(repo.object_file(oid).stat().st_size for oid in left)
    used = repo.objects() - left

    planned = repo.json("gc", "-n")
    assert repo.objects() == used | left
    done = repo.json("gc")

    assert planned == done
    assert (done["removed"], done["removed_bytes"], done["young"]) == (len(left), size, 0)
    assert {one["id"] for one in done["objects"]} == left
    assert repo.objects() == used
    assert repo.json("fsck", "--full")["ok"]
    repo.wvc("checkout", "-o", tmp_path / "out")
    again = repo.json("gc")
    assert (again["removed"], again["used"], done["used"]) == (0, len(used), len(used))
    repo.object_file(min(used)).unlink()
    assert repo.json("gc")["used"] == len(used) - 1


def test_what_is_young_is_kept(littered):
    repo, left = littered
    age(repo, 13, left)

    kept = repo.json("gc")

    assert (kept["removed"], kept["young"], kept["grace_days"]) == (0, len(left), 14)
    words = f"kept {len(left)} object"
    assert words in repo.wvc("gc")
    assert "that nothing refers to but that are younger than 14 days" in repo.wvc("gc")
    assert repo.json("gc", "--grace", "12.5")["removed"] == len(left)
    assert repo.json("fsck", "--full")["ok"]


def test_names_are_listed_for_who_asks(littered):
    repo, left = littered
    said = repo.wvc("-v", "gc", "-n").splitlines()
    assert {line.split()[0] for line in said[:-2]} == left
    assert said[-2].startswith(f"would delete {len(left)} object")


@pytest.mark.parametrize("grace", ["-1", "nan"])
def test_a_grace_period_is_a_number_of_days(two, grace):
    ran = two.run("gc", "--grace", grace)
    assert (ran.code, f"a grace period of {grace} days" in ran.err) == (2, True)


def keep_staged(repo, model):
    repo.wvc("add", model, "--task", "extra", "--codec", "raw")


def keep_committed(repo, model):
    repo.put("extra", model, "--codec", "raw")


def keep_on_a_branch(repo, model):
    repo.git("switch", "-qc", "side")
    repo.put("extra", model, "--codec", "raw")
    repo.git("switch", "-q", "main")


def keep_in_history(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.wvc("revert", "extra")


def _forget(repo):
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("update-ref", "-d", "ORIG_HEAD")


def keep_in_a_reflog(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.git("reset", "-q", "--hard", "HEAD~1")
    repo.git("update-ref", "-d", "ORIG_HEAD")


def keep_in_a_stash(repo, model):
    file = repo.path / ".wvc/tasks/extra.json"
    repo.put("extra", model, "--codec", "raw")
    data = file.read_bytes()
    repo.git("reset", "-q", "--hard", "HEAD~1")
    _forget(repo)
    file.write_bytes(data)
    repo.git("add", ".wvc/tasks/extra.json")
    repo.git("stash", "-q")


def keep_in_the_index(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.git("reset", "-q", "--soft", "HEAD~1")
    _forget(repo)


def _worktree(repo):
    repo.git("worktree", "add", "-q", "--detach", str(repo.path.parent / "linked"))
    return type(repo)(repo.path.parent / "linked")


def keep_staged_in_another_worktree(repo, model):
    _worktree(repo).wvc("add", model, "--task", "extra", "--codec", "raw")


def keep_in_another_worktrees_head(repo, model):
    _worktree(repo).put("extra", model, "--codec", "raw")
    repo.git("reflog", "expire", "--expire=now", "--all")


def keep_in_another_worktrees_index(repo, model):
    linked = _worktree(repo)
    linked.put("extra", model, "--codec", "raw")
    linked.git("reset", "-q", "--soft", "HEAD~1")
    _forget(linked)


def keep_in_a_ref_of_another_worktree(repo, model):
    linked = _worktree(repo)
    linked.put("extra", model, "--codec", "raw")
    linked.git("update-ref", "refs/worktree/mine", "HEAD")
    linked.git("reset", "-q", "--hard", "HEAD~1")
    _forget(linked)


def keep_in_the_files_of_the_work_tree(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.git("reset", "-q", "--mixed", "HEAD~1")
    _forget(repo)


def keep_in_the_files_of_another_work_tree(repo, model):
    linked = _worktree(repo)
    linked.put("extra", model, "--codec", "raw")
    linked.git("reset", "-q", "--mixed", "HEAD~1")
    _forget(linked)


def keep_where_a_reset_came_from(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.git("reset", "-q", "--hard", "HEAD~1")
    repo.git("reflog", "expire", "--expire=now", "--all")


def keep_in_a_tree_that_a_tag_names(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.git("tag", "-a", "-m", "Its files", "tree", "HEAD^{tree}")
    repo.git("reset", "-q", "--hard", "HEAD~1")
    _forget(repo)


def keep_in_what_a_stopped_rebase_put_aside(repo, model):
    repo.put("extra", model, "--codec", "raw")
    data = (repo.path / ".wvc/tasks/extra.json").read_bytes()
    repo.git("reset", "-q", "--hard", "HEAD~1")
    for branch, text in (("one", "1"), ("other", "2")):
        repo.git("switch", "-qc", branch, "main")
        (repo.path / "file").write_text(text)
        repo.git("add", "file")
        repo.git("commit", "-qm", branch)
    (repo.path / ".wvc/tasks/extra.json").write_bytes(data)
    repo.git("add", ".wvc/tasks/extra.json")
    with pytest.raises(AssertionError, match="conflict in file"):
        repo.git("rebase", "--autostash", "one")
    assert not (repo.path / ".wvc/tasks/extra.json").exists()
    _forget(repo)


def keep_behind_a_replacement(repo, model):
    keep_in_history(repo, model)
    repo.git("replace", "--graft", "HEAD", "HEAD~2")
    _forget(repo)


def keep_behind_a_graft(repo, model):
    keep_in_history(repo, model)
    head, before = repo.git("rev-parse", "HEAD", "HEAD~2").split()
    (repo.path / ".git/info/grafts").write_text(f"{head} {before}\n")
    _forget(repo)


def keep_in_a_tag_that_was_fetched(repo, model):
    repo.put("extra", model, "--codec", "raw")
    repo.git("tag", "-a", "-m", "Elsewhere", "v1")
    (repo.path / ".git/FETCH_HEAD").write_text(repo.git("rev-parse", "v1") + "\t\ttag 'v1' of elsewhere\n")
    repo.git("tag", "-d", "v1")
    repo.git("reset", "-q", "--hard", "HEAD~1")
    (repo.path / ".git/ORIG_HEAD").unlink()
    repo.git("reflog", "expire", "--expire=now", "--all")


def keep_in_what_is_still_to_be_picked(repo, model):
    start = repo.git("rev-parse", "HEAD")
    repo.git("switch", "-qc", "elsewhere")
    for text in ("1", "2"):
        (repo.path / "file").write_text(text)
        repo.git("add", "file")
        repo.git("commit", "-qm", text)
    repo.put("extra", model, "--codec", "raw")
    repo.git("switch", "-q", "main")
    (repo.path / "file").write_text("ours")
    repo.git("add", "file")
    repo.git("commit", "-qm", "ours")
    with pytest.raises(AssertionError, match="conflict"):
        repo.git("cherry-pick", f"{start}..elsewhere")
    repo.git("branch", "-D", "elsewhere")
    repo.git("reflog", "expire", "--expire=now", "--all")
    (repo.path / ".git/ORIG_HEAD").unlink(missing_ok=True)


def keep_below_a_directory_whose_mode_is_written_otherwise(repo, model):
    """As some tools write it: git takes it for a directory."""
    before = repo.git("rev-parse", "HEAD")
    repo.put("extra", model, "--codec", "raw")
    entries = [line.split(None, 3) for line in repo.git("ls-tree", "HEAD").splitlines()]
    tree = b"".join(
        f"{'0' * (kind == 'tree')}{mode.lstrip('0')} {name}\0".encode() + bytes.fromhex(oid)
        for mode, kind, oid, name in entries
    )
    write = ["git", "-C", repo.path, "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    made = subprocess.run(write, check=True, input=tree, capture_output=True).stdout.decode().strip()
    repo.git("branch", "odd", repo.git("commit-tree", "-m", "odd", "-p", before, made))
    repo.git("reset", "-q", "--hard", before)
    (repo.path / ".git/ORIG_HEAD").unlink()
    _forget(repo)


def keep_where_a_bisection_began(repo, model):
    start = repo.git("rev-parse", "HEAD")
    repo.git("switch", "-q", "--detach")
    repo.put("extra", model, "--codec", "raw")
    repo.git("bisect", "start", start, f"{start}~2")
    repo.git("reflog", "expire", "--expire=now", "--all")
    (repo.path / ".git/ORIG_HEAD").unlink(missing_ok=True)


def keep_in_a_conflict_that_is_resolved(repo, model):
    repo.git("switch", "-qc", "side")
    repo.put("alpha", model, "--codec", "raw")
    (repo.path / "file").write_text("side")
    repo.git("add", "file")
    repo.git("commit", "-qm", "side")
    repo.git("switch", "-q", "main")
    text = (repo.path / ".wvc/tasks/alpha.json").read_text()
    (repo.path / ".wvc/tasks/alpha.json").write_text("{}\n")
    repo.git("commit", "-qam", "ours")
    with pytest.raises(AssertionError, match="conflict"):
        repo.git("merge", "side")
    (repo.path / ".wvc/tasks/alpha.json").write_text(text)
    repo.git("add", ".wvc")
    repo.git("merge", "--quit")
    repo.git("commit", "-qm", "resolved")
    repo.git("branch", "-D", "side")
    repo.git("reflog", "expire", "--expire=now", "--all")
    for note in repo.path.glob(".git/*_HEAD"):
        note.unlink()


KEPT = [value for name, value in sorted(globals().items()) if name.startswith("keep_")]


@pytest.mark.parametrize("keep", KEPT, ids=lambda keep: keep.__name__.removeprefix("keep_"))
def test_what_anybody_may_want_back_is_kept(two, templates, keep):
    before = two.objects()
    keep(two, templates.alpha)
    kept = two.objects() - before
    assert kept

    done = two.json("gc", "--grace", "0")

    assert done["removed"] == 0
    assert two.objects() == before | kept
    assert two.json("fsck", "--full")["ok"]


def test_what_git_has_forgotten_goes(two, templates):
    before = two.objects()
    keep_in_a_reflog(two, templates.alpha)
    _forget(two)
    left = two.objects() - before

    assert two.json("gc", "--grace", "0")["removed"] == len(left) > 0
    assert two.objects() == before


def test_nothing_goes_while_another_command_is_at_work(littered):
    repo, left = littered
    with guard.using(repo.api()):
        ran = repo.run("gc")
        assert repo.json("gc", "-n")["removed"] == len(left)
    assert (ran.code, ran.err) == (
        3,
        "wvc: another wvc command is at work in this repository\nhint: try again when it has ended\n",
    )
    assert left <= repo.objects()
    repo.wvc("gc")


def commit_changed(repo, change):
    """Commit a changed manifest of a task, and then that the task is gone."""
    file = repo.path / ".wvc/tasks/extra.json"
    good = file.read_text()
    file.write_text(change(good))
    assert file.read_text() != good
    repo.git("commit", "-qam", "changed")
    repo.git("rm", "-q", str(file))
    repo.git("commit", "-qm", "gone")


def test_manifests_that_cannot_be_read_keep_what_they_name(two, templates):
    before = two.objects()
    two.wvc("add", templates.alpha, "--task", "extra", "--codec", "raw")
    file = two.path / ".wvc/tasks/extra.json"
    file.write_bytes(two.staged("tasks/extra.json"))
    two.wvc("unstage")
    two.git("add", str(file))
    commit_changed(two, lambda text: f"<<<<<<< ours\n{text}>>>>>>> theirs\n")
    kept = two.objects() - before
    assert kept

    assert two.json("gc", "--grace", "0")["removed"] == 0
    assert two.objects() == before | kept
    assert two.json("du")["unreferenced"] == 0


def test_manifests_in_a_newer_format_keep_everything(littered, templates):
    repo, left = littered
    repo.put("extra", templates.beta)
    commit_changed(repo, lambda text: text.replace("weightvc/manifest/1", "weightvc/manifest/9"))

    ran = repo.run("gc", "--grace", "0")

    assert ran.code != 0
    assert "upgrade weightvc" in ran.err
    assert left <= repo.objects()


def test_a_clone_of_the_end_of_history_deletes_nothing(littered, tmp_path):
    repo, left = littered
    repo.git("clone", "-q", "--depth", "1", f"file://{repo.path}", str(tmp_path / "clone"))
    clone = type(repo)(tmp_path / "clone")
    shutil.copytree(repo.path / ".git/wvc/objects", clone.path / ".git/wvc/objects")

    ran = clone.run("gc", "--grace", "0")

    assert ran.code == 3
    assert "this clone has only the end of history" in ran.err
    assert left <= clone.objects()


def test_what_killed_commands_left_goes_too(two):
    scratch = two.path / ".git/wvc/tmp"
    scratch.mkdir(exist_ok=True)
    (scratch / f"tmp-{2**22}-{'0' * 16}").write_bytes(b"left")
    two.wvc("gc", "-n")
    assert list(scratch.iterdir())
    two.wvc("gc")
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("command", [("add", "MODEL", "--task", "new"), ("repack",), ("commit", "-m", "m")])
def test_what_killed_commands_left_goes_with_the_next_one(two, templates, command):
    two.wvc("add", templates.alpha, "--task", "staged")
    left = two.path / f".git/wvc/tmp/tmp-{2**22}-{'0' * 16}"
    left.write_bytes(b"left")
    two.wvc(*[templates.beta if word == "MODEL" else word for word in command])
    assert not left.exists()


def test_what_only_has_the_name_of_an_object_is_not_touched(two, tmp_path):
    (tmp_path / "precious").write_text("mine")
    link = two.object_file("ab" * 32)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "precious")
    two.wvc("gc", "--grace", "0")
    assert link.is_symlink()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_repository_that_may_be_about_to_get_its_base(two):
    objects = two.objects()
    two.git("checkout", "-q", "--orphan", "new")
    two.git("rm", "-rqf", ".wvc")
    ran = two.run("gc", "--grace", "0")
    assert ran.code == 3
    assert "wvc init" in ran.err
    assert two.objects() == objects


@pytest.fixture
def apart(two, templates, tmp_path):
    """A work tree that is linked to one that has its git directory elsewhere, and the objects of a file there."""
    before = two.objects()
    two.put("extra", templates.alpha, "--codec", "raw")
    left = two.objects() - before
    file = two.path / ".wvc/tasks/extra.json"
    data = file.read_bytes()
    two.git("reset", "-q", "--hard", "HEAD~1")
    (two.path / ".git/ORIG_HEAD").unlink()
    _forget(two)
    file.write_bytes(data)
    module = (two.path / ".git").rename(tmp_path / "module")
    (two.path / ".git").write_text(f"gitdir: {module}\n")
    two.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    return type(two)(tmp_path / "linked"), module, left


def test_the_files_of_a_submodule_are_seen_from_a_tree_that_is_linked_to_it(two, apart):
    linked, module, left = apart
    linked.git("config", "-f", str(module / "config"), "core.worktree", str(two.path))
    assert linked.json("gc", "--grace", "0")["removed"] == 0
    (two.path / ".wvc/tasks/extra.json").unlink()
    assert linked.json("gc", "--grace", "0")["removed"] == len(left)


def test_nothing_goes_where_nobody_knows_of_the_main_work_tree(apart, refused):
    linked, module, _ = apart
    linked.wvc("status")
    words = {"says": f"{module} does not say where its main work tree is", "hint": "run it in that one"}
    refused(linked, 3, "gc", "--grace", "0", **words)
    linked.git("config", "-f", str(module / "config"), "core.bare", "true")
    linked.wvc("gc", "--grace", "0", "-n")


def test_notes_that_are_no_files_stop_nothing(two):
    (two.path / ".git/ODD_HEAD").mkdir()
    os.mkfifo(two.path / ".git/MY_HEAD")
    two.wvc("gc", "--grace", "0")


def test_where_git_looks_into_no_bare_directory_unasked(two, tmp_path, monkeypatch):
    bare = (two.path / ".git").rename(tmp_path / ".bare")
    shutil.rmtree(two.path)
    git = Path(two.path)
    git.mkdir()
    (git / ".git").write_text(f"gitdir: {bare}\n")
    two.git("config", "-f", str(bare / "config"), "core.bare", "true")
    subprocess.run(["git", "-C", bare, "worktree", "add", "-q", tmp_path / "linked", "HEAD"], check=True)
    for name, value in (("COUNT", "1"), ("KEY_0", "safe.bareRepository"), ("VALUE_0", "explicit")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    type(two)(tmp_path / "linked").wvc("gc", "--grace", "0")


def test_nothing_goes_while_a_locked_work_tree_is_away(two, tmp_path, refused):
    two.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    two.git("worktree", "lock", str(tmp_path / "linked"))
    two.wvc("gc", "--grace", "0")
    (tmp_path / "linked").rename(tmp_path / "away")
    words = {"says": f"the work tree {tmp_path}/linked is locked, and not there", "hint": "mount the disk"}
    refused(two, 3, "gc", "--grace", "0", **words)
    two.git("worktree", "unlock", str(tmp_path / "linked"))
    two.wvc("gc", "--grace", "0")
