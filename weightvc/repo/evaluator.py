"""Evaluators: a user's command that scores a model directory.

It is split as a shell would, and run without one. ``{model_dir}`` in an argument stands for the directory, which is
the last argument if none has it. The last line that the command prints, or all of it, is JSON: a number, or an object
of names and numbers. Higher is better.
"""

import math
import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import IO

from weightvc.objects.scores import MAX_SCORES, Score, is_name
from weightvc.util import canon
from weightvc.util.errors import BadInput, UsageError
from weightvc.util.text import listed, printable

DIRECTORY = "{model_dir}"
ALONE = "score"
"""The name of a number that has none."""

GRACE = 5.0
"""Seconds that an interrupted command has to end by itself."""

_READ = 2**20
_SHOWN_LINES, _SHOWN = 10, 2000
_EXAMPLE = "write it as in a shell, for example --eval 'python score.py {model_dir}'"


@dataclass(frozen=True)
class Evaluation:
    """A command to score models by, and how far a score may drop.

    The command is not kept: it may hold a secret, or a path of one machine.

    Attributes:
        command: As it would be typed into a shell.
        max_drop: By how much a score of what comes back may be below the fine-tune's, in its own unit; anything if
            ``None``.

    Raises:
        UsageError: a command that is none, or a drop that is no number from 0 on.
    """

    command: str
    max_drop: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be used before anything is done."""
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(f"--max-drop {self.max_drop} is no number from 0 on", "write for example --max-drop 0.01")
        _ = self.evaluator

    @cached_property
    def evaluator(self) -> "Evaluator":
        """The command, ready to be run."""
        return Evaluator(self.command)

    def dropped(self, scores: Iterable[Score]) -> tuple[str, ...]:
        """Return the names of the scores that dropped too far, by their decimal digits: .93 less .92 is .01."""
        if self.max_drop is None:
            return ()
        most = _exact(self.max_drop)
        return tuple(score.name for score in scores if _exact(score.tuned) - _exact(score.stored) > most)


def asked(command: str | None, max_drop: float | None) -> Evaluation | None:
    """Return the evaluation that `--eval` and `--max-drop` ask for; raises :class:`UsageError`."""
    if command is not None:
        return Evaluation(command, max_drop)
    if max_drop is not None:
        raise UsageError("--max-drop needs scores", "pass --eval CMD, too")
    return None


def _exact(number: float) -> Fraction:
    return Fraction(repr(float(number)))


class Evaluator:
    """A command that scores model directories.

    Args:
        command: As it would be typed into a shell.

    Raises:
        UsageError: it has no words, or its quotes do not match.
    """

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--eval cannot be split into words: {error}", _EXAMPLE) from None
        if not self._words:
            raise UsageError("--eval names no command", _EXAMPLE)
        if any("\0" in word for word in self._words):
            raise UsageError("--eval holds a NUL byte", _EXAMPLE)

    def score(self, directory: Path, what: str) -> dict[str, float]:
        """Run the command on a directory and return its scores by name, sorted; a bare number is called ``score``.

        An interrupt ends the command and all that it started.

        Args:
            directory: The model directory; the command may write into it.
            what: What is scored, for messages.

        Raises:
            BadInput: it cannot be started, fails, or prints anything but finite numbers.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = _run(self._arguments(directory), out, err)
            said = _said(err)
            if status:
                how = f"was ended by signal {-status}" if status < 0 else f"failed with exit code {status}"
                raise _refusal(f"the evaluator {how} on {what}", said)
            try:
                return _scores(_printed(out))
            except BadInput as error:
                raise _refusal(f"the evaluator's answer for {what} {error.what}", said) from None

    def _arguments(self, directory: Path) -> list[str]:
        words = [word.replace(DIRECTORY, str(directory)) for word in self._words]
        return words if words != self._words else [*words, str(directory)]


def _refusal(what: str, said: str) -> BadInput:
    return BadInput(
        what + (f"; it said:\n{said}" if said else "; it said nothing on standard error"),
        "run it by hand on the directory of the fine-tune; the last line that it prints must be a number, or a JSON "
        "object of names and numbers",
    )


def _run(arguments: Sequence[str], out: IO[bytes], err: IO[bytes]) -> int:
    """Run a command to its end in a process group of its own, and return its exit status."""
    process = None
    try:
        with _uninterrupted():
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0)
        return process.wait()
    except OSError as error:
        raise BadInput(
            f"the evaluator {printable(arguments[0])[:80]!r} cannot be run: {error.strerror}",
            "give a program that is on the PATH, or the path of one; a script needs its interpreter before it",
        ) from None
    except BaseException:
        if process is not None:
            _end(process)
        raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the block ends: in the midst of a start it would leave a process that nobody knows."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *call: came.append(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for call in came[:1]:
            handler(*call)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started: politely, then not."""
    try:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(file: IO[bytes]) -> tuple[bytes, bool]:
    """Return the end of a file, and whether that is all of it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _READ))
    return file.read(), size <= _READ


def _said(err: IO[bytes]) -> str:
    """Return the last lines of what a command said, safe for a terminal."""
    lines = _tail(err)[0].decode("utf-8", "replace").splitlines()
    kept = [printable(line.expandtabs(4)) for line in lines if line.strip()][-_SHOWN_LINES:]
    return "\n".join(kept)[-_SHOWN:]


def _printed(out: IO[bytes]) -> canon.Json:
    """Return the JSON of the last line, or of all that was printed; raises :class:`BadInput`."""
    data, whole = _tail(out)
    last = data.strip().rpartition(b"\n")[2]
    if not last:
        raise BadInput("is empty")
    try:
        return canon.parse(last, "its last line")
    except BadInput as error:
        if whole:
            with suppress(BadInput):
                return canon.parse(data, "what it printed")
        shown = printable(last[:80].decode("utf-8", "replace"))
        raise BadInput(f"is no number and no JSON object: {error.what}: {shown!r}") from None


def _scores(value: canon.Json) -> dict[str, float]:
    named = value if isinstance(value, dict) else {ALONE: value}
    if not 0 < len(named) <= MAX_SCORES:
        raise BadInput(f"has {len(named)} scores, not 1 to {MAX_SCORES}")
    if bad := [
        name for name, number in named.items() if isinstance(number, bool) or not isinstance(number, int | float)
    ]:
        raise BadInput(f"is no number: {listed(bad)}" if value is named else "is no number and no JSON object")
    if bad := [name for name in named if not is_name(name)]:
        raise BadInput(f"has names that no score can have: {listed([ascii(name)[:40] for name in bad])}")
    return {name: float(named[name]) + 0.0 for name in sorted(named)}
