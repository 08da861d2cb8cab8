"""What changed between two versions of a task's manifest: the task, or only where its bytes are."""

import json
from typing import Any

_LISTS = ("tensors", "files", "headers")
_PLACE = ("codec", "object", "size", "part")


def only_stored(before: bytes | None, after: bytes) -> bool:
    """Tell whether two manifest files differ in the places of their entries only.

    They are read as JSON and not checked, so that the log shows history which this version cannot read otherwise.
    """
    try:
        old, new = (_placeless(json.loads(data or b"{}")) for data in (before, after))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return False
    return bool(old == new)


def _placeless(document: dict[str, Any]) -> dict[str, Any]:
    lists = {
        name: [{key: value for key, value in entry.items() if key not in _PLACE} for entry in document[name]]
        for name in _LISTS
    }
    return document | lists
