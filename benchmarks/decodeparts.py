"""Where the time of decoding goes: what a GPU could take over, and what it could not.

Run:
    python benchmarks/decodeparts.py          # four fine-tunes of MiniLM in fp32 and bf16; seconds, once they are made
    python benchmarks/decodeparts.py --quick

Every tensor is encoded at the default level and decoded in memory on one thread. Shares of the time: "merge" puts byte
planes together and adds the base, "shift" predicts from the base what weight decay did, both of which a GPU could do;
"rest" is what the CPU has to do, mostly the zstd frames of the planes.
"""

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
from modelcodec import decode_span, encoded, opened
from pairs import Item, pairs, read_pair

from weightvc.delta import kernels
from weightvc.delta.encoding import Encoded
from weightvc.util import blas, heap

PARTS = ("merge", "shifted")
SPAN = 2**20


def _timed(loop: Callable[..., Any], name: str, taken: dict[str, float]) -> Callable[..., Any]:
    def run(*arguments: object) -> object:
        begun = perf_counter()
        found = loop(*arguments)
        taken[name] += perf_counter() - begun
        return found

    return run


def _decode(objects: Sequence[tuple[Item, Encoded]], out: memoryview) -> dict[str, float]:
    """Return the seconds that decoding a model takes, all together and by part."""
    taken = dict.fromkeys(PARTS, 0.0)
    own = kernels.loops
    names = [name for name in dir(own) if not name.startswith("_")]
    timed = {name: _timed(getattr(own, name), name, taken) for name in PARTS}
    kernels.loops = SimpleNamespace(**{name: getattr(own, name) for name in names} | timed)  # type: ignore[assignment]
    begun = perf_counter()
    try:
        for item, found in objects:
            for at in range(0, item.spec.nbytes, SPAN):
                decode_span(found, item, out[: min(SPAN, item.spec.nbytes - at)], at)
    finally:
        kernels.loops = own
    return {"all": perf_counter() - begun, **taken}


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description="Take the time of decoding apart.")
    parser.add_argument("--quick", action="store_true", help="fine-tunes of a few steps")
    parser.add_argument("--tasks", default="reuters8,news20,movies,questions")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    heap.steady()
    out = memoryview(np.empty(SPAN, np.uint8))
    print(f"{'model':<20}{'MB/s':>8}{'merge':>8}{'shift':>8}{'rest':>8}")
    for pair in pairs(options.tasks.split(","), quick=options.quick):
        if pair.source != "minilm" or pair.dtype == "F16":
            continue
        items = [item for item in read_pair(pair.target, pair.base) if not item.same and item.spec.nbytes]
        with blas.one_thread():
            objects = [(item, opened(item, memoryview(b"".join(encoded(item, "default"))))) for item in items]
            rounds = [_decode(objects, out) for _ in range(options.rounds)]
        every = median(one["all"] for one in rounds)
        merge, shift = (median(one[part] / one["all"] for one in rounds) for part in PARTS)
        nbytes = sum(item.spec.nbytes for item in items)
        shares = f"{merge:>8.2f}{shift:>8.2f}{1 - merge - shift:>8.2f}"
        print(f"{pair.name:<20}{nbytes / every / 1e6:>8.0f}{shares}", flush=True)


if __name__ == "__main__":
    main()
