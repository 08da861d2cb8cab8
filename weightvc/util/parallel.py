"""Running independent jobs on a few threads: NumPy, zstd, BLAKE3 and torch kernels release the interpreter lock."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from weightvc.util.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def workers(jobs: int | None) -> int:
    """Return ``jobs`` if that is a number of threads, and all cores for ``None``.

    Raises:
        UsageError: ``jobs`` is less than 1.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs can do nothing", "give a number of threads from 1 up")
    return jobs or cores()


def run(job: Callable[[T], R], items: Iterable[T], jobs: int, start: Callable[[], None] | None = None) -> list[R]:
    """Return ``job`` of each item, in the items' order, computed on ``jobs`` threads in that order.

    A thread that finds no item left helps those that still work, with what they ask for by :func:`ahead`. The first
    failure, or an interrupt, keeps what has not begun from beginning, waits for what has, and is raised.

    Args:
        job: Called once an item.
        items: The work, the longest first for the best balance.
        jobs: Number of threads, at least 1.
        start: Called once in each thread before its first job.

    Raises:
        UsageError: ``jobs`` is less than 1.
    """
    most = workers(jobs)
    todo = list(items)
    results: dict[int, R] = {}
    failures: list[BaseException] = []
    stop = threading.Event()
    taking = threading.Lock()
    left = iter(range(len(todo)))
    crew = _Crew(most)

    def take() -> int | None:
        with taking:
            return next(left, None)

    def work() -> None:
        try:
            if start is not None:
                start()
            with crew:
                while not stop.is_set() and (at := take()) is not None:
                    results[at] = job(todo[at])
            crew.help()
        except BaseException as error:  # noqa: BLE001 -- raised again below, in the caller's thread
            failures.append(error)
            stop.set()

    _finish([_Worker(work, stop, f"wvc_{n}") for n in range(most if todo else 0)], stop)
    if failures:
        raise failures[0]
    return [results[at] for at in range(len(todo))]


def ahead(job: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Return ``job`` of each item, in order, as they are asked for.

    Within a job of :func:`run`, threads that have nothing else to do work ahead, by up to two items a thread. The
    order in which items are begun is theirs, but every result and the first failure arrive as if there were no threads.
    """
    crew: _Crew | None = getattr(_here, "crew", None)
    return map(job, items) if crew is None else _Offer(crew, job, items).results()


def spans(fill: Callable[[memoryview, int], object], total: int, size: int) -> Iterator[tuple[int, memoryview]]:
    """Return (offset, span) pairs that cover ``total`` bytes, filled :func:`ahead`; a span lasts until the next one.

    Args:
        fill: Puts the bytes from an offset on into a span.
        total: Bytes in all.
        size: Bytes of every span but the last.
    """
    free: list[memoryview] = []

    def filled(offset: int) -> memoryview:
        try:
            buffer = free.pop()
        except IndexError:
            buffer = memoryview(bytearray(min(size, total)))
        fill(buffer[: total - offset], offset)
        return buffer

    offsets = range(0, total, size)
    for offset, buffer in zip(offsets, ahead(filled, offsets), strict=True):
        yield offset, buffer[: total - offset]
        free.append(buffer)


_here = threading.local()
"""Its ``crew``, if it has one, is that of the run whose job this thread is at."""


class _Crew:
    """The threads of one run: how many are at an item of their own, and what these offer to the others.

    A context manager, entered by each thread for as long as there may be items for it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.offers: list[_Offer[Any, Any]] = []
        self._busy = 0

    def __enter__(self) -> None:
        _here.crew = self
        with self.changed:
            self._busy += 1

    def __exit__(self, *error: object) -> None:
        with self.changed:
            self._busy -= 1
            self.changed.notify_all()

    def help(self) -> None:
        """Work on what is offered until no thread has an item of its own."""
        while (found := self._next()) is not None:
            offer, at = found
            offer.do(at)

    def _next(self) -> "tuple[_Offer[Any, Any], int] | None":
        with self.changed:
            while self._busy:
                for offer in self.offers:
                    if (at := offer.take()) is not None:
                        return offer, at
                self.changed.wait()
            return None


class _Offer(Generic[T, R]):
    """Items that any thread of a crew may work on, for one that takes the results in order."""

    def __init__(self, crew: _Crew, job: Callable[[T], R], items: Sequence[T]) -> None:
        self._crew = crew
        self._job = job
        self._items = items
        self._begun = 0
        self._end = 2 * crew.size
        self._done: dict[int, R] = {}
        self._failed: dict[int, BaseException] = {}

    def take(self) -> int | None:
        """Return the next item to begin, if it is not too far ahead. The crew's condition is held."""
        if self._begun >= min(self._end, len(self._items)):
            return None
        self._begun += 1
        return self._begun - 1

    def do(self, at: int) -> None:
        """Work on one item."""
        try:
            done = self._job(self._items[at])
        except BaseException as error:  # noqa: BLE001 -- raised again by the thread that wants the result
            with self._crew.changed:
                self._failed[at] = error
                self._crew.changed.notify_all()
            return
        with self._crew.changed:
            self._done[at] = done
            self._crew.changed.notify_all()

    def results(self) -> Iterator[R]:
        """Return the results in order; until the next one is there, the caller works on what others have not begun."""
        with self._crew.changed:
            self._crew.offers.append(self)
            self._crew.changed.notify_all()
        try:
            for at in range(len(self._items)):
                while (own := self._missing(at)) is not None:
                    self.do(own)
                if at in self._failed:
                    raise self._failed[at]
                yield self._done.pop(at)
                with self._crew.changed:
                    self._end += 1
                    self._crew.changed.notify_all()
        finally:
            with self._crew.changed:
                self._crew.offers.remove(self)

    def _missing(self, at: int) -> int | None:
        """Return an item to work on while there is no result ``at``; nothing once there is one."""
        with self._crew.changed:
            while at not in self._done and at not in self._failed:
                if (own := self.take()) is not None:
                    return own
                self._crew.changed.wait()
            return None


class _Worker(threading.Thread):
    """A thread that can be waited for again after an interrupt.

    ``Thread.join`` cannot before Python 3.13: interrupted, it takes a running thread for ended.
    """

    def __init__(self, work: Callable[[], None], stop: threading.Event, name: str) -> None:
        super().__init__(name=name)
        self._work = work
        self._halt = stop
        self.begun = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        """Work, unless it is over before it has begun."""
        self.begun.set()
        if not self._halt.is_set():
            self._work()
        self.ended.set()


def _finish(workers: Sequence[_Worker], stop: threading.Event) -> None:
    """Start threads and wait for them; none of them works on after this, not even after an interrupt.

    An interrupt may come while a thread starts. Such a thread either has begun, and is waited for, or finds
    ``stop`` set when it begins.
    """
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.ended.wait()
    finally:
        stop.set()
        for worker in workers:
            if worker.begun.is_set():
                worker.ended.wait()
    for worker in workers:
        worker.join()
