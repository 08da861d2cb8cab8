"""Measure merges: OPCM of dense matrices against the published loop, the memory of folds, and mergekit.

Run:
    python benchmarks/merge.py --only dense     # one block of ViT-B, four tasks, some minutes
    python benchmarks/merge.py --quick          # the same steps on smaller shapes
    python benchmarks/merge.py --check          # exit 1 if a bar is missed

All times are of whole merges in one run, in alternating rounds; medians are compared.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import dense
import folds
import mergekits
from bars import Bar

PARTS: dict[str, Callable[[bool], list[Bar]]] = {
    "dense": dense.measure,
    "memory": folds.measure,
    "mergekit": mergekits.measure,
}
"""What can be measured, and how; the argument says whether it shall be quick."""


def main() -> None:
    """Measure the parts asked for, and print their bars."""
    parser = argparse.ArgumentParser(description="Measure merges against the published loop and against mergekit.")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; may be given again")
    parser.add_argument("--quick", action="store_true", help="take smaller models; no bar binds then")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar that binds is missed")
    parser.add_argument("--methods", nargs="+", choices=mergekits.GAINS, help="of mergekit's, measure these only")
    options = parser.parse_args()
    parts = PARTS | {"mergekit": partial(mergekits.measure, methods=options.methods or tuple(mergekits.GAINS))}
    found = [bar for part in options.only or parts for bar in parts[part](options.quick)]
    print("\n" + "\n".join(map(str, found)))
    missed = [bar.what for bar in found if bar.binds and bar.missed]
    if options.check and missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
