"""Identifiers, each its own type, made only by the functions here."""

import re
from typing import NewType

from weightvc.util.errors import BadInput, UsageError
from weightvc.util.text import printable

ObjectId = NewType("ObjectId", str)
"""SHA-256 of an object's stored bytes, 64 lower-case hexadecimal digits."""

Digest = NewType("Digest", str)
"""BLAKE3-256 of one tensor's dtype, shape and bytes, 64 lower-case hexadecimal digits."""

Version = NewType("Version", str)
"""SHA-256 over a checkpoint's sorted (name, digest) pairs, 64 lower-case hexadecimal digits."""

_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TASK = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}


def is_hex64(text: object) -> bool:
    """Tell whether ``text`` is 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and _HEX64.fullmatch(text) is not None


def hex64(text: object, where: str) -> str:
    """Return ``text`` if it is 64 lower-case hexadecimal digits, else raise :class:`BadInput`."""
    if not isinstance(text, str) or not is_hex64(text):
        raise BadInput(f"{where}: {printable(repr(text))[:80]} is not 64 hexadecimal digits")
    return text


def task_uuid(text: str, where: str) -> str:
    """Return ``text`` if it is a UUID in lower case (it names files), else raise :class:`BadInput`."""
    if _UUID.fullmatch(text) is None:
        raise BadInput(f"{where}: {text[:80]!r} is not a UUID")
    return text


def is_task_name(name: str) -> bool:
    """Tell whether ``name`` may name a task: also a file name that every platform and git accept."""
    bad = ".." in name or name.endswith((".", ".lock")) or name.split(".", maxsplit=1)[0] in _DEVICES
    return _TASK.fullmatch(name) is not None and not bad


def task_name(name: str, kind: str = "task") -> str:
    """Return ``name`` if it may name a task or a recipe; ``kind`` says which in the message.

    Raises:
        BadInput: it does not match ``[a-z0-9][a-z0-9._-]{0,63}``, holds ``..``, ends in ``.`` or ``.lock``, or
            is a reserved device name.
    """
    if not is_task_name(name):
        raise BadInput(
            f"{printable(name)!r} cannot name a {kind}",
            "use 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit, for example: customer-x",
        )
    return name


def parameter_name(name: str) -> str:
    """Return ``name`` if it may name a method parameter, else raise :class:`UsageError`."""
    if not name.isidentifier():
        raise UsageError(f"{printable(name)!r} is not a parameter name", "write -p KEY=VALUE")
    return name
