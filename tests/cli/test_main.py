"""Exit codes, global options, and how runs end."""

import errno
import re
import subprocess
import sys
from dataclasses import astuple

import click
import pytest

from weightvc.cli import exits, group, main
from weightvc.util import errors


@pytest.fixture
def failing(monkeypatch, wvc):
    """Run a command that raises what it is told to."""

    def run(error, *options):
        @click.command()
        def command():
            raise error

        monkeypatch.setattr("weightvc.cli.env.command", command)
        return wvc(*options, "env")

    return run


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (errors.UsageError("what", "next"), 2, "wvc: what\nhint: next\n"),
        (errors.RequestError("what"), 3, "wvc: what\n"),
        (errors.BadInput("line\x1b[2Jone\nline two"), 3, "wvc: line\\u001b[2Jone\nline two\n"),
        (errors.Unsupported("what"), 3, "wvc: what\n"),
        (errors.NotFound("what"), 3, "wvc: what\n"),
        (errors.Corrupt("what"), 4, "wvc: what\nhint: run `wvc fsck --full` to see what is damaged\n"),
        (errors.Missing("what"), 4, "wvc: what\n"),
        (click.UsageError("bad"), 2, "wvc: bad\nhint: see `wvc env --help`\n"),
        (click.ClickException("bad"), 3, "wvc: bad\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 3,
         "wvc: /x: No space left on device\nhint: free some space and run it again\n"),
        (OSError(errno.EFBIG, "File too large", b"/x\xff"), 3,
         ("wvc: /x\\udcff: File too large\n"
          "hint: raise the limit on the size of files (`ulimit -f`), and run it again\n")),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 3,
         ("wvc: /x: Read-only file system\n"
          "hint: this is on read-only media: what is there can be read, and nothing be recorded\n")),
        (OSError(errno.EXDEV, "Invalid cross-device link", "/x"), 3,
         "wvc: /x: Invalid cross-device link\nhint: the directories below .git/wvc must be on one file system\n"),
        (OSError(errno.EIO, "Input/output error"), 3,
         "wvc: [Errno 5] Input/output error\nhint: run it again with -vv for the details\n"),
        (KeyboardInterrupt(), 130, "wvc: interrupted\n"),
        (EOFError(), 130, "wvc: interrupted\n"),
        (click.Abort(), 130, "wvc: interrupted\n"),
        (click.exceptions.Exit(1), 1, ""),
    ],
)  # fmt: skip
def test_how_errors_end(failing, error, code, says):
    ran = failing(error)

    assert (ran.code, ran.out, ran.err) == (code, "", says)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_memory_that_runs_out_is_no_bug(failing, error):
    ran = failing(error)

    says = "wvc: not enough memory\nhint: run it with fewer threads (-j 1), or with more memory\n"
    assert (ran.code, ran.out, ran.err) == (3, "", says)


def test_a_directory_that_was_deleted_is_said(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    done = subprocess.run([sys.executable, "-m", "weightvc", "status"], capture_output=True, text=True, check=False)
    monkeypatch.chdir(tmp_path)

    says = "wvc: the current directory was deleted\nhint: go to another one, or name one with -C DIR\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", says)


@pytest.mark.parametrize("command", ["add", "checkout"])
def test_a_limit_on_the_size_of_files_is_said_with_the_file(two, templates, tmp_path, command):
    arguments = {"add": [templates.alpha, "--task", "x"], "checkout": ["-o", tmp_path / "out"]}[command]
    line = ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", sys.executable, "-m", "weightvc", "-C", two.path, command]

    done = subprocess.run([*line, *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 3
    assert re.fullmatch(
        rf"wvc: {tmp_path}/.*: File too large\nhint: raise the limit on the size of files .*\n", done.stderr
    ), done.stderr


def test_a_bug_keeps_its_traceback(failing):
    ran = failing(ZeroDivisionError("oops"))

    assert ran.code == 70
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert ran.err.endswith(
        "ZeroDivisionError: oops\nwvc: this is a bug in wvc: ZeroDivisionError('oops')\n"
        "hint: report it with the traceback above and `wvc env`\n"
    )


@pytest.mark.parametrize("error", [errors.RequestError("what"), OSError(5, "Input/output error")])
def test_tracebacks_on_request(failing, error):
    assert "Traceback" not in failing(error).err
    assert failing(error, "-v").err == failing(error).err
    assert failing(error, "-vv").err.startswith("Traceback (most recent call last):\n")


def test_kinds_and_codes():
    assert exits.code(errors.WeightvcError("x")) == exits.BUG
    assert exits.kind(errors.Corrupt("x")) == "Corrupt"
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {exits.code(kind("x")) for kind in kinds} == {2, 3, 4, 5, 70, 130}


def test_no_command_prints_help_and_is_a_usage_error(wvc):
    for arguments in ((), ("recipe",)):
        ran = wvc(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("Usage: wvc ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("stauts",), "wvc: No such command 'stauts'. Did you mean 'status'?\nhint: see `wvc --help`\n"),
        (("nosuch",), "wvc: No such command 'nosuch'.\nhint: see `wvc --help`\n"),
        (("recipe", "nosuch"), "wvc: No such command 'nosuch'.\nhint: see `wvc recipe --help`\n"),
        (("add",), "wvc: Missing argument 'PATH'.\nhint: see `wvc add --help`\n"),
        (("add", "x"), "wvc: Missing option '--task'.\nhint: see `wvc add --help`\n"),
        (("commit",), "wvc: Missing option '-m' / '--message'.\nhint: see `wvc commit --help`\n"),
        (("init",), "wvc: Missing option '--base'.\nhint: see `wvc init --help`\n"),
        (("status", "--zzz"), "wvc: No such option '--zzz'.\nhint: see `wvc status --help`\n"),
        (("log", "--limit", "0"),
         "wvc: Invalid value for '--limit': 0 is not in the range x>=1.\nhint: see `wvc log --help`\n"),
        (("-C", "/no/such", "status"), "wvc: -C /no/such: No such file or directory\nhint: see `wvc --help`\n"),
    ],
)  # fmt: skip
def test_usage_errors(wvc, arguments, says):
    ran = wvc(*arguments)

    assert (ran.code, ran.out, ran.err) == (2, "", says)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("merge", "merge tasks with `wvc checkout --tasks a,b`; merge branches with `git merge`"),
        ("rm", "take out a task with `wvc revert TASK`, a recipe with `wvc recipe rm NAME`"),
        ("remove", "take out a task with `wvc revert TASK`, a recipe with `wvc recipe rm NAME`"),
        ("delete", "take out a task with `wvc revert TASK`, a recipe with `wvc recipe rm NAME`"),
        ("reset", "take back what is staged with `wvc unstage NAME`; undo commits and edits with git itself"),
        ("restore", "take back what is staged with `wvc unstage NAME`; undo commits and edits with git itself"),
        ("pull", "use `wvc fetch`, then `git merge`"),
        ("clone", "use `git clone`, then `wvc remote add NAME URL` and `wvc fetch`"),
        ("branch", "branches are git's own: use `git branch`"),
        ("switch", "branches are git's own: use `git switch`"),
    ],
)
def test_commands_of_git_that_there_are_not_name_what_to_use(wvc, command, hint):
    ran = wvc(command, "x")

    assert (ran.code, ran.out, ran.err) == (2, "", f"wvc: No such command '{command}'.\nhint: {hint}\n")
    assert not group.ELSEWHERE.keys() & group.COMMANDS.keys()


def test_quiet_prints_what_was_asked_for_and_errors_only(two, models, tmp_path):
    import torch

    source = models.write(tmp_path / "x", {**models.base(), "head": torch.ones(2)})

    loud, quiet = two.run("add", source, "--task", "x"), two.run("-q", "add", source, "--task", "y")

    assert loud.err == "note: 1 tensor that the base does not have, stored whole: head\n"
    assert loud.out.startswith("staged task x: ")
    assert (quiet.err, quiet.out) == ("", "")
    assert two.run("-q", "--json", "add", source, "--task", "y").json["task"] == "y"
    assert two.run("-q", "show", "nobody").err.startswith("wvc: no task 'nobody'")


def test_quiet_success_of_what_writes_is_silent(two, wvc, templates, tmp_path):
    silent = (0, "", "")
    assert astuple(wvc("-q", "init", tmp_path / "new", "--base", templates.base)) == silent
    for arguments in (
        ("recipe", "save", "prod", "--tasks", "alpha"), ("unstage",), ("recipe", "save", "prod"), ("commit", "-m", "x"),
        ("recipe", "rm", "prod"), ("checkout", "-o", tmp_path / "out"), ("add", templates.alpha, "--task", "new"),
        ("revert", "alpha"), ("revert", "new"),
    ):  # fmt: skip
        assert astuple(two.run("-q", *arguments)) == silent, arguments
    for arguments in (
        ("status",), ("show", "beta"), ("log",), ("diff", "beta"), ("recipe", "list"), ("fsck",), ("verify", "../out"),
        ("checkout", "-n"), ("commit", "-m", "x", "-n"), ("add", templates.alpha, "--task", "z", "-n"),
        ("recipe", "rm", "prod", "-n"),
    ):  # fmt: skip
        two.json("recipe", "save", "prod", "--tasks", "beta=0.5")
        assert two.run("-q", *arguments).out == two.wvc(*arguments) != "", arguments


def test_a_directory_to_start_in(two, wvc):
    (two.path / "sub").mkdir()

    assert wvc("-C", two.path / "sub", "status").out == two.wvc("status")
    assert wvc("-C", two.path, "-C", "sub", "status").code == 2


def test_options_of_all_commands_may_follow_the_command(two, wvc, models, tmp_path, monkeypatch):
    import torch

    source = models.write(tmp_path / "x", {**models.base(), "head": torch.ones(2)})

    assert two.run("add", source, "--task", "x", "-q").err == ""
    assert wvc("recipe", "list", "-C", two.path, "--no-pager").out == "none\n"
    assert "Traceback" in two.run("show", "nobody", "-vv").err
    ran = wvc("status", "-C", "/no/such")
    assert (ran.code, ran.err) == (2, "wvc: -C /no/such: No such file or directory\nhint: see `wvc status --help`\n")
    monkeypatch.chdir(two.path)
    assert wvc("add", "x", "--task", "y", "-C", tmp_path / "nowhere").code == 2
    assert wvc("add", "x", "--task", "y", "-n", "-C", two.path.parent).code == 3
    assert "-C DIR" not in wvc("add", "--help").out


def test_paths_are_relative_to_the_directory(two, templates, models):
    import shutil

    shutil.copytree(templates.alpha, two.path / "mine")

    two.wvc("add", "mine", "--task", "x")
    two.wvc("checkout", "--tasks", "alpha", "-o", "out")

    assert models.contents(two.path / "out") == models.contents(templates.alpha)


def test_the_module_runs_the_command_line(monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["wvc", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("weightvc", run_name="__main__")

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("wvc ")


def test_standard_streams_may_be_closed(monkeypatch, two):
    monkeypatch.setattr(sys, "argv", ["wvc", "-C", str(two.path), "status"])
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.chdir(two.path)

    with pytest.raises(SystemExit) as ended:
        main.run()

    assert ended.value.code == 0


def test_the_table_names_every_command_and_its_summary():
    for name in group.COMMANDS:
        command = group.cli.get_command(click.Context(group.cli), name)
        assert command.name == name
    assert group.cli.get_command(click.Context(group.cli), "nosuch") is None


def test_a_list_of_choices_is_indented_with_spaces(wvc):
    err = wvc("completion").err

    assert "\n    bash,\n    zsh,\n    fish\n" in err
    assert "u0009" not in err
