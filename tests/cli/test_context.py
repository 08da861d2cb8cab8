"""What all commands share."""

import io
import sys

import click
import pytest

from weightvc.cli import context
from weightvc.cli.context import Context
from weightvc.util.progress import SILENT


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"),
        (5 * 10**9, "4.7 GiB"), (3 * 2**40, "3.0 TiB"), (5000 * 2**40, "5000.0 TiB"),
    ],
)  # fmt: skip
def test_sizes(nbytes, text):
    assert context.size(nbytes) == text


def test_shares_and_numbers():
    assert context.share(1, 3) == "33.3 %"
    assert context.share(1, 0) == "-"
    assert context.number(0.123456) == "0.1235"
    assert context.number(None) == "-"


def test_columns():
    rows = [("a", 1, "x"), ("bcd", 10, ""), ("e\x1b", 2, "yy")]

    assert context.columns(rows, right=(1,)) == ["a         1  x", "bcd      10", "e\\u001b   2  yy"]


def test_bars_on_a_terminal_only(monkeypatch):
    from weightvc.cli.bars import Bars

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(Context().progress(), Bars)
    assert Context(json=True).progress() is SILENT
    assert Context(quiet=True).progress() is SILENT
    for name in ("CI", "WVC_NO_PROGRESS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert Context().progress() is SILENT
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert Context().progress() is SILENT


@pytest.mark.parametrize(
    ("lines", "options", "stream", "paged"),
    [
        (41, {}, Terminal, True),
        (40, {}, Terminal, False),
        (41, {"no_pager": True}, Terminal, False),
        (41, {}, io.StringIO, False),
    ],
)
def test_long_output_is_paged_on_a_terminal(monkeypatch, lines, options, stream, paged):
    seen = []
    monkeypatch.setattr(click, "echo_via_pager", seen.append)
    monkeypatch.setattr(sys, "stdout", stream())

    Context(**options).emit("x", None, ["line"] * lines)

    assert bool(seen) == paged
    assert (seen[0] if paged else sys.stdout.getvalue()) == "line\n" * lines


def test_nothing_to_say_prints_nothing(capsys):
    Context().emit("x", None, [])

    assert capsys.readouterr().out == ""


def test_warnings_of_opening_a_repository_are_printed(two, monkeypatch, capsys):
    from weightvc.repo import repository

    found = two.api()
    monkeypatch.setattr(repository, "open_handle", lambda _: (found, ("not up to date",)))

    assert Context().repository() is found
    assert capsys.readouterr().err == "warning: not up to date\n"
