"""Objects of git's that are not what their ids stand for: git believes them, and wvc does not."""

import shutil
import struct
import subprocess
import sys
from itertools import product

import pytest


@pytest.fixture
def four(two, templates):
    """A repository of four commits, each object in a file of its own."""
    two.put("third", templates.alpha, "--codec", "raw")
    two.put("alpha", templates.beta)
    two.wvc("gc", "--grace", "0")
    return two


def loose(repo, name):
    oid = repo.git("rev-parse", name)
    return repo.path / ".git/objects" / oid[:2] / oid[2:]


def overwrite(repo, name, other):
    """Put the file of one object in place of another one's, and return how to undo it."""
    file = loose(repo, name)
    kept = file.read_bytes()
    file.chmod(0o644)
    shutil.copyfile(loose(repo, other), file)
    return lambda: file.write_bytes(kept)


OTHERS = [
    ("HEAD~2", "HEAD~3"),
    ("HEAD~1^{tree}", "HEAD~2^{tree}"),
    ("HEAD~1:.wvc", "HEAD~2:.wvc"),
    ("HEAD~1:.wvc/tasks", "HEAD~2:.wvc/tasks"),
]


@pytest.mark.parametrize(("name", "other"), OTHERS)
def test_another_object_in_its_place_is_found_and_nothing_is_deleted(four, refused, name, other):
    before = four.objects()
    undo = overwrite(four, name, other)

    found = four.run("--json", "fsck", "--full")

    assert found.code == 1
    (finding,) = found.json["findings"]
    (hint,) = found.json["hints"]
    assert finding["kind"] == "history"
    assert "is damaged: its contents have another id" in finding["detail"]
    assert "then run `git fetch --refetch`, or copy that file from another clone" in hint
    refused(four, 4, "gc", "--grace", "0", says="is damaged: its contents have another id", hint=hint[:60])
    assert four.objects() == before
    undo()
    assert four.run("fsck", "--full").code == 0


@pytest.mark.parametrize("name", ["HEAD^{tree}", "HEAD:.wvc", "HEAD:.wvc/tasks"])
def test_the_wrong_tree_is_never_served(four, refused, tmp_path, name):
    overwrite(four, name, name.replace("HEAD", "HEAD~1"))

    for command in (("checkout", "-o", tmp_path / "out"), ("status",), ("show", "HEAD")):
        refused(four, 4, *command, says=" is damaged: its contents have another id", hint="move /")
    assert not (tmp_path / "out").exists()


def test_the_wrong_commit_is_never_served(four, refused, tmp_path):
    overwrite(four, "HEAD", "HEAD~1")

    refused(
        four, 4, "checkout", "-o", tmp_path / "out", says=" is damaged: its contents have another id", hint="move /"
    )


@pytest.mark.parametrize("name", ["HEAD", "HEAD^{tree}", "HEAD:.wvc/tasks/alpha.json"])
def test_garbage_is_named_and_can_be_fetched_again(four, name, tmp_path):
    four.git("clone", "-q", "--bare", "--no-hardlinks", four.path, tmp_path / "other")
    four.git("remote", "add", "origin", tmp_path / "other")
    file = loose(four, name)
    file.chmod(0o644)
    file.write_bytes(b"garbage")

    ran = four.run("status")

    assert ran.code == 4
    assert f"hint: move {file} away, then run `git fetch --refetch`" in ran.err
    found = four.run("fsck")
    assert found.code == 1
    assert f"move {file} away" in found.err
    assert "no object was looked at" in found.out
    assert "gc" not in found.out
    file.unlink()
    four.git("fetch", "-q", "--refetch")
    assert four.run("fsck", "--full").code == 0


def test_bits_that_cannot_be_unpacked_are_named(four):
    """git says in several ways that it cannot unpack a file, and each time wvc says which and what to do."""
    file = loose(four, "HEAD:.wvc/tasks/alpha.json")
    data = file.read_bytes()
    file.chmod(0o644)
    for at in range(0, len(data), max(1, len(data) // 12)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 128]) + data[at + 1 :])
        for command in (("status",), ("fsck", "--full"), ("gc", "--grace", "0")):
            ran = four.run(*command)
            assert ran.code in {1, 4}, (at, command, ran)
            assert f"move {file} away, then run `git fetch --refetch`" in ran.err, (at, command, ran)


def test_a_tag_of_a_large_file_is_not_read(four, monkeypatch):
    (four.path / "big").write_bytes(bytes(2**20))
    four.git("tag", "light", four.git("hash-object", "-w", "big"))
    four.git("tag", "-a", "-m", "m", "heavy", "light")
    monkeypatch.setattr("weightvc.util.canon.MAX_BYTES", 2**19)

    assert four.run("fsck", "--full").code == four.run("gc", "--grace", "0").code == 0


def test_a_ref_that_is_cut_short_is_explained(four):
    (four.path / ".git/refs/heads/empty").touch()

    found = four.run("fsck")

    assert found.code == 1
    assert "hint: `git fsck` shows what is wrong" in found.err


def test_a_damaged_commit_graph_hides_nothing(four):
    """What git keeps to walk faster is never read: of any bit of it that is flipped, none has an effect."""
    four.git("commit-graph", "write", "--reachable")
    graph = four.path / ".git/objects/info/commit-graph"
    data = graph.read_bytes()
    chunks = {data[8 + 12 * n : 12 + 12 * n]: struct.unpack(">Q", data[12 + 12 * n : 20 + 12 * n])[0] for n in range(3)}
    graph.chmod(0o644)
    before = four.json("gc", "-n", "--grace", "0")
    misled = 0
    for row, bit in product(range(5), range(3)):
        flipped = bytearray(data)
        flipped[chunks[b"CDAT"] + 36 * row + 23] ^= 1 << bit
        graph.write_bytes(flipped)
        ran = subprocess.run(["git", "-C", four.path, "rev-list", "--all"], check=False, capture_output=True)
        if ran.returncode or len(ran.stdout.split()) == 5:
            continue
        misled += 1
        assert four.json("gc", "-n", "--grace", "0") == before
        assert four.run("fsck", "--full").code == 0
    assert misled, "git itself is misled by none of these"


BEHIND = ["HEAD~2", "HEAD^^", "HEAD~1^1", "HEAD~1~", "HEAD^{}~2", "HEAD^{commit}~2", "HEAD~2^{commit}", "v1^{}~2"]
BEHIND += ["HEAD@{2036-01-01 10:00:00}~2", "HEAD@{0}~2", "@~2", "HEAD~0000000002", "HEAD^{/wvc init}"]


@pytest.mark.parametrize("rev", BEHIND)
def test_what_is_behind_the_wrong_commit_is_never_served(four, refused, tmp_path, rev):
    four.git("tag", "-a", "-m", "One", "v1")
    overwrite(four, "HEAD~1", "HEAD~2")
    words = {"says": " is damaged: ", "hint": "move /"}
    refused(four, 4, "checkout", rev, "-o", tmp_path / "out", **words)
    refused(four, 4, "show", rev, **words)
    refused(four, 4, "revert", rev, **words)


@pytest.mark.parametrize(
    "rev", ["HEAD^0~2", "HEAD~1^1", "HEAD~0~2^0", "HEAD^{}~2", "HEAD@{0}~02", "main@{0}^^{commit}^"]
)
def test_a_way_that_is_whole_is_gone(four, rev):
    assert four.git("rev-parse", "HEAD~2") in four.wvc("show", rev)


@pytest.mark.parametrize("how", ["reset", "stash", "fetch"])
def test_damage_that_only_a_reflog_or_a_note_of_gits_leads_to_keeps_everything(four, refused, how):
    tip = four.git("rev-parse", "HEAD")
    four.git("update-ref", "HEAD", "HEAD~1")
    four.git("read-tree", "--reset", "-u", "HEAD")
    if how == "fetch":
        shutil.rmtree(four.path / ".git/logs")
        (four.path / ".git/FETCH_HEAD").write_text(f"{tip}\t\tbranch 'main' of elsewhere\n")
    elif how == "stash":
        shutil.rmtree(four.path / ".git/logs")
        four.git("stash", "store", "-m", "older", tip)
        four.git("stash", "store", "-m", "newer", four.git("rev-parse", "HEAD"))
    before = four.objects()
    file = loose(four, tip)
    kept = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"" if how == "fetch" else loose(four, "HEAD").read_bytes())

    refused(four, 4, "gc", "--grace", "0", says=f" {tip} is damaged: ", hint=f"move {file} away")

    file.write_bytes(kept)
    four.wvc("gc", "--grace", "0")
    assert four.objects() == before


def test_a_long_list_of_what_was_fetched_is_read_to_its_end(four):
    tip = four.git("rev-parse", "HEAD")
    four.git("update-ref", "HEAD", "HEAD~1")
    four.git("read-tree", "--reset", "-u", "HEAD")
    shutil.rmtree(four.path / ".git/logs")
    line = f"{four.git('rev-parse', 'HEAD')}\tnot-for-merge\tbranch '{'long' * 40}' of elsewhere\n"
    (four.path / ".git/FETCH_HEAD").write_text(line * 6000 + f"{tip}\t\tbranch 'main' of elsewhere\n")
    before = four.objects()

    four.wvc("gc", "--grace", "0")

    assert four.objects() == before


@pytest.mark.parametrize(
    "rev", ["HEAD~99999999999", "HEAD:.wvc", ":/add", "HEAD^!", "HEAD^@", "HEAD^-", "~1", "HEAD^{/no such}"]
)
def test_what_names_no_commit(four, refused, rev):
    refused(four, 3, "show", rev, says="no ", hint="")


@pytest.mark.parametrize("text", ["", "garbage\n", "\0" * 41, "1234567890123456789012345678901234567890\n"])
def test_a_branch_that_is_damaged_is_named(four, refused, text):
    """And is not taken for one without commits."""
    file = four.path / ".git/refs/heads/main"
    file.write_text(text)
    says = (
        f"HEAD names {text.strip()}, and git has no such commit" if text[:1] == "1" else f"{file} does not hold the id"
    )
    for command in (["status"], ["log"], ["checkout"], ["gc"]):
        refused(four, 4, *command, says=says, hint="`git reflog` shows where it was")
    (four.path / ".git/HEAD").write_text(text)
    refused(four, 3 if text[:1] != "1" else 4, "status", says="", hint="")


def test_trees_that_hold_one_another_a_thousand_times_over_are_not_unfolded(four):
    """A few kilobytes of git objects, and 40 million files in them."""
    tree = lines = ""
    for depth in range(6):
        one = f"040000 tree {tree}" if depth else f"100644 blob {four.git('rev-parse', 'HEAD:.wvc/base.json')}"
        lines = "".join(f"{one}\tf{n}.json\n" for n in range(20))
        tree = mktree(four, lines)
    known = four.git("ls-tree", "HEAD:.wvc").splitlines()
    wvc = mktree(four, "\n".join(line for line in known if "\ttasks" not in line) + f"\n040000 tree {tree}\ttasks\n")
    four.git(
        "branch", "bomb", four.git("commit-tree", "-m", "b", "-p", "HEAD", mktree(four, f"040000 tree {wvc}\t.wvc\n"))
    )
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))"
    code = f"{limit}\nfrom weightvc.cli.main import run\nrun()"
    for command in (["fsck"], ["gc", "-n", "--grace", "0"], ["status"], ["show", "bomb"], ["log"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, "-C", four.path, *command], check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0, (command, ran.stderr)


def mktree(repo, lines):
    done = subprocess.run(["git", "-C", repo.path, "mktree"], check=True, input=lines, capture_output=True, text=True)
    return done.stdout.strip()


def test_more_that_was_fetched_than_a_command_line_takes(four):
    commits = "".join(f"commit refs/x\ncommitter A <a@b> {n} +0000\ndata 1\nx\n" for n in range(60000))
    subprocess.run(["git", "-C", four.path, "fast-import", "--quiet"], check=True, input=commits.encode())
    names = four.git("rev-list", "refs/x").split()
    (four.path / ".git/FETCH_HEAD").write_text("".join(f"{name}\t\tbranch 'x' of elsewhere\n" for name in names))
    four.git("update-ref", "-d", "refs/x")
    four.wvc("gc", "--grace", "0", "-n")


def test_a_submodule_in_the_place_of_a_manifest_is_none(four):
    head = four.git("rev-parse", "HEAD")
    four.git("update-index", "--add", "--cacheinfo", f"160000,{head},.wvc/tasks/odd.json")
    assert four.json("fsck")["ok"]
    four.wvc("gc", "--grace", "0")


def test_a_work_tree_whose_notes_are_gone_is_no_matter(four, tmp_path):
    four.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    (four.path / ".git/worktrees/gone").symlink_to(tmp_path / "nowhere")
    assert type(four)(tmp_path / "linked").json("fsck")["ok"]


def test_paths_in_advice_are_safe_for_a_terminal(four):
    file = four.path / ".wvc/tasks/\x1b[31mred\nhint: run me.json"
    file.write_text("y")
    four.git("add", ".wvc")
    four.git("commit", "-qm", "odd")
    ran = four.run("fsck")
    assert ran.code == 1
    assert "\x1b" not in ran.out + ran.err
    assert "\nhint: run me" not in ran.out + ran.err
    assert [hint for hint in four.run("--json", "fsck").json["hints"] if "\n" in hint] == []
