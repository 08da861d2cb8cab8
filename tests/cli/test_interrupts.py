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


@pytest.mark.parametrize(
    ("arguments", "out", "err", "code", "says"),
    [
        (["--json", "env"], True, False, 3, "wvc: standard output: No space left on device\nhint: free some space"),
        (["--json", "env"], True, True, 3, ""),
        (["--help"], True, False, 3, "wvc: [Errno 28] No space left on device\n"),
        (["--json", "diff"], True, False, 2, "wvc: Missing argument 'A'.\nhint: see `wvc diff --help`\n"),
        (["diff"], False, True, 2, ""),
        (["recipe"], False, True, 2, ""),
        (["add", "nope", "--task", "x", "-C", "/"], False, True, 3, ""),
        (["-vv", "add", "nope", "--task", "x", "-C", "/"], False, True, 3, ""),
        (["--json", "add", "nope", "--task", "x", "-C", "/"], True, True, 3, ""),
    ],
)
def test_streams_on_a_full_disk_keep_the_code(arguments, out, err, code, says):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*WVC, *arguments],
            stdout=full if out else subprocess.PIPE,
            stderr=full if err else subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stdout or "") == (code, "")
    assert (done.stderr or "").startswith(says)
    assert "Traceback" not in (done.stderr or "")


TRAP = """
import os, signal, sys, time
class Trap:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                if {hidden}:
                    raise ImportError("cannot load module more than once per process") from None
                raise
signal.signal(signal.SIGINT, {handler})
sys.meta_path.insert(0, Trap())
from weightvc.cli.main import run
sys.argv = ["wvc", "env"]
run()
"""


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", ["click", "weightvc.cli.report", "weightvc.cli.context", "weightvc.cli.env"])
def test_ctrl_c_while_modules_are_imported(name, hidden):
    code = TRAP.format(name=name, hidden=hidden, handler="signal.default_int_handler")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "wvc: interrupted\n")


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it():
    code = TRAP.replace("time.sleep(5)", "pass").format(name="click", hidden=False, handler="signal.SIG_IGN")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("where", ["weightvc.cli.context.Context.fail", "weightvc.cli.report._flushed"])
def test_ctrl_c_at_the_end_is_quiet(where):
    module, _, name = where.rpartition(".Context.") if ".Context." in where else where.rpartition(".")
    code = f"""
import importlib, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
module = importlib.import_module({module!r})
def stopped(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
setattr(getattr(module, "Context", module) if {name == "fail"} else module, {name!r}, stopped)
from weightvc.cli.main import run
sys.argv = ["wvc", "diff"]
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


def test_what_nobody_interrupted_keeps_its_traceback():
    code = "import sys\nsys.modules['click'] = None\nfrom weightvc.cli.main import run\nrun()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
