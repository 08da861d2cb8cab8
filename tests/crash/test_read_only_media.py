"""A repository on a medium that is mounted read-only: what only reads works, and what writes says why it cannot."""

import disk
import judge
import pytest
import recorder as recording

READING = {
    "status": ("status",),
    "status of a directory below": ("-C", ".git/..", "status"),
    "log": ("log",),
    "log of a task": ("log", "alpha"),
    "show": ("show", "alpha"),
    "show a revision": ("show", "HEAD~1"),
    "diff": ("diff", "alpha", "beta"),
    "verify": ("verify", "model"),
    "verify --replay": ("verify", "model", "--replay", "-j", "1"),
    "fsck": ("fsck",),
    "fsck --full": ("fsck", "--full", "-j", "1"),
    "recipe list": ("recipe", "list"),
    "recipe show": ("recipe", "show", "prod"),
    "env": ("env",),
    "add --estimate": ("add", "{models}/next", "--task", "next", "--estimate", "-j", "1"),
    "add --dry-run": ("add", "{models}/next", "--task", "next", "--dry-run"),
    "commit --dry-run": ("commit", "--dry-run", "-m", "Nothing"),
    "unstage --dry-run": ("unstage", "--dry-run"),
    "checkout --dry-run": ("checkout", "--dry-run", "-j", "1"),
    "repack --dry-run": ("repack", "--dry-run", "-j", "1"),
    "revert --dry-run": ("revert", "alpha", "--dry-run"),
    "recipe save --dry-run": ("recipe", "save", "new", "--tasks", "alpha", "--dry-run"),
    "init --dry-run": ("init", "{elsewhere}/repo", "--base", "{models}/base", "--dry-run"),
    "checkout elsewhere": ("checkout", "-o", "{elsewhere}/out", "-j", "1"),
}

WRITING = {
    "add": ("add", "{models}/next", "--task", "next", "-j", "1"),
    "commit": ("commit", "-m", "Nothing"),
    "unstage": ("unstage",),
    "checkout": ("checkout", "-j", "1"),
    "repack": ("repack", "alpha", "--codec", "raw", "-j", "1"),
    "revert": ("revert", "alpha", "-j", "1"),
    "recipe save": ("recipe", "save", "new", "--tasks", "alpha"),
    "init": ("init", "sub", "--base", "{models}/base"),
}

MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture(scope="module")
def medium(namespace, *, library, arena, starts, sandbox, models):
    """Run commands in a repository, with something staged, that is mounted read-only: ``medium(*arguments)``."""
    root = judge.copy(starts["model"].path, arena / "medium")
    sandbox(root).wvc("add", models / "gamma", "--task", "gamma")
    (arena / "scratch").mkdir()
    with recording.Recorder(library, arena / "scratch", [*namespace, "sh", "-c", MOUNT, str(root)]) as recorder:

        def run(elsewhere, *arguments):
            before = disk.scan(root)
            texts = [part.format(models=models, elsewhere=elsewhere) for part in arguments]
            ran = recorder.run(root, *texts)
            assert disk.scan(root) == before
            assert ran.operations == ()
            return ran

        yield run


@pytest.mark.parametrize("name", READING)
def test_what_reads_works(medium, tmp_path, name):
    ran = medium(tmp_path, *READING[name])

    assert ran.code == 0, ran.err
    assert ran.out
    warned = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == (name == "checkout elsewhere")


@pytest.mark.parametrize("name", WRITING)
def test_what_writes_says_why_it_cannot(medium, tmp_path, name):
    ran = medium(tmp_path, *WRITING[name])

    assert ran.code == 3
    assert ran.err.startswith("wvc: ")
    assert "ead-only file system" in ran.err
    assert "Traceback" not in ran.err
