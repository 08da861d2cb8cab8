"""Sharing: two clones, a remote for objects, and git's own for branches."""

import hashlib
import shutil

import pytest

from weightvc.repo import transfer
from weightvc.store.local import LocalStore


@pytest.fixture
def team(two, tmp_path):
    """A repository with a git remote and a directory for objects, neither of which has anything yet."""
    two.git("init", "-q", "--bare", "--initial-branch=main", str(tmp_path / "git"))
    two.git("remote", "add", "origin", str(tmp_path / "git"))
    (tmp_path / "disk").mkdir()
    two.wvc("remote", "add", "origin", tmp_path / "disk")
    return two


@pytest.fixture
def disk(tmp_path):
    return LocalStore(tmp_path / "disk/objects", tmp_path / "disk/tmp")


@pytest.fixture
def clone(team, tmp_path):
    """Make another user's clone of what was pushed, which has no objects yet."""

    def make(name="clone"):
        team.git("clone", "-q", str(tmp_path / "git"), str(tmp_path / name))
        made = type(team)(tmp_path / name)
        made.wvc("remote", "add", "origin", tmp_path / "disk")
        return made

    return make


def test_what_is_pushed_can_be_fetched_and_built(team, clone, disk, models, tmp_path):
    sent = team.json("push")
    assert (sent["objects"], sent["present"], sent["branch"]) == (len(team.objects()), 0, "main")
    assert sent["bytes"] == sum(team.object_file(oid).stat().st_size for oid in team.objects())
    assert set(disk.ids()) == team.objects()
    other = clone()
    came = other.json("fetch")
    assert (came["objects"], came["bytes"], came["absent"]) == (sent["objects"], sent["bytes"], 0)
    assert other.json("fsck", "--full")["ok"]
    for repo, out in ((team, "one"), (other, "two")):
        repo.wvc("checkout", "-o", tmp_path / out)
    models.assert_same(models.read(tmp_path / "one"), models.read(tmp_path / "two"))


def test_a_second_push_moves_nothing(team, monkeypatch):
    team.wvc("push")
    monkeypatch.setattr(LocalStore, "put", None)
    again = team.json("push")
    assert (again["objects"], again["bytes"], again["present"]) == (0, 0, len(team.objects()))
    assert team.json("push", "-n")["objects"] == 0


def test_one_more_task_moves_its_own_objects(team, templates, disk):
    team.wvc("push")
    before = team.objects()
    team.put("third", templates.alpha, "--codec", "raw")
    new = team.objects() - before
    assert team.json("push", "-n")["objects"] == len(new)
    assert set(disk.ids()) == before
    sent = team.json("push")
    assert (sent["objects"], sent["bytes"]) == (len(new), sum(team.object_file(oid).stat().st_size for oid in new))


def test_objects_come_before_the_branch(team, monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "_TRIES", 1)
    (tmp_path / "disk/objects").write_text("in the way")
    assert team.run("push").code != 0
    assert team.git("ls-remote", "origin") == ""


def test_only_history_of_the_branch_goes(team, templates, disk):
    before = team.objects()
    team.git("switch", "-qc", "side")
    team.put("third", templates.alpha, "--codec", "raw")
    team.git("switch", "-q", "main")
    team.wvc("push")
    assert set(disk.ids()) == before
    team.git("switch", "-q", "side")
    team.wvc("push")
    assert set(disk.ids()) == team.objects() > before


def test_earlier_versions_go_along(team, templates, clone):
    team.put("alpha", templates.beta, "--codec", "raw")
    team.wvc("push")
    other = clone()
    assert 0 < other.json("fetch")["objects"] < len(team.objects())
    assert other.run("fsck").code == 1
    assert other.json("fetch", "--all")["objects"] > 0
    assert other.json("fsck", "--full")["ok"]


def test_the_objects_of_some_tasks(team, clone, tmp_path):
    team.wvc("push")
    other = clone()
    came = other.json("fetch", "--tasks", "beta")
    assert 0 < came["objects"] < len(team.objects())
    other.wvc("checkout", "--tasks", "beta", "-o", tmp_path / "beta")
    assert other.run("checkout", "--tasks", "alpha", "-o", tmp_path / "alpha").code == 4
    assert other.json("fetch", "--tasks", "alpha,beta")["objects"] == len(team.objects()) - came["objects"]


def test_branches_of_others_are_fetched(team, clone, templates):
    team.wvc("push")
    other = clone()
    other.wvc("fetch")
    other.git("switch", "-qc", "theirs")
    other.put("third", templates.alpha, "--codec", "raw")
    other.wvc("push")
    came = team.json("fetch")
    assert came["objects"] == len(other.objects()) - came["present"] > 0
    team.git("merge", "-q", "origin/theirs")
    assert team.json("fsck", "--full")["ok"]


def test_what_a_remote_lost_is_healed_by_the_next_push(team, disk, tmp_path):
    team.wvc("push")
    lost, short, *_ = sorted(team.objects())
    file = tmp_path / "disk/objects" / short[:2] / short[2:]
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])
    (tmp_path / "disk/objects" / lost[:2] / lost[2:]).unlink()
    assert team.json("push")["objects"] == 2
    for oid in team.objects():
        disk.verify(oid)


@pytest.mark.parametrize("change", [lambda data: bytes(len(data)), lambda data: data[:-1], lambda data: data + b"x"])
def test_what_is_not_the_object_is_not_taken(team, clone, tmp_path, change):
    team.wvc("push")
    oid, *_ = sorted(team.objects())
    file = tmp_path / "disk/objects" / oid[:2] / oid[2:]
    file.chmod(0o644)
    file.write_bytes(change(file.read_bytes()))
    other = clone()
    ran = other.run("fetch")
    assert ran.code == 5
    assert ran.err.startswith(f"wvc: remote origin: object {oid}")
    assert "hint: `wvc push --full` in a clone that has it whole sends it again" in ran.err
    assert oid not in other.objects()
    for one in other.objects():
        assert hashlib.sha256(other.object_file(one).read_bytes()).hexdigest() == one
    assert team.json("push", "--full")["objects"] == 1
    assert team.json("push", "--full")["objects"] == 0
    assert other.json("fetch")["absent"] == 0
    assert other.json("fsck", "--full")["ok"]


def test_what_others_lack_is_no_matter_for_head(team, clone, templates):
    team.wvc("push")
    other = clone()
    other.wvc("fetch")
    other.git("switch", "-qc", "theirs")
    other.put("third", templates.alpha, "--codec", "raw")
    other.git("push", "-q", "origin", "theirs")
    ran = team.run("fetch")
    assert ran.code == 0
    assert "warning: neither here nor at origin: " in ran.err
    assert team.run("--json", "fetch").json["lacking"] == []


def test_what_is_cut_short_there_does_not_count(team, tmp_path):
    team.wvc("push")
    file = max((tmp_path / "disk/objects").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    file.chmod(0o644)
    file.write_bytes(b"short")
    found = team.json("remote", "test", "origin")
    assert found["present"] == found["needed"] - 1


def test_a_copy_of_what_is_pushed_to_is_a_source_of_repairs(team, tmp_path):
    team.wvc("push")
    team.wvc("remote", "rm", "origin")
    (oid, *_) = sorted(team.objects())
    team.object_file(oid).unlink()
    assert team.json("fsck", "--repair", "--from", tmp_path / "disk")["ok"]


def test_what_neither_side_has(team, clone, refused, tmp_path):
    team.wvc("push")
    (oid, *_) = sorted(team.objects())
    (tmp_path / "disk/objects" / oid[:2] / oid[2:]).unlink()
    other = clone()
    ran = other.run("fetch")
    assert ran.code == 4
    assert "warning: neither here nor at origin: 1 object\nhint: whoever committed them runs `wvc push`" in ran.err
    assert "warning: of HEAD, what is not all here: " in ran.err
    assert other.run("--json", "fetch").json["absent"] == 1
    words = {"says": "neither here nor at remote origin: 1 object", "hint": "`wvc fetch --all` brings"}
    refused(other, 4, "push", **words)


def test_damage_here_is_not_pushed(team, disk):
    (oid, *_) = sorted(team.objects())
    file = team.object_file(oid)
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))
    ran = team.run("push")
    assert ran.code == 4
    assert f"object {oid}: its bytes hash to" in ran.err
    assert oid not in set(disk.ids())
    assert team.git("ls-remote", "origin") == ""


def test_what_is_no_fast_forward_is_gits_to_refuse(team, clone, templates):
    team.wvc("push")
    other = clone()
    other.wvc("fetch")
    other.put("third", templates.alpha, "--codec", "raw")
    other.wvc("push")
    team.put("fourth", templates.alpha)
    ran = team.run("push")
    assert ran.code == 5
    assert "wvc: git push of remote origin failed (1)\nhint: git says above why; if others have pushed" in ran.err
    team.git("pull", "-q", "--no-rebase", "--no-edit")  # the first push has had the branch follow the remote's
    team.wvc("fetch")
    team.wvc("push")
    assert team.json("fsck", "--full")["ok"]


def test_objects_alone(two, refused, tmp_path):
    two.git("remote", "add", "else", "nowhere")
    (tmp_path / "disk").mkdir()
    two.wvc("remote", "add", "disk", tmp_path / "disk")
    words = {"says": "git has no remote 'disk'; its remotes are: else", "hint": "run `git remote add disk GIT_URL`, or"}
    refused(two, 3, "push", **words)
    assert two.json("push", "--objects-only")["branch"] is None
    shutil.rmtree(two.path / ".git/wvc/objects")
    two.wvc("fetch", "--objects-only")
    assert two.json("fsck", "--full")["ok"]


def test_which_remote(two, refused, tmp_path):
    refused(two, 3, "fetch", says="there is no remote", hint="add one with `wvc remote add NAME URL`")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        two.wvc("remote", "add", name, tmp_path / name)
    refused(two, 3, "push", says="which remote? They are: a, b", hint="name one of them")
    assert two.json("push", "a", "--objects-only")["remote"] == "a"
    two.git("config", "branch.main.remote", "b")
    assert two.json("push", "--objects-only")["remote"] == "b"
    two.git("config", "--unset", "branch.main.remote")
    (tmp_path / "origin").mkdir()
    two.wvc("remote", "add", "origin", tmp_path / "origin")
    assert two.json("push", "--objects-only")["remote"] == "origin"
    refused(two, 3, "push", "c", says="no remote 'c'", hint="add one")
    refused(two, 3, "fetch", "a", "--tasks", "nosuch", says="no task 'nosuch'", hint="`wvc status`")


def test_a_detached_head_has_no_branch(team, refused):
    team.git("switch", "-q", "--detach")
    refused(team, 3, "push", says="HEAD is detached", hint="switch to one with `git switch`")
    team.wvc("push", "--objects-only")


def test_no_protocol_that_runs_commands(team, tmp_path):
    """Which a clone's own configuration may allow."""
    marker = tmp_path / "ran"
    team.git("remote", "set-url", "origin", f"ext::sh -c touch% {marker}")
    team.git("config", "protocol.ext.allow", "always")
    assert team.run("push").code == 5
    assert team.run("fetch").code == 5
    assert not marker.exists()


def test_repair_fetches_what_is_lost_here(team, disk):
    team.wvc("push")
    oid, other, *_ = sorted(team.objects())
    team.object_file(oid).unlink()
    file = team.object_file(other)
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    plan = team.run("--json", "fsck", "--repair", "-n").json
    assert {one["id"]: one["source"] for one in plan["restored"]} == dict.fromkeys(
        (oid, other), f"file://{disk.root.parent}"
    )
    done = team.json("fsck", "--repair")
    assert (done["ok"], done["restored"], done["quarantined"]) == (True, plan["restored"], [other])


def test_a_remote_that_cannot_help_is_said(team, tmp_path):
    (oid, *_) = sorted(team.objects())
    team.object_file(oid).unlink()
    team.wvc("remote", "add", "gone", tmp_path / "nowhere")
    ran = team.run("fsck", "--repair")
    assert ran.code == 1
    assert f"hint: remote gone: {tmp_path}/nowhere is no directory" in ran.err
