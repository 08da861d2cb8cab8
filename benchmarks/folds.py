"""Memory of merges by a fold: the same for 2, 8 and 32 tasks.

The model has 2 GiB in bfloat16: two layers of 1024 columns and two token tables. Every task changes all matrices of
the layers, and one table in its first four million weights, so that adding 32 of them takes minutes. One worker merges:
of several the peaks coincide now and then, and the more steps there are, the more likely.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bars import Bar
from bigmodel import Generator, Shapes, Words
from memory import Bench

COUNTS = (2, 8, 32)
METHODS = ("task_arithmetic", "opcm-s")


class _Sparse(Generator):
    """Tasks that leave most of the tables as they are."""

    def blocks(self, name: str, elements: int, task: int) -> Iterator[Words]:
        """Yield one tensor's bits, block by block."""
        if name == "lm_head.weight":
            return super().blocks(name, elements, 0)
        if name != "model.embed_tokens.weight":
            return super().blocks(name, elements, task)
        first = itertools.islice(super().blocks(name, elements, task), 1)
        return itertools.chain(first, itertools.islice(super().blocks(name, elements, 0), 1, None))


def measure(quick: bool) -> list[Bar]:
    """Print the peak of each checkout, and return how far the peaks of each method lie apart."""
    shapes = Shapes(2, 256, 688, 50_000) if quick else Shapes(2, 1024, 2752, 512_000)
    peaks: dict[str, list[int]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory(prefix="folds-") as work:
        bench = Bench(Path(work), _Sparse(shapes))
        bench.init()
        for task in range(1, max(COUNTS) + 1):
            bench.add(task)
            for method in METHODS if task in COUNTS else ():
                peaks[method].append(bench.checkout(task, method, "--jobs", "1").peak)
    counts = ", ".join(map(str, COUNTS))
    return [
        Bar(f"{method}: largest / smallest peak for {counts} tasks", max(found) / min(found), 1.05)
        for method, found in peaks.items()
    ]
