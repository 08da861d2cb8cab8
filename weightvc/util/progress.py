"""How long work reports itself without knowing about terminals."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """A sink of progress reports; the command line draws bars, everything else ignores them."""

    def stage(self, label: str, total: int) -> AbstractContextManager[None]:
        """Open a stage of ``total`` bytes called ``label``; it ends with the context."""
        ...

    def advance(self, nbytes: int) -> None:
        """Count ``nbytes`` towards the open stage. May be called from any thread."""
        ...


class Silent:
    """A :class:`Progress` that reports nothing."""

    def stage(self, label: str, total: int) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def advance(self, nbytes: int) -> None:
        """Do nothing."""


SILENT: Progress = Silent()
