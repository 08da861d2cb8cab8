"""What all commands share: global options, the repository, progress, and printing results."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from weightvc.util.progress import SILENT, Progress
from weightvc.util.text import Note, printable

if TYPE_CHECKING:
    from weightvc.repo.repository import Handle

_LONG = 40


@dataclass
class Context:
    """The global options of one run, and the exit code that its command decided."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_pager: bool = False
    code: int = 0

    def repository(self) -> "Handle":
        """Open the repository of the current directory; :class:`NotARepository` if there is none."""
        found: Handle
        found, warnings = import_module("weightvc.repo.repository").open_handle(Path.cwd())
        self.note(warnings, "warning")
        return found

    def progress(self) -> Progress:
        """Return bars on a terminal's standard error; silence when piped, in CI, or under ``--json`` or ``-q``."""
        off = self.json or self.quiet or os.environ.get("WVC_NO_PROGRESS") or os.environ.get("CI")
        if off or not _terminal(sys.stderr):
            return SILENT
        bars: Progress = import_module("weightvc.cli.bars").Bars()
        return bars

    def emit(self, name: str, result: Any, lines: Iterable[str], *, done: bool = False) -> None:
        """Print a result: the lines for people, safe for a terminal, or the dataclass as one JSON document.

        Lines that report what was ``done``, and are not what the command was run for, are left out under ``-q``.
        """
        if self.json:
            _write(json.dumps({"schema": f"weightvc/{name}/1", **_plain(result)}))
            return
        if done and self.quiet:
            return
        text = "".join(f"{printable(line)}\n" for line in lines)
        if text.count("\n") > _LONG and _terminal(sys.stdout) and not self.no_pager:
            click.echo_via_pager(text)
        else:
            _write(text, nl=False)

    def note(self, notes: Iterable[str], label: str = "note") -> None:
        """Print notes or warnings for people on standard error; ``-q`` leaves out the notes."""
        if not self.json and not (self.quiet and label == "note"):
            for text in notes:
                shown = text.full if self.verbose and isinstance(text, Note) else text
                _write(f"{label}: {printable_lines(shown)}", err=True)

    def fail(self, kind: str, what: str, hint: str) -> None:
        """Print an error: for people on standard error, and as a document under ``--json``."""
        document = {"schema": "weightvc/error/1", "error": {"kind": kind, "what": what, "hint": hint}}
        try:
            if self.json:
                _write(json.dumps(document))
        finally:
            _write(f"wvc: {printable_lines(what)}", err=True)
            if hint:
                _write(f"hint: {printable_lines(hint)}", err=True)


def _write(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print; an error of the system then says where."""
    try:
        click.echo(text, err=err, nl=nl)
    except OSError as error:
        error.filename = "standard error" if err else "standard output"
        raise


pass_context = click.make_pass_decorator(Context)


def _terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream leads to a terminal; Python has no stream where the descriptor was closed."""
    return stream is not None and stream.isatty()


def printable_lines(text: str) -> str:
    """Make every line of a message safe for a terminal; tabs, as in lists of choices, become spaces."""
    return "\n".join(printable(line.expandtabs(4)) for line in text.splitlines())


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def size(nbytes: float) -> str:
    """Return a number of bytes in binary units, as git-lfs and zstd print it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time that is known roughly, in seconds, minutes or hours."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def share(part: float, whole: float) -> str:
    """Return ``part`` of ``whole`` as a percentage."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def number(value: float | None) -> str:
    """Return a figure to four digits, or a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def columns(rows: Sequence[Sequence[object]], *, right: Iterable[int] = ()) -> list[str]:
    """Return rows of text in aligned columns; those numbered in ``right`` are flush right."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    flush = set(right)
    return [
        "  ".join(
            c.rjust(w) if i in flush else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
