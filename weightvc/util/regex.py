r"""Regular expressions for whole names, in time linear in the name whoever wrote them.

Python's ``re`` tries one way after the other, and a short pattern can give it more ways than it will ever finish. Here
a pattern becomes a list of positions, one for each character that it can match, and for each position those that may
come next (Glushkov, "The abstract theory of automata", 1961). Matching keeps the set of positions that the name so far
can lead to, and there is nothing to go back to.

What there is means what it means to ``re.fullmatch`` with ``re.ASCII``: characters, ``.``, ``[…]``, ``\d \w \s`` and
their capitals, ``|``, ``(…)``, ``(?:…)``, ``* + ? {m} {m,} {m,n}``, lazy or not. There are no back references, no
lookaround and no flags. ``^`` and ``$`` may stand at the ends, where they say what is so anyway.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

MAX_LENGTH = 1000
"""Most characters of a pattern."""

MAX_POSITIONS = 500
"""Most characters that a pattern stands for once its counted repeats are written out."""

MAX_DEPTH = 20
"""Most groups within each other."""

_MEMORY = 4096
_LAST = 0x10FFFF
_REPEAT = re.compile(r"(?:[*+?]|\{(\d{1,4})(,?)(\d{0,4})\})", re.ASCII)

Set: TypeAlias = tuple[tuple[int, int], ...]
"""Characters, as ranges of code points."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Branches, each a sequence of nodes, repeated ``least`` to ``most`` times; ``most=None`` has no end."""

    branches: "tuple[tuple[Set | _Group, ...], ...]"
    least: int = 1
    most: int | None = 1

    @property
    def copies(self) -> int:
        """How often it is written out."""
        return max(self.least, 1) if self.most is None else self.most

    def positions(self) -> int:
        """Return how many positions it takes; a copy of what is empty counts, too, for it is work."""
        inner = (node.positions() if isinstance(node, _Group) else 1 for branch in self.branches for node in branch)
        return self.copies * max(1, sum(inner))


class _Part(NamedTuple):
    """A part of a pattern: whether it can be empty, and the positions that it can begin and end with, as bits."""

    empty: bool
    first: int
    last: int


class Pattern:
    """A compiled pattern.

    Raises:
        ValueError: it is malformed, or beyond what this module knows or allows; the message says where and why.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"it has {len(text)} characters, more than the limit of {MAX_LENGTH}")
        tree = _Parser(text).parse()
        if (positions := tree.positions()) > MAX_POSITIONS:
            raise ValueError(f"it stands for {positions} characters, more than the limit of {MAX_POSITIONS}")
        self._sets: list[Set] = []
        self._next: list[int] = []
        self._all = self._group(tree)
        self._accepting: dict[str, int] = {}
        self._reached: dict[int, int] = {}

    def matches(self, name: str) -> bool:
        """Tell whether the pattern is the whole of ``name``."""
        if not name:
            return self._all.empty
        at, reach = 0, self._all.first
        for char in name:
            at = reach & self._accepts(char)
            reach = self._after(at)
        return bool(at & self._all.last)

    def _accepts(self, char: str) -> int:
        """Return the positions that a character can stand at."""
        if (found := self._accepting.get(char)) is None:
            code = ord(char)
            held = (any(low <= code <= high for low, high in ranges) for ranges in self._sets)
            found = self._accepting[char] = sum(1 << at for at, here in enumerate(held) if here)
        return found

    def _after(self, at: int) -> int:
        """Return the positions that can come next, remembered for the sets of positions that were met last."""
        if (found := self._reached.get(at)) is None:
            if len(self._reached) >= _MEMORY:
                self._reached.clear()
            found = 0
            for position in _bits(at):
                found |= self._next[position]
            self._reached[at] = found
        return found

    def _group(self, node: _Group) -> _Part:
        whole = _Part(empty=True, first=0, last=0)
        for number in range(node.copies):
            part = self._branches(node.branches)
            if node.most is None and number == node.copies - 1:
                self._link(part.last, part.first)
            if number >= node.least:
                part = part._replace(empty=True)
            whole = self._joined(whole, part)
        return whole

    def _branches(self, branches: "Sequence[Sequence[Set | _Group]]") -> _Part:
        parts = [self._sequence(branch) for branch in branches]
        first = last = 0
        for part in parts:
            first, last = first | part.first, last | part.last
        return _Part(any(part.empty for part in parts), first, last)

    def _sequence(self, nodes: "Sequence[Set | _Group]") -> _Part:
        whole = _Part(empty=True, first=0, last=0)
        for node in nodes:
            whole = self._joined(whole, self._group(node) if isinstance(node, _Group) else self._position(node))
        return whole

    def _position(self, held: Set) -> _Part:
        self._sets.append(held)
        self._next.append(0)
        bit = 1 << len(self._next) - 1
        return _Part(empty=False, first=bit, last=bit)

    def _joined(self, left: _Part, right: _Part) -> _Part:
        self._link(left.last, right.first)
        first = left.first | (right.first if left.empty else 0)
        last = right.last | (left.last if right.empty else 0)
        return _Part(left.empty and right.empty, first, last)

    def _link(self, ends: int, starts: int) -> None:
        for position in _bits(ends):
            self._next[position] |= starts


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _complement(ranges: Set) -> Set:
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


def _chars(text: str) -> Set:
    return tuple((ord(char), ord(char)) for char in text)


_ANY = _complement(_chars("\n"))
_DIGITS: Set = ((0x30, 0x39),)
_WORD: Set = (*_DIGITS, (0x41, 0x5A), (0x61, 0x7A), *_chars("_"))
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _chars(" \t\n\r\f\v")}
_CLASSES |= {name.upper(): _complement(ranges) for name, ranges in _CLASSES.items()}


class _Parser:
    """Parses one pattern, by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> _Group:
        """Return the whole pattern."""
        branches = self._branches(0)
        if self._at < len(self._text):
            raise self._error("this ) closes nothing", self._at)
        return _Group(branches)

    def _branches(self, depth: int) -> "tuple[tuple[Set | _Group, ...], ...]":
        branches = [self._sequence(depth)]
        while self._take("|"):
            branches.append(self._sequence(depth))
        return tuple(branches)

    def _sequence(self, depth: int) -> "tuple[Set | _Group, ...]":
        nodes: list[Set | _Group] = []
        if depth == 0:
            self._take("^")
        while (char := self._peek()) and char not in "|)":
            if char == "$" and depth == 0 and self._text[self._at + 1 : self._at + 2] in ("", "|"):
                self._at += 1
                break
            nodes.append(self._repeated(self._atom(depth)))
        return tuple(nodes)

    def _repeated(self, node: "Set | _Group") -> "Set | _Group":
        """Return a node with the repeat that follows it, if one does."""
        found = _REPEAT.match(self._text, self._at)
        if found is None:
            return node
        start, self._at = self._at, found.end()
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0], (0, 0))
        if found[1] is not None:
            least = int(found[1])
            most = least if not found[2] else int(found[3]) if found[3] else None
            if (not found[2] and found[3]) or (most is not None and most < least):
                raise self._error(f"{found[0]} is no repeat", start)
        self._take("?")  # how much a repeat takes first decides nothing about a whole name
        if self._peek() in ("*", "+", "?"):
            raise self._error("a repeat of a repeat", self._at)
        return _Group(((node,),), least, most)

    def _atom(self, depth: int) -> "Set | _Group":
        start = self._at
        char = self._next()
        if char == "(":
            return self._parenthesis(depth + 1, start)
        if char == "[":
            return self._class(start)
        if char == "\\":
            return self._escape(start)
        if char in "*+?{":
            raise self._error(f"{char} repeats nothing; \\{char} is the character", start)
        if char in "^$":
            raise self._error(f"{char} stands at the ends only; \\{char} is the character", start)
        return _ANY if char == "." else _chars(char)

    def _parenthesis(self, depth: int, start: int) -> _Group:
        if depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} groups within each other", start)
        if self._take("?") and not self._take(":"):
            raise self._error("of groups that begin with ? only (?:…) is known", start)
        branches = self._branches(depth)
        if not self._take(")"):
            raise self._error("this ( is never closed", start)
        return _Group(branches)

    def _class(self, start: int) -> Set:
        negated, ranges = self._take("^"), list[tuple[int, int]]()
        while not ranges or self._peek() != "]":  # a ] at the start is the character
            held = self._member(start)
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                held = self._range(held, self._member(start), start)
            ranges += held
        self._at += 1
        return _complement(tuple(ranges)) if negated else tuple(ranges)

    def _range(self, low: Set, high: Set, start: int) -> Set:
        (first, same), (last, again) = low[0], high[0]
        if first != same or last != again or len(low + high) > 2:
            raise self._error("a range is between two characters", start)
        if first > last:
            raise self._error("a range that ends before it begins", start)
        return ((first, last),)

    def _member(self, start: int) -> Set:
        if not self._peek():
            raise self._error("this [ is never closed", start)
        at = self._at
        char = self._next()
        return self._escape(at) if char == "\\" else _chars(char)

    def _escape(self, start: int) -> Set:
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if not char or (char.isascii() and char.isalnum()):
            raise self._error(f"\\{char} is not known", start)
        return _chars(char)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _take(self, char: str) -> bool:
        found = self._peek() == char
        self._at += found
        return found

    @staticmethod
    def _error(what: str, at: int) -> ValueError:
        return ValueError(f"at character {at + 1}: {what}")
