"""Third-party parts, found by name among the entry points of installed packages."""

from functools import cache
from importlib import metadata
from typing import Any

from weightvc.util.errors import NotFound
from weightvc.util.text import printable


@cache
def load(group: str, name: str) -> Any:
    """Import and return what the entry point ``name`` of ``group`` refers to; once, then remembered.

    Raises:
        NotFound: no installed package has such an entry point.
    """
    for entry in metadata.entry_points(group=group, name=name):
        return entry.load()
    raise NotFound(f"no installed package provides {printable(name)[:80]!r} in {group}")
