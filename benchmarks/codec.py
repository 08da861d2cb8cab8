"""Measure the delta codec beside other coders, on real fine-tunes, in one run.

Run:
    python benchmarks/codec.py --quick               # fine-tunes of six steps, made in a minute
    python benchmarks/codec.py --check               # full fine-tunes, made once in many minutes; exit 1 below a bar
    python benchmarks/codec.py --only sizes --tasks movies
    python benchmarks/codec.py --only add --add 4    # `wvc add` of an unchanged 4 GiB checkpoint beside `cp -r`

Sizes are those of the weights alone, a share of the raw bytes: a tensor that equals the base's costs nothing, except
for zipnn and the zstd command, which get the whole file and no base. Every object is decoded again and compared with
its tensor. Then come throughput and memory of whole models, damage to stored objects, and the bars: what the codec
is held to. Most bind on full fine-tunes only. What depends on a peer that is not installed is not measured, and a bar
that needs it counts as missed: ``pip install '.[bench]'`` and install the ``zstd`` command.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import addspeed
import assets
import flips
import modelcodec
import peers
import speed
from bars import Bar, of_sizes
from entropy import context_bytes, plane_bytes
from pairs import Item, Pair, pairs, read_pair
from texts import TASKS

from weightvc.util import parallel

FOUR = "reuters8,news20,movies,questions"
PARTS = ("sizes", "speed", "memory", "flips", "add")
COLUMNS = {
    "raw": "raw bytes",
    "fast": "fast",
    "default": "default",
    "best": "best",
    "entropy": "planes' H0",
    "context": "H0 | exp",
    "xor": "XOR zstd",
    "blosc2": "blosc2",
    "zipnn": "zipnn",
    "zstd": "zstd -3",
}


class NotExact(RuntimeError):
    """A tensor does not come back as it was."""


def _tensor_sizes(item: Item) -> dict[str, float]:
    """Return what one tensor takes by each coder that sees the base, after decoding ours again.

    Raises:
        NotExact: an object decodes to other bytes.
    """
    coders = {"entropy": plane_bytes, "context": context_bytes, "xor": peers.xor_bytes}
    if "blosc2" not in peers.missing():
        coders["blosc2"] = peers.blosc_bytes
    if item.same or not item.spec.nbytes:
        return dict.fromkeys((*modelcodec.LEVELS, *coders), 0.0) | {"raw": item.spec.nbytes}
    sizes: dict[str, float] = {"raw": item.spec.nbytes}
    for level in modelcodec.LEVELS:
        data = b"".join(modelcodec.encoded(item, level))
        if not modelcodec.exact(item, memoryview(data)):
            raise NotExact(f"{item.spec.name}, level {level}: other bytes come back")
        sizes[level] = len(data)
    return sizes | {name: coder(item) for name, coder in coders.items()}


def measure_sizes(pair: Pair) -> dict[str, float]:
    """Return the bytes of one model by column of the table."""
    total: Counter[str] = Counter()
    for sizes in parallel.run(_tensor_sizes, read_pair(pair.target, pair.base), parallel.cores()):
        total.update(sizes)
    missing = peers.missing()
    whole = {"zipnn": peers.zipnn_bytes, "zstd": peers.zstd_bytes}
    found = {name: size(pair) for name, size in whole.items() if name not in missing}
    return dict(total) | {name: size for name, size in found.items() if size is not None}


def print_sizes(chosen: Iterable[Pair], *, quick: bool) -> list[Bar]:
    """Print the table of sizes and return the bars."""
    print("Shares of the raw bytes. H0: order-0 entropy of the integer difference's byte planes; | exp: given the")
    print("base's exponent. XOR zstd: XOR with the base, byte planes, zstd -3. blosc2: shuffle and zstd -1 of the")
    print("integer difference. zipnn, zstd -3: the whole file, without a base.\n")
    print(f"{'model':<22}" + "".join(f"{title:>12}" for title in COLUMNS.values()))
    found = []
    for pair in chosen:
        sizes = measure_sizes(pair)
        shares = (f"{sizes[key] / sizes['raw']:>12.4f}" if key in sizes else f"{'-':>12}" for key in list(COLUMNS)[1:])
        print(f"{pair.name:<22}{int(sizes['raw']):>12,}" + "".join(shares), flush=True)
        found += of_sizes(pair, sizes, quick=quick)
    for name, how in peers.missing().items():
        print(f"{name}: not installed: {how}")
    if len(modelcodec.LEVELS) == 1:
        print("fast, best: this codec has one level")
    print("every tensor came back bit for bit, at every level")
    return found


def print_flips(chosen: Sequence[Pair], count: int) -> list[Bar]:
    """Print what became of damaged objects, spread over models and levels, and return the bar."""
    found: Counter[str] = Counter()
    runs = [(pair, level) for pair in chosen for level in modelcodec.LEVELS]
    for number, (pair, level) in enumerate(runs):
        share = count // len(runs) + (number < count % len(runs))
        found += flips.measure_flips(read_pair(pair.target, pair.base), level, share, seed=number)
    print(f"\n{found.total()} changed bytes in objects of {', '.join(pair.name for pair in chosen)}:")
    print("  ".join(f"{what} {times}" for what, times in sorted(found.items())), flush=True)
    wrong = sum(times for what, times in found.items() if what not in flips.ALLOWED)
    return [Bar("changed bytes neither refused nor harmless", float(wrong), 0.0)]


def _measured(options: argparse.Namespace) -> list[Bar]:
    """Run the chosen parts and return all bars."""
    parts = set(options.only or PARTS) - (set() if options.add else {"add"})
    quick, found = options.quick, []
    models = pairs(options.tasks.split(","), quick=quick) if parts - {"add"} else []
    minilm = [pair for pair in models if pair.source == "minilm" and pair.dtype != "F16"]
    lora = [pair for pair in models if pair.source == "lora"]
    if "sizes" in parts:
        found += print_sizes(models, quick=quick)
    if "speed" in parts:
        print(f"\n{parallel.cores()} cores, load {os.getloadavg()[0]:.1f}: what else runs disturbs wall times")
        for pair in (*minilm, *lora):
            binds = not quick and pair in minilm
            found += speed.measure_speed(pair, options.rounds or (3 if quick else 5), options.level, binds=binds)
    if "memory" in parts:
        for pair in (*minilm[:2], *lora):
            found += speed.measure_memory(pair, options.level, assets.cache_dir())
    if "flips" in parts:
        found += print_flips([*minilm[:2], *lora], options.flips or (500 if quick else 10_000))
    if "add" in parts:
        found += addspeed.measure_add(options.add, options.work)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the delta codec beside other coders.")
    parser.add_argument("--quick", action="store_true", help="take fine-tunes of six steps, and fewer rounds and flips")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar that binds is missed")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts only")
    parser.add_argument("--tasks", default=FOUR, help=f"MiniLM tasks, of {', '.join(TASKS)} (default: %(default)s)")
    parser.add_argument("--level", choices=modelcodec.LEVELS, default="default", help="for speed and memory")
    parser.add_argument("--rounds", type=int, help="of timing (default 5, quick 3)")
    parser.add_argument("--flips", type=int, metavar="N", help="bytes to change (default 10000, quick 500)")
    parser.add_argument(
        "--add", type=float, nargs="?", const=4.0, metavar="GIB", help="also measure wvc add (default 4)"
    )
    parser.add_argument("--work", type=Path, help="folder for --add; the system's for temporary files unless given")
    options = parser.parse_args()
    if unknown := sorted(set(options.tasks.split(",")) - set(TASKS)):
        parser.error(f"unknown task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if options.only and "add" in options.only and not options.add:
        options.add = 4.0
    return options


def main() -> None:
    """Measure, print the bars, and exit 1 if one that binds is missed and that was asked for."""
    options = _options()
    found = _measured(options)
    print(f"\n{'bar':<66}{'measured':>13}")
    for bar in found:
        print(bar)
    missed = [bar for bar in found if bar.missed and bar.binds]
    print(f"{len(missed)} of {sum(bar.binds for bar in found)} bars that bind are missed")
    sys.exit(bool(options.check and missed))


if __name__ == "__main__":
    main()
