"""Reading fields out of parsed JSON, strictly: exact keys, exact types, no coercion."""

from collections.abc import Collection
from typing import TypeVar

from weightvc.util.canon import Json
from weightvc.util.errors import BadInput, Unsupported
from weightvc.util.text import listed, printable

T = TypeVar("T")


def schema(value: Json, known: str, where: str) -> None:
    """Raise :class:`Unsupported` if ``value`` is an object whose ``schema`` is another than ``known``.

    An object with no schema at all is not from the future but broken: :func:`mapping` says so.
    """
    if isinstance(value, dict) and (found := value.get("schema", known)) != known:
        raise Unsupported(f"{where}: schema {str(found)[:60]!r}; this wvc reads {known}", "upgrade weightvc")


def located(what: str, where: str) -> str:
    """Return the message ``what`` with ``where`` before it, unless it begins so already."""
    return what if what.startswith(where) else f"{where}: {what}"


def mapping(value: Json, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Json]:
    """Return ``value`` if it is an object with all ``required`` keys and no others than ``optional`` ones."""
    if not isinstance(value, dict):
        raise BadInput(f"{where}: an object was expected")
    if lacking := sorted(set(required) - value.keys()):
        raise BadInput(f"{where}: no {listed(lacking)}")
    if unknown := sorted(value.keys() - set(required) - set(optional)):
        raise BadInput(f"{where}: unknown {listed(unknown)}")
    return value


def typed(value: Json, kind: type[T], where: str) -> T:
    """Return ``value`` if its type is exactly ``kind`` (a ``bool`` is no ``int``)."""
    if type(value) is not kind:
        raise BadInput(f"{where}: {printable(repr(value))[:60]} is not of type {kind.__name__}")
    return value


def natural(value: Json, where: str) -> int:
    """Return ``value`` if it is a non-negative integer."""
    if typed(value, int, where) < 0:
        raise BadInput(f"{where}: {value} is negative")
    return int(value)


def optional(value: Json, kind: type[T], where: str) -> T | None:
    """Return ``value`` if it is ``None`` or exactly of type ``kind``."""
    return None if value is None else typed(value, kind, where)
