import io
import sys

import pytest

from weightvc.cli.bars import Bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_its_stage_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    bars = Bars()

    bars.advance(3)  # between stages: nothing to move
    with bars.stage("Storing model", 2 * 2**20):
        bars.advance(2**20)
        bars._bar.refresh()
        drawn = sys.stderr.getvalue()
    bars.advance(3)

    assert "Storing model" in drawn
    assert "1.0/2.0 MiB" in drawn
    assert sys.stderr.getvalue().endswith("\x1b[2K")


def test_a_bar_goes_when_the_work_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bars = Bars()

    with pytest.raises(ZeroDivisionError), bars.stage("Storing", 10):
        raise ZeroDivisionError

    assert bars._bar is None


def test_commands_draw_them(two, templates, monkeypatch):
    from weightvc.repo import add

    terminal = Terminal()
    bars = Bars()
    monkeypatch.setattr(sys, "stderr", terminal)

    add.add(two.api(), templates.alpha, "x", add.Options(), bars)

    assert "Storing task x" in terminal.getvalue()
