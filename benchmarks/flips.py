"""Damage on purpose: one byte of a stored object changed at random, many times over.

Each time the object must be refused as corrupt or unsupported, or decode to the very bytes of its tensor. The objects
are those of a real model; of a tensor with more than 4 MiB the first rows are taken, so that the whole of an object
can be decoded after every change.
"""

import math
import random
from bisect import bisect_right
from collections import Counter
from itertools import accumulate

import modelcodec
from pairs import Item

from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt, Unsupported

HEAD = 256
"""Every fourth change falls among so many first bytes, where headers and lengths are."""
LARGE = 4 * 2**20

WRONG = "different bytes, unnoticed"
ALLOWED = {"Corrupt", "Unsupported", "identical"}


def measure_flips(items: list[Item], level: str, count: int, seed: int) -> Counter[str]:
    """Return how often what happened: one of :data:`ALLOWED`, :data:`WRONG`, or the name of any other error.

    Args:
        items: A model's tensors.
        level: The codec's level.
        count: Number of changes, each undone before the next.
        seed: Decides them.
    """
    stored = [_first_rows(item) for item in items if not item.same and item.spec.nbytes]
    objects = [bytearray(b"".join(modelcodec.encoded(item, level))) for item in stored]
    ends, order = list(accumulate(map(len, objects))), random.Random(seed)
    found: Counter[str] = Counter()
    for number in range(count):
        place = order.randrange(ends[-1])
        which = bisect_right(ends, place)
        data = objects[which]
        at = order.randrange(min(HEAD, len(data))) if number % 4 == 0 else place - (ends[which] - len(data))
        before = data[at]
        data[at] ^= order.randrange(1, 256)
        found[_outcome(stored[which], memoryview(data))] += 1
        data[at] = before
    return found


def _first_rows(item: Item) -> Item:
    """Return as many rows of a large tensor as have 4 MiB, as a tensor of their own."""
    shape = item.spec.shape
    if item.spec.nbytes <= LARGE or len(shape) < 2:
        return item
    row = item.spec.nbytes // shape[0]
    kept = (max(1, LARGE // row), *shape[1:])
    end = math.prod(kept) * item.spec.itemsize
    base = None if item.base is None else item.base[:end]
    return Item(TensorSpec(item.spec.name, item.spec.dtype, kept), item.target[:end], base, same=False)


def _outcome(item: Item, data: memoryview) -> str:
    try:
        return "identical" if modelcodec.exact(item, data) else WRONG
    except (Corrupt, Unsupported) as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is reported
        return f"{type(error).__name__}: {error}"[:60]
