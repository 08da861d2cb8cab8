"""What is known of a chunk before its first word: the tables, and how the words are laid out.

The level ``best`` (:mod:`weightvc.delta.rans`) stores it ahead of the words. ``docs/format/rans.md`` specifies each
byte.
"""

import itertools
import struct
from typing import NamedTuple

import numpy as np

from weightvc.delta.rans import freqs, lanes, tokens
from weightvc.delta.rans.freqs import TOKENS
from weightvc.delta.rans.lanes import I64, LABEL_AT, RAW_AT, U64, Shape
from weightvc.delta.rans.tokens import KINDS, Kind
from weightvc.util.errors import Corrupt

_HEAD = struct.Struct("<BBBB")
_LOG_LANES = lanes.MAX_LANES.bit_length() - 1
_LANE = 64
"""Bytes of the body to a lane, which itself costs about one; but time decides where there would be few lanes."""


class Model(NamedTuple):
    """What is known of a chunk before its first word.

    Attributes:
        kept: Bits that a token keeps below the leading one.
        log_lanes: The logarithm of the number of lanes.
        taper: How the lanes taper off; see :class:`weightvc.delta.rans.lanes.Shape`.
        starts: The first context of each group.
        roots: The tables, (groups, tokens).
    """

    kept: int
    log_lanes: int
    taper: int
    starts: list[int]
    roots: I64

    @property
    def kind(self) -> Kind:
        """What the tokens stand for."""
        return KINDS[self.kept]

    def certain(self) -> bool:
        """Tell whether every word follows from its context."""
        _, used = self.roots.nonzero()
        return used.size == len(self.roots) and not self.kind.below[used].any()

    def spills(self) -> bool:
        """Tell whether some word has raw bits that the coder does not take."""
        return bool(self.kind.spilt[self.roots.any(axis=0)].any())

    def shape(self, size: int) -> Shape:
        """Return how ``size`` words are laid out."""
        return Shape(size, 1 << self.log_lanes, self.taper)

    def symbols(self) -> tuple[I64, U64]:
        """Return frequencies, and each token as the integer that the coder takes for it; both (groups, tokens)."""
        slots = freqs.frequencies(self.roots)
        label = np.arange(slots.shape[1])
        raw = (self.kind.below - 8 * self.kind.spilt)[label]
        return slots, (slots | label << LABEL_AT | raw << RAW_AT).astype(np.uint64)

    def pack(self) -> bytes:
        """Return the bytes that begin a chunk's body."""
        head = _HEAD.pack(self.kept, self.log_lanes, self.taper, len(self.starts) - 1)
        return head + bytes(self.starts[1:]) + freqs.pack(self.roots)


def unpack(body: memoryview, size: int) -> tuple[Model, memoryview]:
    """Decode what :meth:`Model.pack` made for ``size`` words; return it, and what follows it in ``body``.

    Raises:
        Corrupt: ``body`` begins with no such model.
    """
    if len(body) < _HEAD.size:
        raise Corrupt("the head is cut short")
    kept, log_lanes, taper, more = _HEAD.unpack_from(body)
    end = _HEAD.size + more
    starts = [0, *body[_HEAD.size : end]]
    if (
        kept not in KINDS
        or log_lanes > _LOG_LANES
        or not 0 < taper <= lanes.MAX_TAPER
        or more >= freqs.most_groups(size)
    ):
        raise Corrupt("a number in the head is out of range")
    if len(starts) != more + 1 or any(one >= other for one, other in itertools.pairwise(starts)):
        raise Corrupt("the groups of contexts are not in order")
    roots, rest = freqs.unpack(body[end:], more + 1)
    if (KINDS[kept].below[roots.any(axis=0)] > tokens.MOST_RAW).any():
        raise Corrupt("a token has too many raw bits")
    return Model(kept, log_lanes, taper, starts, roots), rest


def choose(counts: I64, finest: int, starts: list[int], size: int) -> tuple[Model, I64]:
    """Choose the bits kept and the lanes; return the model, and what token each of the finest ones became."""
    became = np.arange(TOKENS)
    found: list[tuple[int, int, I64, I64, int]] = []
    for kept in range(finest, 0, -1):
        coded, tables = freqs.cost(counts)
        coded += int((counts.sum(axis=0) * KINDS[kept].below).sum())
        found.append((coded + tables, -kept, counts, became, coded))
        counts, became = tokens.merged(counts, tokens.coarser(kept)), tokens.coarser(kept)[became]
    _, negative, counts, became, bits = min(found, key=lambda choice: choice[:2])
    return Model(-negative, *_lanes(size, bits), starts, freqs.roots(counts)), became


def _lanes(size: int, bits: int) -> tuple[int, int]:
    """Return the logarithm of the number of lanes, and their taper, for that many words in about that many bits."""
    fast = min(_LOG_LANES, (2 * size).bit_length() - 1 >> 1, max(0, (size // 16).bit_length() - 1))
    log = max(fast - 2, min(fast, (bits // (8 * _LANE)).bit_length() - 1), 0)
    # Rows enough for as many units as there are lanes, so that none starts from nothing.
    return log, max(1, min(36 * size // (bits + 1) + 1, lanes.MAX_TAPER, size >> log + 1))
