"""How a run ends: what is said about a failure, and the exit code."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass

import click

from weightvc.cli import exits
from weightvc.cli.context import Context
from weightvc.cli.group import cli
from weightvc.cli.main import Interrupts
from weightvc.util.errors import Interrupted, WeightvcError

_HINTS = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space, or raise the quota, and run it again",
    errno.EROFS: "this is on read-only media: what is there can be read, and nothing be recorded",
    errno.EACCES: "check who may write there",
    errno.EXDEV: "the directories below .git/wvc must be on one file system",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), and run it again",
}
_DETAILS = "run it again with -vv for the details"
_MEMORY = "not enough memory", "run it with fewer threads (-j 1), or with more memory"


@dataclass(frozen=True)
class _Failure:
    """How a run ended badly: its code, and what to say; ``shown`` is printed as it is."""

    code: int
    kind: str = ""
    what: str = ""
    hint: str = ""
    shown: str = ""


def run(interrupts: Interrupts) -> int:
    """Run the command line and return its exit code. What cannot be said does not change the code of a failure."""
    state = Context()
    failure = _invoke(state, interrupts)
    interrupts.ending = True
    code = state.code if failure is None else failure.code
    try:
        if failure is not None and failure.shown:
            click.echo(failure.shown, err=True)
        if failure is not None and failure.what:
            state.json = state.json or "--json" in sys.argv[1:]
            state.fail(failure.kind, failure.what, failure.hint)
    except BrokenPipeError:
        code = exits.BROKEN_PIPE
    except OSError:
        code = code or exits.REQUEST
    return _flushed(code)


def _flushed(code: int) -> int:
    """Flush the standard streams; one that fails decides the code, and is closed to what Python flushes at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = exits.BROKEN_PIPE if isinstance(error, BrokenPipeError) else code or exits.REQUEST
    return code


def _invoke(state: Context, interrupts: Interrupts) -> _Failure | None:
    """Run the command. Not by click's ``main``, which ends the process with 1 when a pipe breaks."""
    try:
        if os.environ.get("_WVC_COMPLETE"):
            cli.main(prog_name="wvc", obj=state)  # answers the shell, and exits
        with cli.make_context("wvc", sys.argv[1:], obj=state) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        state.code = done.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 -- the last resort: a bug is reported as one
        stopped = isinstance(error, KeyboardInterrupt | EOFError | click.Abort)
        if stopped or (interrupts.came and not isinstance(error, Interrupted)):
            return _Failure(exits.INTERRUPTED, "Interrupted", "interrupted")
        failure = _usage(error) or _failure(error)
        if failure.code == exits.BUG or (state.verbose > 1 and failure.code not in (exits.USAGE, exits.BROKEN_PIPE)):
            with suppress(OSError):
                traceback.print_exception(error)
        return failure
    return None


def _usage(error: BaseException) -> _Failure | None:
    """Return the failure behind an error of click's."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return _Failure(exits.USAGE, shown=error.format_message())
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else "wvc"
            return _Failure(exits.USAGE, "UsageError", error.format_message(), f"see `{where} --help`")
        case click.ClickException():
            return _Failure(exits.REQUEST, "RequestError", error.format_message())
    return None


def _failure(error: BaseException) -> _Failure:
    """Return the failure behind any other error; one that nobody foresaw is reported as a bug."""
    match error:
        case WeightvcError():
            return _Failure(exits.code(error), exits.kind(error), error.what, error.hint)
        case BrokenPipeError():
            return _Failure(exits.BROKEN_PIPE)
        case _ if _is_memory(error):
            return _Failure(exits.REQUEST, "RequestError", *_MEMORY)
        case OSError():
            return _system(error)
    said = f"this is a bug in wvc: {error!r}"
    return _Failure(exits.BUG, "Bug", said, "report it with the traceback above and `wvc env`")


def _system(error: OSError) -> _Failure:
    """Return the failure behind what the system refused."""
    if isinstance(error, FileNotFoundError) and error.filename is None and _nowhere():
        what, hint = "the current directory was deleted", "go to another one, or name one with -C DIR"
        return _Failure(exits.REQUEST, "RequestError", what, hint)
    named = error.filename is not None and error.strerror
    what = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else str(error)
    return _Failure(exits.REQUEST, "RequestError", what, _HINTS.get(error.errno or 0, _DETAILS))


def _nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out; torch has none of Python's kinds for that."""
    torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )
    return torch or isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
