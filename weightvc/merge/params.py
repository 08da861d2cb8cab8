"""Parameters of merge methods as plain data: their types, ranges and spellings."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from weightvc.objects.recipe import Scalar

MAX_PATTERNS = 1000
"""Most characters in a list of patterns; tensor names have a limit of their own, 1 KiB."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a method.

    Attributes:
        name: As in ``-p NAME=VALUE``.
        type: One of :data:`TYPES`.
        default: The value where a recipe gives none.
        meaning: What it does, for people, in one sentence.
        range: The values it takes, for people, as in "alpha is …".
        accepts: Tells whether a value of ``type`` is in that range.
        numeric: Whether a text may be given as the number that it spells.
    """

    name: str
    type: type[Scalar]
    default: Scalar
    meaning: str
    range: str
    accepts: Callable[[Any], bool] = lambda _: True
    numeric: bool = False

    def parse(self, given: Scalar) -> Scalar:
        """Return ``given``, or the value that it spells, as the parameter's own type.

        Raises:
            ValueError: it is none of the parameter's values.
        """
        if self.numeric and type(given) in (int, float):
            given = str(given)
        if type(given) not in (self.type, str) and (type(given), self.type) != (int, float):
            raise ValueError(given)
        value = TYPES[self.type](given)
        if not self.accepts(value):
            raise ValueError(value)
        return value


def choice(name: str, default: str, others: Sequence[str], meaning: str) -> Param:
    """Return a parameter that is one of a few words."""
    words = (default, *others)
    return Param(name, str, default, meaning, f"{', '.join(words[:-1])} or {words[-1]}", words.__contains__)


def is_norm(text: str) -> bool:
    """Tell whether ``text`` is ``mean``, ``rss`` or a finite number above 0."""
    try:
        return text in ("mean", "rss") or 0 < float(text) < math.inf
    except ValueError:
        return False


def named(name: str, patterns: str) -> bool:
    """Tell whether one of the comma-separated shell patterns, of ``*``, ``?`` and ``[…]``, is the whole of ``name``.

    Patterns come from recipes, which may be anybody's. Unlike regular expressions, these cannot be made to run for
    ever: a star never takes back what it matched (CPython issue 40480).
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns.split(","))


def _finite(given: Scalar) -> float:
    try:
        number = float(given) + 0.0  # makes -0.0 the one zero, so that equal parameters are stored alike
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(given)
    return number


def _boolean(given: Scalar) -> bool:
    text = str(given).lower()
    if text not in ("true", "false"):
        raise ValueError(given)
    return text == "true"


def _text(given: Scalar) -> str:
    text = str(given)
    text.encode()  # a ValueError for what was no UTF-8 on the command line
    return text


TYPES: Mapping[type[Scalar], Callable[[Any], Scalar]] = {float: _finite, int: int, bool: _boolean, str: _text}
"""What a parameter can be, and how text becomes a value of that type."""
