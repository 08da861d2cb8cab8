"""Ctrl-C, broken pipes and full disks, in processes of their own."""

import functools
import os
import signal
import subprocess
import sys
import time

import pytest

WVC = [sys.executable, "-m", "weightvc"]


@pytest.fixture(scope="module")
def large(tmp_path_factory, models, sandbox):
    """A repository with a base and a task that take a while, and another model; tests leave it as it is."""
    import torch

    root = tmp_path_factory.mktemp("large")
    base = {f"layer.{n}": torch.randn(512, 1024, generator=torch.Generator().manual_seed(n)) for n in range(12)}
    for name, tensors in (("base", base), ("one", models.tuned(base, 1)), ("two", models.tuned(base, 2))):
        models.write(root / name, tensors, files={})
    repo = sandbox(root / "repo")
    repo.path.mkdir()
    repo.wvc("init", "--base", root / "base")
    repo.put("one", root / "one")
    return repo


def interrupted(command, ready):
    """Start a command, send it SIGINT once ``ready`` says so, and return how it ended."""
    default = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default,  # noqa: PLW1509 -- no threads
    )
    deadline = time.monotonic() + 30
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def scratch(repo):
    tmp = repo / ".git/wvc/tmp"
    return list(tmp.iterdir()) if tmp.is_dir() else []


def test_ctrl_c_while_adding_leaves_nothing_half_made(large):
    before = len(large.objects())

    code, out, err = interrupted(
        [*WVC, "-C", large.path, "add", large.path / "../two", "--task", "two", "--jobs", "1"],
        lambda: len(large.objects()) > before,
    )

    assert (code, out, err) == (130, "", "wvc: interrupted\n")
    assert before < len(large.objects()) < before + 12
    assert scratch(large.path) == []
    assert not list((large.path / ".git/wvc/stage").rglob("*.json"))
    assert large.json("status")["staged"] == {}
    assert large.json("fsck", "--full")["ok"]


def test_ctrl_c_while_repacking_leaves_nothing_staged(large):
    before = len(large.objects())

    code, out, err = interrupted(
        [*WVC, "-C", large.path, "repack", "--level", "best", "--jobs", "1"], lambda: len(large.objects()) > before
    )

    assert (code, out, err) == (130, "", "wvc: interrupted\n")
    assert scratch(large.path) == []
    assert large.json("status")["staged"] == {}
    assert large.json("fsck", "--full")["ok"]


def test_ctrl_c_while_checking_out_leaves_no_directory(large, tmp_path):
    code, _, err = interrupted(
        [*WVC, "-C", large.path, "checkout", "--tasks", "one", "-o", tmp_path / "out", "--jobs", "1"],
        lambda: any(path.name.startswith(".out.wvc-") for path in tmp_path.iterdir()),
    )

    assert (code, err) == (130, "wvc: interrupted\n")
    assert list(tmp_path.iterdir()) == []
    assert scratch(large.path) == []


def test_ctrl_c_while_initializing_leaves_no_repository(large, tmp_path):
    target = tmp_path / "new"

    code, _, err = interrupted(
        [*WVC, "init", target, "--base", large.path / "../base", "--jobs", "1"], (target / ".git/wvc/objects").is_dir
    )

    assert (code, err) == (130, "wvc: interrupted\n")
    assert not target.exists()


@pytest.mark.parametrize("arguments", [["env"], ["--help"], ["completion", "bash"], ["--json", "env"]])
def test_a_broken_pipe(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*WVC, *arguments], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)

    assert (done.returncode, done.stderr) == (141, b"")


def test_an_error_into_a_broken_pipe():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*WVC, "nosuch"], stdout=subprocess.PIPE, stderr=write, check=False)
    os.close(write)

    assert (done.returncode, done.stdout) == (141, b"")


def test_a_full_disk_under_standard_output():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*WVC, "env"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 3
    assert "No space left on device" in done.stderr
