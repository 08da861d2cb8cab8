"""Running independent jobs on a few threads: NumPy, zstd, BLAKE3 and torch kernels release the interpreter lock."""

import os
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def run(job: Callable[[T], R], items: Iterable[T], jobs: int, start: Callable[[], None] | None = None) -> list[R]:
    """Return ``job`` of each item, in the items' order, computed on ``jobs`` threads in that order.

    The first failure, or an interrupt, keeps what has not begun from beginning, waits for what has, and is raised.

    Args:
        job: Called once an item.
        items: The work, the longest first for the best balance.
        jobs: Number of threads, at least 1.
        start: Called once in each thread before its first job.
    """
    work = list(items)
    results: dict[int, R] = {}
    failures: list[BaseException] = []
    stop = threading.Event()
    taking = threading.Lock()
    left = iter(range(len(work)))

    def take() -> int | None:
        with taking:
            return next(left, None)

    def worker() -> None:
        try:
            if start is not None:
                start()
            while not stop.is_set() and (at := take()) is not None:
                results[at] = job(work[at])
        except BaseException as error:  # noqa: BLE001 -- raised again below, in the caller's thread
            failures.append(error)
            stop.set()

    _finish([threading.Thread(target=worker, name=f"wvc_{n}") for n in range(min(jobs, len(work)))], stop)
    if failures:
        raise failures[0]
    return [results[at] for at in range(len(work))]


def _finish(threads: list[threading.Thread], stop: threading.Event) -> None:
    """Start threads and wait for them; none of them works on after this, not even after an interrupt.

    ``concurrent.futures`` forgets a thread when the interrupt comes while it starts. Here such a thread either is
    known to be alive, or finds ``stop`` set before its first job.
    """
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()
