"""Whole models through ``weightvc.delta``: encoded to files and decoded from them, as the store and checkout do.

Also a program, so that time and memory can be taken of a process that does nothing else:
    python benchmarks/modelcodec.py encode TARGET BASE FOLDER --threads 2 --level default
    python benchmarks/modelcodec.py decode TARGET BASE FOLDER --threads 2
    python benchmarks/modelcodec.py idle TARGET BASE FOLDER        # nothing but the imports

It prints wall and CPU seconds, of all threads, from after the imports to the last write.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pairs import Item, equal, read_pair

from weightvc.checkpoint.files import map_file
from weightvc.delta import kernels
from weightvc.delta.codec import CHUNK
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.kernels import portable
from weightvc.util import blas, heap, parallel
from weightvc.util.errors import Corrupt

LEVELS = ("fast", "default", "best")
"""The levels that the codec has."""
SPAN = 2 * CHUNK
"""Raw bytes decoded at a time, as in ``weightvc.repo.decode``."""


def encoded(item: Item, level: str) -> Iterator[bytes]:
    """Encode one tensor: the only place that calls the codec."""
    return encode(item.spec, item.target, item.base, "full" if item.base is None else "intdelta", level)


def opened(item: Item, data: memoryview) -> Encoded:
    """Parse an object and refuse one that says it is another kind of tensor, as the reader of a repository does."""
    found = Encoded.parse(data, "object")
    if not found.spec.same_kind(item.spec):
        raise Corrupt("object: it is not this tensor's encoding")
    return found


def decode_span(found: Encoded, item: Item, out: memoryview, at: int) -> None:
    """Decode the bytes from ``at`` into ``out``."""
    base = item.base[at : at + len(out)] if item.base is not None and found.needs_base else None
    found.decode_into(out, base, at)


def exact(item: Item, data: memoryview) -> bool:
    """Tell whether an object decodes to the very bytes of its tensor."""
    spans = parallel.spans(partial(decode_span, opened(item, data), item), item.spec.nbytes, SPAN)
    return all(equal(span, item.target[at : at + SPAN]) for at, span in spans)


def _largest_first(items: list[Item]) -> list[int]:
    return sorted(range(len(items)), key=lambda at: -items[at].spec.nbytes)


def encode_model(items: list[Item], folder: Path, threads: int, level: str) -> None:
    """Write one object file for each tensor that is not the same as the base's."""

    def job(at: int) -> None:
        if items[at].base is not None and equal(items[at].target, items[at].base):
            return
        with (folder / str(at)).open("wb", buffering=0) as out:
            for part in encoded(items[at], level):
                out.write(part)

    parallel.run(job, _largest_first(items), threads)


def decode_model(items: list[Item], folder: Path, threads: int) -> None:
    """Write the decoded tensors, verified, one after another into the file ``weights``."""
    starts, end = [], 0
    for item in items:
        starts.append(end)
        end += item.spec.nbytes
    with (folder / "weights").open("wb", buffering=0) as out:
        out.truncate(end)
        parallel.run(partial(_decode_one, items, starts, folder, out.fileno()), _largest_first(items), threads)


def _decode_one(items: list[Item], starts: list[int], folder: Path, out: int, at: int) -> None:
    item, start, file = items[at], starts[at], folder / str(at)
    if not file.exists():
        assert item.base is not None
        for offset in range(0, item.spec.nbytes, SPAN):
            os.pwrite(out, item.base[offset : offset + SPAN], start + offset)
        return
    decode = partial(decode_span, opened(item, map_file(file)), item)
    for offset, span in parallel.spans(decode, item.spec.nbytes, SPAN):
        os.pwrite(out, span, start + offset)


def main() -> None:
    """Do one thing and print what it took."""
    parser = argparse.ArgumentParser(description="Encode or decode one model.")
    parser.add_argument("what", choices=("encode", "decode", "idle"))
    parser.add_argument("target", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--level", choices=LEVELS, default="default")
    parser.add_argument("--repeat", type=int, default=1, help="do it so many times over, to be sampled for longer")
    parser.add_argument("--numpy", action="store_true", help="leave the compiled loops alone")
    options = parser.parse_args()
    if options.numpy:
        kernels.loops = portable
    heap.steady()  # this and the one thread of BLAS as in wvc
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(options.repeat):
        if options.what == "idle":
            time.sleep(0.2)
            continue
        items = read_pair(options.target, options.base, compare=False)
        with blas.one_thread():
            if options.what == "encode":
                encode_model(items, options.folder, options.threads, options.level)
            else:
                decode_model(items, options.folder, options.threads)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
