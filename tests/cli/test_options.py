"""How option values are read, and what the shell completes."""

import click
import pytest

from weightvc.cli import options
from weightvc.cli.group import COMMANDS, cli
from weightvc.cli.options import Size, TaskName


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1", 1), ("1000", 1000), ("5GB", 5 * 10**9), ("5gb", 5 * 10**9), ("512MiB", 512 * 2**20), ("1.5K", 1500),
        ("1.5Ki", 1536), (" 2 TB ", 2 * 10**12), ("3B", 3), (7, 7),
    ],
)  # fmt: skip
def test_sizes(text, nbytes):
    assert Size().convert(text, None, None) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "1 PB", "0", "0.5", "1.2.3", "five", "9" * 400])
def test_sizes_that_are_none(text):
    with pytest.raises(
        click.BadParameter,
        match=r"is not a size; write for example 5GB or 512MiB|is less than one byte|is more than any file",
    ):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", ["alpha", "beta"]),
        ("al", ["alpha"]),
        ("x", []),
        ("alpha,", ["alpha,beta"]),
        ("alpha=0.5,b", ["alpha=0.5,beta"]),
        ("alpha,beta,", []),
    ],
)
def test_task_names_complete_from_the_work_tree(two, monkeypatch, typed, offered):
    (two.path / "deep/er").mkdir(parents=True)
    (two.path / ".wvc/tasks/$(touch${IFS}x).json").touch()
    (two.path / ".wvc/tasks/al\x1b[2J.json").touch()
    for directory in (two.path, two.path / "deep/er"):
        monkeypatch.chdir(directory)
        assert [item.value for item in TaskName().shell_complete(None, None, typed)] == offered


def test_staged_names_complete_from_the_stage_of_this_work_tree(two, templates, monkeypatch, tmp_path):
    two.wvc("recipe", "save", "r.s", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save r.s")
    two.wvc("recipe", "rm", "r.s")
    two.wvc("add", templates.alpha, "--task", "new")
    two.git("worktree", "add", "-q", str(tmp_path / "tree"))
    (two.path / "deep").mkdir()
    monkeypatch.chdir(two.path / "deep")
    assert options.staged(None, None, "") == ["new", "r.s"]
    assert options.staged(None, None, "n") == ["new"]

    tree = type(two)(tmp_path / "tree")
    monkeypatch.chdir(tree.path)
    assert options.staged(None, None, "") == []
    tree.wvc("add", templates.alpha, "--task", "there")
    assert options.staged(None, None, "") == ["there"]


def test_outside_a_repository_there_is_nothing_to_complete(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert TaskName().shell_complete(None, None, "") == []
    assert options.recipes(None, None, "") == []
    assert options.staged(None, None, "") == []


def test_names_that_are_listed_without_an_import_are_those_that_there_are():
    from weightvc.delta import codec
    from weightvc.objects.recipe import OWN
    from weightvc.objects.tensors import MERGED

    assert options.codecs(None, None, "") == list(codec.CODECS)
    assert set(options.DTYPES) == {*MERGED, OWN}


def test_paths_are_left_to_the_shell():
    (item,) = options.recipes_or_files(None, None, "some/wh")

    assert (item.value, item.type) == ("some/wh", "file")


@pytest.mark.parametrize(
    ("words", "offered"),
    [("", set(COMMANDS)), ("re", {"recipe", "remote", "repack", "revert"}), ("--j", {"--json"}), ("x", set())],
)
def test_commands_complete_with_their_summaries(words, offered):
    items = cli.shell_complete(click.Context(cli), words)

    assert {item.value for item in items} == offered
    assert {item.help for item in items if item.value in COMMANDS} == {
        COMMANDS[name] for name in offered & set(COMMANDS)
    }


def test_an_empty_name_among_tasks_is_refused(wvc):
    ran = wvc("checkout", "--tasks", ",alpha")
    assert ran.code == 2
    assert "',alpha' has an empty name" in ran.err
