"""Running independent jobs on a few threads: NumPy, zstd, BLAKE3 and torch kernels release the interpreter lock."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

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

    The first failure, or an interrupt, keeps what has not begun from beginning, waits for what has, and is raised.

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

    def take() -> int | None:
        with taking:
            return next(left, None)

    def work() -> None:
        try:
            if start is not None:
                start()
            while not stop.is_set() and (at := take()) is not None:
                results[at] = job(todo[at])
        except BaseException as error:  # noqa: BLE001 -- raised again below, in the caller's thread
            failures.append(error)
            stop.set()

    _finish([_Worker(work, stop, f"wvc_{n}") for n in range(min(most, len(todo)))], stop)
    if failures:
        raise failures[0]
    return [results[at] for at in range(len(todo))]


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
