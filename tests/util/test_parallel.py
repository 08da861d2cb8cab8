import threading
import time

import pytest

from weightvc.util import parallel
from weightvc.util.errors import UsageError


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    assert parallel.cores() >= 1
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda pid: {3, 5, 7} if pid == 0 else set())
    assert parallel.cores() == 3


@pytest.mark.parametrize("jobs", [1, 4])
def test_results_have_the_order_of_the_items(jobs):
    def job(n):
        time.sleep(0.02 / n)  # the last ends first
        return n * n

    assert parallel.run(job, iter(range(1, 9)), jobs) == [1, 4, 9, 16, 25, 36, 49, 64]
    assert parallel.run(job, [], jobs) == []


@pytest.mark.parametrize("jobs", [0, -1])
@pytest.mark.parametrize("items", [[], [1]])
def test_less_than_one_job_is_refused(jobs, items):
    with pytest.raises(UsageError, match=f"^{jobs} jobs can do nothing$") as caught:
        parallel.run(str, items, jobs)
    assert caught.value.hint == "give a number of threads from 1 up"


def test_all_cores_are_the_default():
    assert (parallel.workers(None), parallel.workers(3)) == (parallel.cores(), 3)


def test_jobs_run_at_once():
    barrier = threading.Barrier(3, timeout=5)
    assert sorted(parallel.run(lambda _: barrier.wait(), range(3), 3)) == [0, 1, 2]


def test_there_are_no_more_threads_than_jobs():
    names = set(parallel.run(lambda _: threading.current_thread().name, range(50), 2))
    assert 1 <= len(names) <= 2
    assert all(name.startswith("wvc") for name in names)


def test_each_thread_starts_once_and_first():
    started = threading.local()
    counts = []

    def start():
        started.times = getattr(started, "times", 0) + 1
        counts.append(threading.current_thread().name)

    assert parallel.run(lambda _: started.times, range(20), 3, start) == [1] * 20
    assert len(counts) == len(set(counts)) <= 3


def test_the_first_failure_is_raised_and_nothing_more_begins():
    begun = []

    def job(n):
        begun.append(n)
        if n == 1:
            raise KeyError("second item")
        time.sleep(0.01)

    with pytest.raises(KeyError, match="second item"):
        parallel.run(job, range(100), 1)
    assert begun[:2] == [0, 1]
    assert len(begun) < 100


def test_what_has_begun_is_waited_for():
    slow_began, failed = threading.Event(), threading.Event()
    ended = []

    def job(name):
        if name == "slow":
            slow_began.set()
            assert failed.wait(5)
            time.sleep(0.05)
            ended.append(name)
            return
        assert slow_began.wait(5)
        failed.set()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        parallel.run(job, ["slow", "bad"], 2)
    assert ended == ["slow"]


@pytest.mark.parametrize("when", ["starting", "waiting"])
def test_after_an_interrupt_nothing_works_on(monkeypatch, when):
    begun, done = threading.Event(), []

    def job(n):
        begun.set()
        time.sleep(0.05)
        done.append(n)

    class Ended(threading.Event):
        interrupted = False

        def wait(self, timeout=None):
            if when == "waiting" and not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt
            return super().wait(timeout)

    class Worker(parallel._Worker):
        def start(self):
            self.ended = Ended()
            super().start()
            assert begun.wait(5)
            if when == "starting":
                raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "_Worker", Worker)

    with pytest.raises(KeyboardInterrupt):
        parallel.run(job, range(1000), 1)

    assert done == [0]
    time.sleep(0.1)
    assert done == [0]


def test_a_thread_that_begins_after_an_interrupt_does_nothing(monkeypatch):
    done = []

    class Late(parallel._Worker):
        def start(self):
            late.append(self)
            raise KeyboardInterrupt

    late = []
    monkeypatch.setattr(parallel, "_Worker", Late)
    with pytest.raises(KeyboardInterrupt):
        parallel.run(done.append, range(10), 2)

    late[0].run()

    assert done == []


def test_an_interrupt_within_a_job_is_raised():
    def job(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parallel.run(job, [1], 1)


def test_no_thread_is_left():
    before = threading.active_count()
    parallel.run(str, range(10), 4)
    assert threading.active_count() == before


def beside(work, jobs=2, others=1):
    """Call ``work`` in one thread of a run whose other threads find nothing to do."""
    begun = threading.Barrier(1 + others, timeout=5)

    def job(busy):
        begun.wait()
        return work() if busy else None

    return parallel.run(job, [True, *[False] * others], jobs)[0]


def test_idle_threads_work_ahead_and_results_keep_their_order():
    names = set()
    both = threading.Barrier(2, timeout=5)

    def job(n):
        if n < 2:
            both.wait()  # two threads are at it
        names.add(threading.current_thread().name)
        return n * n

    assert beside(lambda: list(parallel.ahead(job, range(20)))) == [n * n for n in range(20)]
    assert len(names) == 2


def test_threads_without_any_item_help():
    both = threading.Barrier(2, timeout=5)
    assert parallel.run(lambda _: sorted(parallel.ahead(lambda _: both.wait(), range(2))), [0], 2) == [[0, 1]]


def test_nobody_works_further_ahead_than_two_items_a_thread():
    begun = []

    def work():
        results = parallel.ahead(begun.append, range(50))
        next(results)
        time.sleep(0.05)
        seen = len(begun)
        results.close()
        return seen

    assert 1 <= beside(work) <= 4


def test_a_failure_ahead_is_raised_where_its_result_is_due():
    def job(n):
        if n == 3:
            raise OSError("item 3")
        return n

    for others in (0, 2):
        seen = []

        def work(seen=seen):
            seen.extend(parallel.ahead(job, range(9)))

        with pytest.raises(OSError, match="item 3"):
            beside(work, jobs=1 + others, others=others)
        assert seen == [0, 1, 2]


def test_without_a_run_items_are_done_as_they_are_asked_for():
    begun = []
    results = parallel.ahead(begun.append, range(3))
    assert begun == []
    next(results)
    assert begun == [0]


@pytest.mark.parametrize("total", [0, 5, 8, 11])
def test_spans_cover_all_bytes(total):
    data = bytes(range(total))

    def fill(out, offset):
        out[:] = data[offset : offset + len(out)]

    def work():
        return [(offset, bytes(span)) for offset, span in parallel.spans(fill, total, 4)]

    want = [(offset, data[offset : offset + 4]) for offset in range(0, total, 4)]
    assert work() == want
    assert beside(work) == want


def test_spans_share_few_buffers():
    seen = {id(span.obj) for _, span in parallel.spans(lambda *_: None, 100, 4)}
    assert len(seen) == 1
