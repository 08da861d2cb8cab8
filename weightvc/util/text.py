"""Names from outside, made safe to show, counted lists, and guesses at what was misspelt."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Self

from weightvc.util.errors import UsageError

_SHOWN = 10
_FEW = 3


def printable(text: str) -> str:
    """Escape control and bidirectional characters, so that a hostile name cannot drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def encodable(text: str, what: str) -> str:
    """Return ``text``; raise :class:`UsageError` if it holds bytes of an argument that were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid UTF-8: {ascii(text)[:60]}", "write it in UTF-8") from None
    return text


def counted(number: int, what: str) -> str:
    """Return ``number`` and ``what``, which is one of them: `1 tensor`, `2 tensors`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """Join ``names``, cut at ten, or ``most``, with a count of the rest."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


class Note(str):
    """A sentence with the first few of some names; :attr:`full` has them all, for who asks with -v."""

    __slots__ = ("full",)
    full: str

    def __new__(cls, sentence: str, names: Sequence[str]) -> Self:
        """Return ``sentence``, a colon and the names."""
        more = " (-v lists them)" if len(names) > _FEW else ""
        note = super().__new__(cls, f"{sentence}: {listed(names, _FEW)}{more}")
        note.full = f"{sentence}: {listed(names, len(names))}"
        return note


def meant(name: str, known: Iterable[str], hint: str) -> str:
    """Return ``hint``, after the one of ``known`` names that ``name`` is a misspelling of, if there is one."""
    close = get_close_matches(name.lower(), list(known), 1)
    return f"did you mean {printable(close[0])}? {hint}" if close else hint
