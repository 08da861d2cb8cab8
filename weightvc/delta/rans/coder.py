"""Entropy coder of level ``best``: differences of words as tokens and raw bits, each under its context's own table.

:mod:`weightvc.delta.rans.tokens` tells tokens from raw bits, which are nearly noise;
:mod:`weightvc.delta.rans.freqs` has the tables and :mod:`weightvc.delta.rans.lanes` the coder proper.
``docs/format/rans.md`` specifies each byte.
"""

import struct
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from weightvc.delta.container import CHUNK
from weightvc.delta.rans import freqs, golomb, lanes, model, tokens
from weightvc.delta.rans.freqs import TOKENS
from weightvc.delta.rans.lanes import BLOCK, I64, LABEL_AT, OFFSET_AT, PRECISION, U32, U64
from weightvc.delta.rans.model import Model
from weightvc.delta.words import Words
from weightvc.util.errors import Corrupt

_UNITS = struct.Struct("<I")
_VERBATIM = b"\0"

_LABEL_SHIFT = np.array(LABEL_AT, np.uint64)
_LABEL = np.array(TOKENS - 1, np.uint64)
_LOWEST = np.array(1 << 32, np.uint64)


class _Scratch(threading.local):
    """Each thread's own room: a number for each word's group and token, and four for each word of a block."""

    def __init__(self) -> None:
        self.cells = np.empty(CHUNK, np.uint16)
        self.block = np.empty((4, BLOCK), np.uint64)
        self.index = np.empty(BLOCK, np.int64)


_scratch = _Scratch()


def pack(words: Words, contexts: NDArray[np.uint8]) -> bytes:
    """Encode up to one chunk of words, at least one.

    Args:
        words: Differences, taken as two's complement; 1-d, of 1, 2, 4 or 8 bytes.
        contexts: One for each word. Those of one context, or of neighbouring ones, are taken to be alike.
    """
    finest = tokens.finest(words)
    starts = freqs.groups(np.bincount(contexts, minlength=256))
    counts = _count(words, contexts, finest, starts)
    chosen, became = model.choose(counts, finest, starts, words.size)
    parts = [chosen.pack()]
    if not chosen.certain():
        writer = _Writer(words, chosen, became)
        states, units = lanes.push(chosen.shape(words.size), writer.symbols)
        parts += _pack_states(states), _UNITS.pack(units.size), units.astype("<u4", copy=False).tobytes()
        parts += reversed(writer.spilt)
    body = b"".join(parts)
    return body if len(body) <= words.nbytes else _VERBATIM + words.astype(_stored(words), copy=False).tobytes()


def _stored(words: Words) -> str:
    return f"<u{words.itemsize}"


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _count(words: Words, contexts: NDArray[np.uint8], kept: int, starts: list[int]) -> I64:
    """Leave each word's cell, its group times ``TOKENS`` plus its token, in scratch; count them, (groups, TOKENS)."""
    first = freqs.group_of(starts) * TOKENS
    counts = np.zeros(len(starts) * TOKENS, np.int64)
    for part in _blocks(words.size):
        token, group = (row[: part.stop - part.start].view(np.int64) for row in _scratch.block[:2])
        tokens.tokenise(words[part], kept, token)
        np.copyto(group, contexts[part])
        first.take(group, out=group, mode="clip")
        np.add(token, group, out=token)
        np.copyto(_scratch.cells[part], token, casting="unsafe")
        counts += np.bincount(token, minlength=counts.size)
    return counts.reshape(-1, TOKENS)


class _Writer:
    """Gives the coder its symbols, and keeps the bytes that it does not take, of the last block first."""

    def __init__(self, words: Words, model: Model, became: I64) -> None:
        self._words = words
        slots, symbols = model.symbols()
        begins = (np.cumsum(slots, axis=1) - slots) % (1 << PRECISION)
        self._symbols = (symbols | begins.astype(np.uint64) << np.uint64(OFFSET_AT))[:, became].ravel()
        self._mask: U64 = np.tile(model.kind.mask[became], len(slots))
        self._lower: I64 = np.tile(model.kind.spilt[became], len(slots))
        self._spills = model.spills()
        self.spilt: list[bytes] = []

    def symbols(self, start: int, stop: int) -> tuple[U64, U64]:
        """See :func:`weightvc.delta.rans.lanes.push`."""
        entry, raw, mask = (row[: stop - start] for row in _scratch.block[:3])
        cell = _scratch.index[: stop - start]
        np.copyto(cell, _scratch.cells[start:stop])
        self._symbols.take(cell, out=entry, mode="clip")
        self._mask.take(cell, out=mask, mode="clip")
        tokens.magnitudes(self._words[start:stop], raw)
        if self._spills:
            lengths = self._lower.take(cell)
            long = lengths.nonzero()[0]
            self.spilt.append(_shorten(raw[long], lengths[long]))
            raw[long] >>= (lengths[long] << 3).astype(np.uint64)
        np.bitwise_and(raw, mask, out=raw)
        return entry, raw


def _shorten(values: U64, lengths: I64) -> bytes:
    """Return the lowest bytes of each value, as many as ``lengths`` says, little-endian."""
    octets = values.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)
    return octets[np.arange(8) < lengths[:, None]].tobytes()


def _lengthen(body: memoryview, lengths: I64, what: str) -> tuple[U64, memoryview]:
    """Undo :func:`_shorten`; return the values, and what follows them in ``body``."""
    size = int(lengths.sum())
    if len(body) < size:
        raise Corrupt(f"{what} are cut short")
    octets = np.zeros((lengths.size, 8), np.uint8)
    octets[np.arange(8) < lengths[:, None]] = np.frombuffer(body[:size], np.uint8)
    return octets.view("<u8").ravel().astype(np.uint64, copy=False), body[size:]


def _pack_states(states: U64) -> bytes:
    above = states - _LOWEST
    absent: I64 = (above[:, None] >> np.arange(0, 64, 8, dtype=np.uint64) == 0).sum(axis=1)
    return golomb.pack(absent) + _shorten(above, 8 - absent)


def _unpack_states(body: memoryview, count: int) -> tuple[U64, memoryview]:
    absent, body = golomb.unpack(body, count)
    if absent.max() > 8:
        raise Corrupt("a state has less than no bytes")
    above, body = _lengthen(body, 8 - absent, "states")
    return above + _LOWEST, body


def unpack(body: memoryview, contexts: NDArray[np.uint8], out: Words) -> None:
    """Decode what :func:`pack` made of ``out.size`` words of those contexts into ``out``.

    Raises:
        Corrupt: ``body`` is anything else. What ``out`` then holds is undefined.
    """
    if body[:1] == _VERBATIM:
        if len(body) != 1 + out.nbytes:
            raise Corrupt(f"{len(body) - 1} bytes of words, {out.nbytes} expected")
        np.copyto(out, np.frombuffer(body[1:], _stored(out)))
        return
    found, rest = model.unpack(body, out.size)
    reader = _Reader(found, contexts, out)
    if found.certain():
        reader.fill()
    else:
        states, rest = _unpack_states(rest, 1 << found.log_lanes)
        units, reader.rest = _unpack_units(rest, out.size)
        lanes.pop(found.shape(out.size), states, units, reader)
        rest = reader.rest
    if rest:
        raise Corrupt(f"{len(rest)} bytes follow the last word")


def _unpack_units(body: memoryview, most: int) -> tuple[U32, memoryview]:
    if len(body) < _UNITS.size:
        raise Corrupt("the number of units is cut short")
    (count,) = _UNITS.unpack_from(body)
    end = _UNITS.size + 4 * count
    if count > most or end > len(body):
        raise Corrupt(f"{count} units for {most} words in {len(body)} bytes")
    return np.frombuffer(body[_UNITS.size : end], "<u4").astype(np.uint32, copy=False), body[end:]


class _Reader:
    """Gives the coder its tables and makes words of its symbols; ``rest`` is what the coder does not take."""

    def __init__(self, model: Model, contexts: NDArray[np.uint8], out: Words) -> None:
        self._contexts, self._out, self._kind = contexts, out, model.kind
        self._group = freqs.group_of(model.starts)
        self._first = self._group << PRECISION
        self._spills = model.spills()
        slots, symbols = model.symbols()
        flat = slots.ravel()
        into = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat, flat)
        self.table: U64 = np.repeat(symbols.ravel(), flat) | into.astype(np.uint64) << np.uint64(OFFSET_AT)
        self.rest = memoryview(b"")

    def fill(self) -> None:
        """Make every word from its context."""
        label = self.table[:: 1 << PRECISION] >> _LABEL_SHIFT & _LABEL
        for part in _blocks(self._out.size):
            value, negative = (row[: part.stop - part.start] for row in _scratch.block[:2])
            np.take(label, self._group.take(self._contexts[part]), out=negative, mode="clip")
            np.take(self._kind.least, negative.view(np.int64), out=value, mode="clip")
            self._finish(part.start, value, negative)

    def begin(self, start: int, stop: int, out: I64) -> None:
        """See ``tables`` of :func:`weightvc.delta.rans.lanes.pop`."""
        np.copyto(out, self._contexts[start:stop])
        self._first.take(out, out=out, mode="clip")

    def take(self, start: int, symbols: U64, raw: U64) -> None:
        """See :func:`weightvc.delta.rans.lanes.pop`."""
        part = _scratch.block[0, : symbols.size]
        np.right_shift(symbols, _LABEL_SHIFT, out=symbols)
        np.bitwise_and(symbols, _LABEL, out=symbols)
        label = symbols.view(np.int64)
        self._kind.mask.take(label, out=part, mode="clip")
        np.bitwise_and(raw, part, out=raw)
        if self._spills:
            lengths = self._kind.spilt.take(label)
            long = lengths.nonzero()[0]
            lower, self.rest = _lengthen(self.rest, lengths[long], "raw bits")
            raw[long] = raw[long] << (lengths[long] << 3).astype(np.uint64) | lower
        self._kind.least.take(label, out=part, mode="clip")
        np.add(raw, part, out=raw)
        self._finish(start, raw, symbols)

    def _finish(self, start: int, magnitude: U64, label: U64) -> None:
        """Put the words of those magnitudes and tokens in their place; destroys both."""
        np.bitwise_and(label, np.array(1, np.uint64), out=label)
        np.negative(label, out=label)
        np.bitwise_xor(magnitude, label, out=magnitude)
        np.subtract(magnitude, label, out=magnitude)
        np.copyto(self._out[start : start + magnitude.size], magnitude, casting="unsafe")
