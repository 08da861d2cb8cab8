"""Names from outside, made safe to show, and counted lists."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from weightvc.util.errors import UsageError

_SHOWN = 10
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}


def printable(text: str) -> str:
    """Escape control and bidirectional characters, so that a hostile name cannot drive a terminal."""
    return "".join(c if c.isprintable() and ord(c) not in _BIDI else f"\\u{ord(c):04x}" for c in text)


def encodable(text: str, what: str) -> str:
    """Return ``text``; raise :class:`UsageError` if it holds bytes of an argument that were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid UTF-8: {ascii(text)[:60]}", "write it in UTF-8") from None
    return text


def listed(names: Sequence[str]) -> str:
    """Join ``names``, cut at ten with a count of the rest."""
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def meant(name: str, known: Iterable[str], hint: str) -> str:
    """Return ``hint``, after the one of ``known`` names that ``name`` is a misspelling of, if there is one."""
    close = get_close_matches(name.lower(), list(known), 1)
    return f"did you mean {printable(close[0])}? {hint}" if close else hint
