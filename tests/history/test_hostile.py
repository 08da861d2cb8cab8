"""A clone whose configuration names programs for everything that git can be made to run: none of them runs."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from weightvc.history import process
from weightvc.history.commit import commit
from weightvc.history.create import init
from weightvc.history.exclude import exclude
from weightvc.history.git import discover
from weightvc.history.refresh import recover
from weightvc.util.errors import Conflict, WeightvcError

TASK = ".wvc/tasks/a.json"
HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-checkout", "post-commit", "post-index-change",
    "post-merge", "post-rewrite", "post-update", "pre-applypatch", "pre-auto-gc", "pre-commit", "pre-merge-commit",
    "prepare-commit-msg", "reference-transaction", "update",
)  # fmt: skip


def arm(path, program, elsewhere):
    """Name a program wherever a repository can name one."""
    run = str(program)
    settings = {
        "core.fsmonitor": run, "core.editor": run, "core.pager": run, "core.askPass": run, "core.sshCommand": run,
        "core.gitProxy": run, "core.alternateRefsCommand": run, "sequence.editor": run, "gpg.program": run,
        "gpg.ssh.program": run, "commit.gpgSign": "true", "tag.gpgSign": "true", "log.showSignature": "true",
        "filter.x.clean": run, "filter.x.smudge": run, "filter.x.process": run, "filter.x.required": "true",
        "filter.y=z.clean": run, "filter.y=z.required": "true",
        "diff.external": run, "diff.x.command": run, "diff.x.textconv": run, "merge.x.driver": run,
        "credential.helper": run, "pager.log": run, "gc.auto": "1", "gc.recentObjectsHook": run,
        "alias.log": f"!{run}", "alias.rev-parse": f"!{run}", "interactive.diffFilter": run,
        "uploadpack.packObjectsHook": run, "submodule.active": ".", "trailer.x.command": run,
        "log.follow": "true", "diff.orderFile": f"{elsewhere}/absent",
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "evil", "remote.evil.promisor": "true",
        "remote.evil.url": f"{elsewhere}/nowhere", "remote.evil.uploadpack": run, "remote.evil.vcs": run,
    }  # fmt: skip
    for key, value in settings.items():
        subprocess.run(["git", "config", "-f", path / ".git/config", key, value], check=True)
    for name in HOOKS:
        (path / ".git/hooks" / name).unlink(missing_ok=True)
        os.symlink(program, path / ".git/hooks" / name)


@pytest.fixture
def hostile(repo, tmp_path):
    """The repository and the file that any of its programs would make."""
    marker = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho \"$0 $@\" >> '{marker}'\ncat\n")
    program.chmod(0o755)
    commit(repo.git, lambda _: {TASK: b"1", ".wvc/tasks/b.json": b"1"}, "task")
    (repo.path / ".gitattributes").write_text(
        "* filter=x diff=x merge=x text eol=crlf\n.wvc/** filter=x\n*.md filter=y=z\n"
    )
    repo.write("racy.md", "x")
    repo.run("add", "racy.md")
    arm(repo.path, program, tmp_path)
    os.utime(repo.path / ".git/index", (1, 1))  # older than the files in it: git must look into each
    return repo, marker


def test_the_trap_is_live(hostile):
    repo, marker = hostile
    subprocess.run(["git", "status"], cwd=repo.path, check=False, capture_output=True)
    assert "program" in marker.read_text()


def test_nothing_runs(hostile):
    repo, marker = hostile
    config = (repo.path / ".git/config").read_bytes()
    git = discover(repo.path)
    with pytest.raises(Conflict):
        init(repo.path)
    first = git.head()
    assert git.resolve("HEAD") == first
    assert git.read("HEAD", TASK) == b"1"
    assert git.read_blobs(list(git.read_tree("HEAD").values()))
    assert len(list(git.log())) == 2
    assert len(list(git.log(paths=[TASK]))) == 1
    assert git.parents("HEAD")
    assert git.all_blobs().keys() == {TASK, ".wvc/tasks/b.json"}
    done = commit(git, lambda _: {TASK: b"2", ".wvc/tasks/b.json": None}, "change")
    assert done.warnings == ()
    assert git.is_ancestor(first, done.commit)
    exclude(git, "/model/")
    recover(git)
    assert not marker.exists(), marker.read_text()
    assert (repo.path / TASK).read_bytes() == b"2"
    assert git.read("HEAD", TASK) == b"2"
    assert b"gpgsig" not in subprocess.run(
        ["git", "cat-file", "commit", done.commit], cwd=repo.path, capture_output=True, check=True
    ).stdout  # fmt: skip
    assert (repo.path / ".git/config").read_bytes() == config
    assert all((repo.path / ".git/hooks" / name).is_symlink() for name in HOOKS)


def test_filters_would_run_on_a_fresh_file(hostile, monkeypatch):
    """The reason for ``no_filters``: git looks into files that are as young as the index."""
    repo, marker = hostile
    monkeypatch.setattr(process, "no_filters", lambda _: {})
    commit(discover(repo.path), lambda _: {TASK: b"2"}, "change")
    assert marker.exists()


def test_an_absent_object_is_not_fetched(hostile):
    """A partial clone's remote may name a program; git would start it for any object that is not there."""
    repo, marker = hostile
    git = discover(repo.path)
    blob = git.read_tree("HEAD")[TASK]
    (git.common_dir / "objects" / blob[:2] / blob[2:]).unlink()
    for act in (
        lambda: git.read("HEAD", TASK),
        lambda: git.read_blobs([blob]),
        lambda: git.resolve("f" * 40),
        git.all_blobs,
        lambda: commit(git, lambda _: {".wvc/tasks/c.json": b"1"}, "m"),
    ):
        with suppress(WeightvcError):
            act()
    assert not marker.exists(), marker.read_text()


def test_user_hooks_stay_as_they_are_and_do_not_run(repo, tmp_path):
    """Also from a directory that the user's own settings name."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    marker = tmp_path / "ran"
    for name in HOOKS:
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{marker}'\nexit 1\n")
        (hooks / name).chmod(0o755)
    repo.run("config", "core.hooksPath", str(hooks))
    before = {p.name: p.read_bytes() for p in hooks.iterdir()}
    commit(repo.git, lambda _: {TASK: b"1"}, "m")
    assert not marker.exists()
    assert {p.name: p.read_bytes() for p in hooks.iterdir()} == before
    assert repo.run("config", "core.hooksPath") == str(hooks)


def test_from_inside_a_hook_of_this_repository(repo):
    """What ``git commit`` exports to its hooks must not make us use its half-written index."""
    script = (
        "import sys; from pathlib import Path\n"
        "from weightvc.history.commit import commit; from weightvc.history.git import discover\n"
        "commit(discover(Path('.')), lambda _: {'.wvc/tasks/a.json': b'1'}, 'from a hook')\n"
    )
    hook = repo.path / ".git/hooks/post-commit"
    hook.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{script}"\n')
    hook.chmod(0o755)
    repo.commit("mine", "x", "outer")
    assert repo.run("log", "--format=%s").split("\n") == ["from a hook", "outer", "by hand"]
    assert repo.run("ls-tree", "-r", "--name-only", "HEAD").split() == [TASK, "README", "mine"]
    assert repo.run("status", "--porcelain") == ""


def test_a_signed_commit_runs_no_program_of_the_clones(repo, tmp_path):
    marker, program = tmp_path / "ran", tmp_path / "gpg"
    program.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    repo.commit(TASK, "1")
    plain = subprocess.run(["git", "cat-file", "commit", "HEAD"], cwd=repo.path, check=True, stdout=subprocess.PIPE)
    signature = b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\n"
    head, _, message = plain.stdout.partition(b"\n\n")
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=repo.path, check=True, input=head + signature + message, stdout=subprocess.PIPE,
    )  # fmt: skip
    signed = made.stdout.decode().strip()
    repo.run("reset", "-q", "--hard", signed)
    for key, value in (("gpg.program", str(program)), ("log.showSignature", "true")):
        repo.run("config", key, value)
    blob = repo.run("rev-parse", f"HEAD:{TASK}")
    assert repo.git.first_with(TASK, blob) == signed
    assert [entry.commit for entry in repo.git.log(max_count=1)] == [signed]
    assert not marker.exists()
    repo.run("log", "-1")
    assert marker.exists()  # which shows that git by itself would
