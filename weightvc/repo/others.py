"""The other files of a model directory: which of them travel along with the weights that a checkout writes."""

from collections.abc import Collection
from dataclasses import dataclass

from weightvc.checkpoint.directory import is_weight_file
from weightvc.objects.manifest import Entry
from weightvc.objects.paths import clashing
from weightvc.repo.resolve import Resolved
from weightvc.util.text import listed

CARD = "README.md"
"""The card that a merge writes; the base's own is part of it."""


@dataclass(frozen=True)
class Others:
    """The files to write besides weights, and those left out because a file of the checkout's own takes their place."""

    kept: tuple[Entry, ...]
    displaced: tuple[str, ...]

    def describe(self) -> list[str]:
        """Return a sentence for each thing that a user should hear."""
        if not self.displaced:
            return []
        return [f"left out, because this checkout writes files of its own there: {listed(self.displaced)}"]


def choose(resolved: Resolved, own: Collection[str]) -> Others:
    """Choose among the files of a task or base that is given back as it is, or for a merge among the base's.

    Args:
        resolved: What is built.
        own: The paths of the files that the checkout makes itself: weights, heads, card, lock.
    """
    exact = resolved.exact
    files = (exact or resolved.state.base).files
    if exact is None:
        files = tuple(entry for entry in files if not _is_stale(entry.spec.name) and entry.spec.name != CARD)
    displaced = clashing((entry.spec.name for entry in files), own)
    gone = frozenset(displaced)
    return Others(tuple(entry for entry in files if entry.spec.name not in gone), tuple(displaced))


def _is_stale(name: str) -> bool:
    """Tell whether another file of the base holds weights that a merge has replaced.

    Safetensors and PyTorch files in subdirectories are modules of their own, such as a Dense head; all other weight
    formats are exports of the model itself.
    """
    module = "/" in name and name.endswith((".safetensors", ".bin"))
    return is_weight_file(name) and not module
