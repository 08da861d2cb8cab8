"""Running independent jobs on a few threads: NumPy, zstd, BLAKE3 and torch kernels release the interpreter lock."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def run(job: Callable[[T], R], items: Iterable[T], jobs: int, start: Callable[[], None] | None = None) -> list[R]:
    """Return ``job`` of each item, in the items' order, computed on ``jobs`` threads in that order.

    The first failure, or an interrupt, cancels what has not begun, waits for what has, and is raised.

    Args:
        job: Called once an item.
        items: The work, the longest first for the best balance.
        jobs: Number of threads, at least 1.
        start: Called once in each thread before its first job.
    """
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="wvc", initializer=start)
    try:
        futures = [pool.submit(job, item) for item in items]
        wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((f for f in futures if f.done() and not f.cancelled() and f.exception()), None)
        if failed is not None:
            failed.result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
