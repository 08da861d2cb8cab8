"""Tokens: a difference's sign and how large it is, to some bits below the leading one; the rest is raw bits.

The magnitudes are cut as in Exp-Golomb codes or an HDR histogram: exact while small, then 2**kept steps to an octave.
Token numbers have the sign in their lowest bit. ``docs/format/rans.md`` specifies them.
"""

import threading
from typing import NamedTuple

import numpy as np

from weightvc.delta.rans.freqs import TOKENS
from weightvc.delta.rans.lanes import BLOCK, I64, MAX_RAW, U64
from weightvc.delta.words import Words

FINEST = 5
"""Most bits that a token keeps below the leading one."""

MOST_RAW = 62
"""Most raw bits of any word; tokens that would have more stand for nothing."""

_SIGN = np.array(63, np.uint64)
_EXACT = 53


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.block = np.empty((3, BLOCK), np.uint64)


_scratch = _Scratch()


class Kind(NamedTuple):
    """What each of ``TOKENS`` tokens stands for, at one number of bits kept.

    Attributes:
        least: The smallest magnitude.
        below: How many raw bits follow.
        spilt: How many whole bytes of them, the lowest, are stored apart; the coder takes the others.
        mask: As many ones as the coder takes raw bits.
    """

    least: U64
    below: I64
    spilt: I64
    mask: U64


def _kind(kept: int) -> Kind:
    step = np.arange(TOKENS) >> 1
    below = np.clip((step >> kept) - 1, 0, MOST_RAW + 1)
    top = (step & (1 << kept) - 1) + np.where(step >> kept, 1 << kept, 0)
    spilt = np.maximum(below - MAX_RAW + 7, 0) // 8
    mask = (1 << below - 8 * spilt) - 1
    return Kind(top.astype(np.uint64) << below.astype(np.uint64), below, spilt, mask.astype(np.uint64))


KINDS = {kept: _kind(kept) for kept in range(1, FINEST + 1)}
"""By bits kept."""


def magnitudes(words: Words, out: U64) -> U64:
    """Put the magnitudes of words, taken as two's complement, into ``out`` and return it; -2**63 gives 2**63."""
    signed = out.view(np.int64)
    np.copyto(signed, words.view(f"<i{words.itemsize}"))
    np.absolute(signed, out=signed)
    return out


def finest(words: Words) -> int:
    """Return the most bits that tokens can keep for ``TOKENS`` of them to do."""
    signed = words.view(f"<i{words.itemsize}")
    most = max(int(signed.max()), -int(signed.min()))
    kept = FINEST
    while _step(most, kept) >= TOKENS // 2:
        kept -= 1
    return kept


def _step(magnitude: int, kept: int) -> int:
    below = max(magnitude.bit_length() - 1 - kept, 0)
    return (below << kept) + (magnitude >> below)


def tokenise(words: Words, kept: int, out: I64) -> None:
    """Put the tokens of up to ``BLOCK`` words into ``out``."""
    large, sign, steps = (row[: words.size] for row in _scratch.block)
    np.copyto(sign.view(np.int64), words.view(f"<i{words.itemsize}"))
    np.right_shift(sign, _SIGN, out=sign)
    magnitudes(words, large)
    if words.itemsize == 8:
        low = np.uint64((1 << 64 - _EXACT) - 1)
        np.bitwise_and(large, np.where(large >> np.uint64(_EXACT), ~low, ~np.uint64(0)), out=large)
    # A double's exponent and highest bits count the steps, once what they begin at is taken off.
    np.copyto(steps.view(np.float64), large)
    counted = steps.view(np.int64)
    np.right_shift(counted, 52 - kept, out=counted)
    np.subtract(counted, (1022 + kept) << kept, out=counted)
    np.minimum(large, np.uint64(1 << kept), out=large)
    np.maximum(counted, large.view(np.int64), out=counted)
    np.left_shift(counted, 1, out=counted)
    np.bitwise_or(counted, sign.view(np.int64), out=out)


def coarser(kept: int) -> I64:
    """Return the token that each token becomes when one bit less than ``kept`` is."""
    token = np.arange(TOKENS)
    step = token >> 1
    return np.where(step < 1 << kept, step, (step >> 1) + (1 << kept - 1)) << 1 | token & 1


def merged(counts: I64, to: I64) -> I64:
    """Add up the columns of ``counts``, (groups, tokens), that ``to`` of :func:`coarser` sends to one token."""
    firsts = np.diff(to[::2] >> 1, prepend=-1).nonzero()[0]
    pairs = np.zeros((len(counts), TOKENS // 2, 2), np.int64)
    pairs[:, : firsts.size] = np.add.reduceat(counts.reshape(pairs.shape), firsts, axis=1)
    return pairs.reshape(counts.shape)
