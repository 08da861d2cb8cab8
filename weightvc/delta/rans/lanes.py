"""Interleaved rANS: many coders run side by side, one a lane, on one stream of 32-bit units.

Asymmetric numeral systems are Duda's ("Asymmetric numeral systems", arXiv:1311.2540); lanes that share one stream are
Giesen's ("Interleaved entropy coders", arXiv:1402.3392). A state is an integer from 2**32 below 2**64. A symbol may
end in raw bits, which are coded with equal odds along with it; the two together never move more than one unit.

The last symbols run on ever fewer lanes, because a lane that stops gives its state's low half back to the stream
(``docs/format/rans.md``). So many lanes cost hardly more bytes than few.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from weightvc.util.errors import Corrupt

U64: TypeAlias = NDArray[np.uint64]
U32: TypeAlias = NDArray[np.uint32]
I64: TypeAlias = NDArray[np.int64]
Block: TypeAlias = tuple[int, int, int]
"""First symbol, rows, and lanes to a row."""

PRECISION = 12
"""A table's frequencies add up to two to this power."""

MAX_RAW = 32 - PRECISION
MAX_LANES = 1024
BLOCK = 16 * 1024
"""Symbols handled at a time, so that what is known of them stays in a core's L2."""

# A symbol as one integer: its frequency, where its slots begin (for the coder) or how far into them (for the decoder),
# what the caller wants to know it by, and the number of raw bits on top.
OFFSET_AT, LABEL_AT, RAW_AT = 13, 25, 40

MAX_TAPER = 64
_NARROWEST = 16
_FREQ = np.array((1 << OFFSET_AT) - 1, np.uint64)
_SLOT = np.array((1 << PRECISION) - 1, np.uint64)
_TOTAL = np.array(1 << PRECISION, np.uint64)
_OFFSET_SHIFT = np.array(OFFSET_AT, np.uint64)
_RAW_SHIFT = np.array(RAW_AT, np.uint64)
_PRECISION = np.array(PRECISION, np.uint64)
_UNIT = np.array(32, np.uint64)
_LOW = np.array(1 << 32, np.uint64)


class _Scratch(threading.local):
    """Each thread's own room for what is known of one block, and for one row."""

    def __init__(self) -> None:
        self.fields = np.empty((5, BLOCK), np.uint64)
        self.moved = np.empty(BLOCK, np.bool_)
        self.units = np.empty(BLOCK, np.uint32)
        self.slots = np.empty(BLOCK, np.int64)
        self.row = np.empty((3, MAX_LANES), np.uint64)


_scratch = _Scratch()


class Shape(NamedTuple):
    """How symbols are laid out in rows.

    Attributes:
        size: How many symbols.
        lanes: How many to a row at first; a power of two up to ``MAX_LANES``.
        taper: Rows before the number of lanes halves again, once it has begun to, from 1.
    """

    size: int
    lanes: int
    taper: int

    def blocks(self) -> list[Block]:
        """Return the rows in the decoder's order, in blocks of up to ``BLOCK`` symbols.

        The number of lanes halves down to 1/16 of ``lanes`` (at least 1); what is left over is one last, shorter row.
        """
        found = []
        narrowest = max(1, self.lanes // _NARROWEST)
        width, at = self.lanes, 0
        while width >= narrowest:
            rows = max(0, self.size - at - self.taper * (width - narrowest)) // width
            step = BLOCK // width
            found += [(at + row * width, min(step, rows - row), width) for row in range(0, rows, step)]
            at += rows * width
            width //= 2
        return [*found, (at, 1, self.size - at)] if at < self.size else found


def push(shape: Shape, symbols: Callable[[int, int], tuple[U64, U64]]) -> tuple[U64, U32]:
    """Encode symbols.

    Args:
        shape: How many, and how they are laid out.
        symbols: Gives symbols ``start`` to ``stop`` as integers, and the raw bits of each. Asked backwards, for up to
            ``BLOCK`` at a time; what it returns is read before it is asked again.

    Returns:
        The lanes' last states and the units, as the decoder reads them.
    """
    states = np.empty(shape.lanes, np.uint64)
    room = np.empty(shape.size, np.uint32)  # filled from its end; no symbol moves more than one unit
    at, live = shape.size, 0
    for start, rows, width in reversed(shape.blocks()):
        at = _widen(states, live, width, room, at)
        live = width
        entries, raw = symbols(start, start + rows * width)
        moved, units = _push_rows(states[:width], entries, raw, (rows, width))
        units = units[moved]
        room[at - units.size : at] = units
        at -= units.size
    at = _widen(states, live, shape.lanes, room, at)
    return states, room[at:]


def _widen(states: U64, live: int, width: int, room: U32, at: int) -> int:
    """Start more lanes, each from a unit of the stream, or from none where it has run out; return the stream's end."""
    taken = room[at : at + width - live]
    states[live:width] = _LOW
    states[live : live + taken.size] |= taken
    return at + taken.size


def _push_rows(states: U64, entries: U64, raw: U64, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], U32]:
    """Encode one block in place of ``states``; return which symbol moved a unit, and what a unit would be of each."""
    freq, bound, start, rest, shift = (field[: entries.size] for field in _scratch.fields)
    np.right_shift(entries, _RAW_SHIFT, out=shift)
    np.bitwise_and(entries, _FREQ, out=freq)
    np.right_shift(entries, _OFFSET_SHIFT, out=start)
    np.bitwise_and(start, _SLOT, out=start)
    np.subtract(_TOTAL, freq, out=rest)
    # A state from freq * 2**(52 - shift) on moves a unit. That may be 2**64, so one less is compared.
    np.subtract(np.array(64 - PRECISION, np.uint64), shift, out=bound)
    np.left_shift(freq, bound, out=bound)
    np.subtract(bound, np.array(1, np.uint64), out=bound)
    moved = _scratch.moved[: entries.size].reshape(shape)
    units = _scratch.units[: entries.size].reshape(shape)
    quotient, fields = _scratch.row[0, : shape[1]], (freq, bound, start, rest, shift, raw)
    any_raw = shift.any()
    rows = zip(*(field.reshape(shape)[::-1] for field in fields), moved[::-1], units[::-1], strict=True)
    for f, top, low, gap, bits, value, move, unit in rows:
        np.greater(states, top, out=move)
        np.copyto(unit, states, casting="unsafe")
        np.right_shift(states, _UNIT, out=quotient)
        np.putmask(states, move, quotient)
        if any_raw:
            np.left_shift(states, bits, out=states)
            np.bitwise_or(states, value, out=states)
        np.floor_divide(states, f, out=quotient)
        np.multiply(quotient, gap, out=quotient)
        np.add(states, quotient, out=states)
        np.add(states, low, out=states)
    return moved, units


class Reader(Protocol):
    """What :func:`pop` asks and tells of symbols, block by block, forwards.

    Attributes:
        table: The symbol of each slot, as integers: 2**``PRECISION`` to a table.
    """

    table: U64

    def begin(self, start: int, stop: int, out: I64) -> None:
        """Fill in for symbols ``start`` to ``stop`` where their tables begin in ``table``."""
        ...

    def take(self, start: int, symbols: U64, raw: U64) -> None:
        """Take the symbols from ``start`` on, and integers whose low bits are each one's raw ones; may destroy both.

        The raw bits are undefined if no symbol in ``table`` has any.
        """
        ...


def pop(shape: Shape, states: U64, units: U32, reader: Reader) -> None:
    """Decode symbols.

    Args:
        shape: How many, and how they are laid out.
        states: The lanes' states; destroyed.
        units: The stream.
        reader: Knows the tables and takes the symbols.

    Raises:
        Corrupt: the stream is too short, or is not one that :func:`push` makes.
    """
    stream = _Stream(units, shape.lanes)
    live = shape.lanes
    for start, rows, width in shape.blocks():
        stream.give_back(states[width:live])
        live = width
        size = rows * width
        begins = _scratch.slots[:size]
        reader.begin(start, start + size, begins)
        symbols, raw = _scratch.fields[:2, :size]
        _pop_rows(states[:width], reader.table, begins, (symbols, raw), stream)
        reader.take(start, symbols, raw)
    stream.give_back(states[:live])
    stream.finish()


class _Stream:
    """The units still to come. ``lanes`` of them at most are ever given back."""

    def __init__(self, units: U32, lanes: int) -> None:
        self._units = np.zeros(lanes + units.size, np.uint64)
        self._units[lanes:] = units
        self._at = lanes

    def take(self, count: int) -> U64:
        at = self._at
        self._at += count
        if self._at > self._units.size:
            raise Corrupt("the units are too few")
        return self._units[at : self._at]

    def give_back(self, stopped: U64) -> None:
        """Take the low halves of the states of lanes that stop."""
        if (stopped >> _UNIT != 1).any():
            raise Corrupt("a lane stops in a state that none starts from")
        self._at -= stopped.size
        self._units[self._at : self._at + stopped.size] = stopped ^ _LOW

    def finish(self) -> None:
        if self._units[self._at :].any():
            raise Corrupt("units are left over")


def _pop_rows(states: U64, table: U64, begins: I64, results: tuple[U64, U64], stream: _Stream) -> None:
    """Decode one block into ``results``, the symbols and their raw bits."""
    width = states.size
    freq, offset, bits = (row[:width] for row in _scratch.row)
    slots, low, mask = states.view(np.int64), bits.view(np.int64), _SLOT.view(np.int64)
    few = np.empty(width, np.bool_)
    any_raw = table.max() >> _RAW_SHIFT
    for slot, entry, raw in zip(*(field.reshape(-1, width) for field in (begins, *results)), strict=True):
        np.bitwise_and(slots, mask, out=low)
        np.add(slot, low, out=slot)
        table.take(slot, out=entry, mode="clip")
        np.bitwise_and(entry, _FREQ, out=freq)
        np.right_shift(entry, _OFFSET_SHIFT, out=offset)
        np.bitwise_and(offset, _SLOT, out=offset)
        np.right_shift(states, _PRECISION, out=states)
        np.multiply(states, freq, out=states)
        np.add(states, offset, out=states)
        if any_raw:
            np.copyto(raw, states)
            np.right_shift(entry, _RAW_SHIFT, out=bits)
            np.right_shift(states, bits, out=states)
        np.less(states, _LOW, out=few)
        short = few.nonzero()[0]
        moved = states.take(short)
        np.left_shift(moved, _UNIT, out=moved)
        np.bitwise_or(moved, stream.take(short.size), out=moved)
        states[short] = moved
