"""Tables of what `wvc checkout --dry-run` would do with each tensor."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from weightvc.cli.context import columns, size
from weightvc.merge import table
from weightvc.objects.recipe import KEEP
from weightvc.util.text import listed

if TYPE_CHECKING:
    from weightvc.repo.explain import Line

_KEPT = "-"


def grouped(lines: "Iterable[Line]") -> list[str]:
    """Return a line for all tensors with which the same happens, for the same reason, by the same rule."""
    groups: dict[tuple[str, str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault(
            (line.rule, _method(line), line.why.partition(", tied")[0], line.pattern or _KEPT), []
        ).append(line)
    rows = [(str(len(held)), *key, *_bytes(held)) for key, held in sorted(groups.items())]
    return columns([("tensors", "what", "method", "why", "rule", "reads", "writes"), *rows], right=(0, 5, 6))


def each(lines: "Sequence[Line]") -> list[str]:
    """Return a line for each tensor."""
    head = ("tensor", "dtype", "shape", "what", "method", "tasks", "why", "rule", "reads", "writes")
    rows = [
        (
            line.name, line.dtype, "x".join(map(str, line.shape)), line.rule, _method(line),
            listed(line.tasks) or _KEPT, line.why, line.pattern or _KEPT, *_bytes([line]),
        )
        for line in lines
    ]  # fmt: skip
    return columns([head, *rows], right=(8, 9))


def _bytes(lines: "Sequence[Line]") -> tuple[str, str]:
    return size(sum(line.read_bytes for line in lines)), size(sum(line.bytes for line in lines))


def _method(line: "Line") -> str:
    if line.method is None or line.method == KEEP:
        return line.method or _KEPT
    return f"{line.method} (experimental)" if table.describe(line.method).experimental else line.method
