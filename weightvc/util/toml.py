"""The one TOML parser: people write these files by hand, and anybody may have written them."""

import re
import tomllib

from weightvc.util.canon import Json
from weightvc.util.errors import BadInput

MAX_BYTES = 2**20
"""Largest file that is parsed."""

_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_DEEP = re.compile(r"(?:\.[ \t]*[\w-]+[ \t]*){8}", re.ASCII)
"""A key of nine parts or more: the parser's time and memory grow with the square of their number."""


def parse(data: bytes, where: str) -> dict[str, Json]:
    """Parse a TOML document.

    Raises:
        BadInput: more than :data:`MAX_BYTES`, a key of nine parts or more, nesting too deep, or no TOML.
    """
    if len(data) > MAX_BYTES:
        raise BadInput(f"{where}: {len(data)} bytes of TOML, more than the limit of {MAX_BYTES}")
    if _DEEP.search(_STRING.sub("s", data.decode(errors="replace"))):
        raise BadInput(f"{where}: a key of more than eight parts")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid TOML ({error})") from None
