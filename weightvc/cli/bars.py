"""Progress bars on a terminal: bytes, rate and time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bars:
    """A :class:`weightvc.util.progress.Progress` that draws on standard error."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @contextmanager
    def stage(self, label: str, total: int) -> Iterator[None]:
        """Draw a bar of ``total`` bytes until the context ends; it leaves no trace."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            self._bar, self._task = bar, bar.add_task(label, total=total)
            try:
                yield
            finally:
                self._bar = None

    def advance(self, nbytes: int) -> None:
        """Move the bar."""
        bar = self._bar
        if bar is not None:
            bar.advance(self._task, nbytes)
