"""The command line's entry: it answers Ctrl-C from here on, so it imports nothing that takes time before it does."""

import os
import signal
import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_INTERRUPTED = 130


class Interrupts:
    """What Ctrl-C does: it raises ``KeyboardInterrupt``, and is remembered, for imports turn it into other errors.

    So do a request to end and a terminal that goes away: what was begun is taken back, and what was started is ended.
    Once the run is ``ending`` it quits at once.
    """

    def __init__(self) -> None:
        self.came = False
        self.ending = False

    def __call__(self, signum: int, frame: "FrameType | None") -> None:
        """Handle the signal."""
        if self.ending:
            os._exit(_INTERRUPTED)
        self.came = True
        raise KeyboardInterrupt

    def watch(self) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP from now on, but for what the process was started to ignore."""
        usual = (signal.default_int_handler, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is usual[number != signal.SIGINT]:
                try:  # noqa: SIM105 -- contextlib takes time
                    signal.signal(number, self)
                except ValueError:  # not in the main thread, whose matter signals are
                    pass


def run() -> None:
    """Run the command line and exit with the code of :mod:`weightvc.cli.exits`."""
    interrupts = Interrupts()
    try:
        interrupts.watch()
        code: int = import_module("weightvc.cli.report").run(interrupts)
    except (Exception, KeyboardInterrupt):
        interrupts.ending = True
        if not interrupts.came:
            raise
        code = _INTERRUPTED
        try:
            os.write(2, b"wvc: interrupted\n")  # click may not be there yet
        except OSError:
            sys.exit(code)
    sys.exit(code)
