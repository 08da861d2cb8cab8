"""What commands import: nobody waits for torch to see a usage error or to press TAB."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "git", "fsspec", "rich", "safetensors", "transformers")
DUMP = (
    "import sys, json, atexit, os\n"
    "atexit.register(lambda: os.write(3, json.dumps(sorted(m for m in sys.modules if '.' not in m)).encode()))\n"
    "from weightvc.cli.main import run\n"
    "sys.argv = ['wvc', *sys.argv[1:]]\n"
    "run()\n"
)


@pytest.fixture
def imported(two):
    """Run a command in a process of its own; return its code, output and the heavy packages that it imported."""

    def run(*arguments, **variables):
        read, write = os.pipe()
        try:
            done = subprocess.run(
                ["bash", "-c", f'exec "$@" 3>&{write} {write}>&-', "-", sys.executable, "-c", DUMP, *arguments],
                cwd=two.path,
                env={**os.environ, **variables},
                pass_fds=[write],
                capture_output=True,
                text=True,
                check=False,
            )
            os.close(write)
            with open(read, "rb") as pipe:
                modules = json.loads(pipe.read())
        finally:
            if not done:
                os.close(read)
        return done.returncode, done.stdout + done.stderr, {name for name in HEAVY if name in modules}

    return run


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["checkout", "--help"], 0),
        (["add"], 2),
        (["nosuch"], 2),
        (["checkout", "--bogus"], 2),
        (["checkout", "--max-shard-size", "x"], 2),
        (["checkout", "--method", "magic"], 2),
        (["checkout", "--method", "opcm", "-p", "alpha=9"], 2),
        (["checkout", "--tasks", "a=x"], 2),
        (["checkout", "--dtype", "I8"], 2),
        (["completion", "zsh"], 0),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(imported, arguments, code):
    found, _, heavy = imported(*arguments)

    assert (found, heavy) == (code, set())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("wvc re", {"recipe", "remote", "revert", "repack"}),
        ("wvc checkout --max", {"--max-shard-size"}),
        ("wvc checkout --on-int-mismatch b", {"base"}),
        ("wvc checkout --tasks alpha,", {"alpha,beta"}),
        ("wvc show al", {"alpha"}),
        ("wvc revert b", {"beta"}),
        ("wvc diff alpha b", {"beta"}),
        ("wvc add x --task b", {"beta"}),
        ("wvc unstage ne", {"new"}),
        ("wvc recipe s", {"save", "show"}),
        ("wvc recipe show pr", {"prod"}),
        ("wvc checkout --recipe p", {"prod"}),
        ("wvc checkout --recipe x", {"x"}),
        ("wvc recipe save x --method opcm", {"opcm", "opcm-s"}),
        ("wvc checkout --method=l", {"linear"}),
        ("wvc add x --codec r", {"raw"}),
        ("wvc init --codec i", {"intdelta"}),
        ("wvc add x --derived-from p", {"prod"}),
        ("wvc add so", {"so"}),
    ],
)
def test_completion_imports_nothing_heavy(imported, two, words, offered):
    (two.path / ".wvc/recipes").mkdir()
    (two.path / ".git/wvc/stage/tasks").mkdir(parents=True, exist_ok=True)
    (two.path / ".git/wvc/stage/tasks/new.json").touch()
    (two.path / ".wvc/recipes/prod.toml").touch()
    count = len(words.split()) - 1
    code, out, heavy = imported(_WVC_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))

    assert {line.partition(",")[2] for line in out.splitlines()} == offered
    assert (code, heavy) == (0, set())


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["log", "--graph"], ["fsck", "--full"], ["show", "alpha"], ["show", "HEAD"], ["recipe", "list"],
     ["unstage"], ["recipe", "show", "x"], ["commit", "-m", "x"], ["env"]],
)  # fmt: skip
def test_commands_that_move_no_tensors_import_no_torch(imported, arguments):
    code, _, heavy = imported(*arguments)

    assert code in (0, 3)
    assert "torch" not in heavy
    assert "rich" not in heavy


def test_the_library_itself_imports_nothing_heavy():
    code = "import weightvc, sys; print([m for m in ('torch', 'numpy', 'git', 'click') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["push", "--objects-only"], ["fetch", "--objects-only"], ["remote", "test", "disk"]]
)
def test_sharing_imports_no_torch(two, imported, tmp_path, arguments):
    (tmp_path / "disk").mkdir()
    two.wvc("remote", "add", "disk", tmp_path / "disk")
    code, out, heavy = imported(*arguments)
    assert code == 0, out
    assert "torch" not in heavy
