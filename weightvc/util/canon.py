"""Canonical JSON with exactly one valid encoding, and the one strict JSON parser.

Python's own parser accepts duplicate keys, ``NaN`` and integers of any length, and dies of deep nesting
with ``RecursionError``. Everything read from outside goes through :func:`parse` instead.
"""

import json
import math
import re
from typing import Any

from weightvc.util.errors import BadInput

MAX_BYTES = 256 * 2**20
_MAX_INT_DIGITS = 19
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Json = Any
"""What JSON can hold: ``None``, ``bool``, ``int``, ``float``, ``str``, lists and string-keyed dicts of these."""


def dumps(value: Json) -> bytes:
    """Encode ``value`` as compact UTF-8 JSON with sorted keys.

    Raises:
        ValueError: ``value`` holds a non-finite number or a lone surrogate.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def document(value: dict[str, Json]) -> bytes:
    """Encode a mapping so that git diffs and merges it well: a line for each key and each list item."""
    return b"{\n" + b",\n".join(dumps(key) + b":" + _member(value[key]) for key in sorted(value)) + b"\n}\n"


def _member(value: Json) -> bytes:
    if isinstance(value, list) and value:
        return b"[\n" + b",\n".join(dumps(item) for item in value) + b"\n]"
    return dumps(value)


def parse_document(data: bytes, where: str) -> dict[str, Json]:
    """Parse what :func:`document` wrote, and nothing else: any other spelling of the same value is refused."""
    value = parse(data, where)
    if not isinstance(value, dict):
        raise BadInput(f"{where}: a JSON object was expected")
    if document(value) != data:
        raise BadInput(f"{where}: not in canonical form; it was changed by something other than wvc")
    return value


def parse(data: bytes, where: str) -> Json:
    """Parse JSON strictly.

    Args:
        data: UTF-8 JSON, at most :data:`MAX_BYTES`.
        where: What the data is, for error messages.

    Raises:
        BadInput: duplicate keys, ``NaN`` or infinities, integers beyond 64 bits, invalid UTF-8, lone
            surrogates, nesting too deep, or no JSON at all.
    """
    if len(data) > MAX_BYTES:
        raise BadInput(f"{where}: {len(data)} bytes of JSON, more than the limit of {MAX_BYTES}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_int=lambda text: _integer(text, where),
            parse_float=lambda text: _finite(text, where),
            parse_constant=lambda text: _refuse(f"{where}: {text} is not JSON"),
        )
        if _SURROGATE.search(data):
            dumps(value)
    except BadInput:
        raise
    except RecursionError:
        raise BadInput(f"{where}: JSON nested too deeply") from None
    except ValueError as error:
        raise BadInput(f"{where}: not valid JSON ({error})") from None
    return value


def _refuse(what: str) -> Json:
    raise BadInput(what)


def _unique(pairs: list[tuple[str, Json]], where: str) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadInput(f"{where}: duplicate name {twice!r}")
    return result


def _integer(text: str, where: str) -> int:
    if text == "-0":  # which other readers take for a floating-point number
        raise BadInput(f"{where}: -0 is no integer")
    if len(text.lstrip("-")) > _MAX_INT_DIGITS or not -(2**63) <= int(text) < 2**63:
        raise BadInput(f"{where}: an integer beyond 64 bits")
    return int(text)


def _finite(text: str, where: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadInput(f"{where}: a number beyond double precision")
    return number
