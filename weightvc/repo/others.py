"""The other files of a model directory: which of them travel along with the weights that a checkout writes."""

from collections.abc import Collection
from dataclasses import dataclass

from weightvc.checkpoint.directory import is_stale
from weightvc.objects.manifest import Entry
from weightvc.objects.paths import clashing
from weightvc.repo.resolve import Resolved
from weightvc.util.text import listed

CARD = "README.md"
"""The card that a merge writes; the base's own is part of it."""


CONFIG = "config.json"
"""Where a model's configuration is, by the custom of transformers; it may name the dtype that loaders cast to."""


@dataclass(frozen=True)
class Others:
    """The files to write besides weights, and the paths of those that are left out.

    ``stale`` ones hold weights that the merge replaces; a file of the checkout's own takes the place of ``displaced``.
    ``cast`` is the dtype that weights are cast to, if a file that is kept may name another.
    """

    kept: tuple[Entry, ...]
    stale: tuple[str, ...]
    displaced: tuple[str, ...]
    cast: str | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Every path that is left out, sorted."""
        return tuple(sorted(self.stale + self.displaced))

    def describe(self) -> list[str]:
        """Return a sentence for each thing that a user should hear."""
        reasons = (
            ("they hold weights or a training state of the base, not of the merge", self.stale),
            ("this checkout writes files of its own there", self.displaced),
        )
        said = [f"left out, because {why}: {listed(paths)}" for why, paths in reasons if paths]
        return [*said, *([f"{CONFIG} is the base's, and may name another dtype than {self.cast}"] if self.cast else [])]


def choose(resolved: Resolved, own: Collection[str]) -> Others:
    """Choose among the files of a task or base that is given back as it is, or for a merge among the base's.

    Args:
        resolved: What is built.
        own: The paths of the files that the checkout makes itself: weights, heads, card, lock.
    """
    exact = resolved.exact
    files = (exact or resolved.state.base).files
    names = [entry.spec.name for entry in files if exact is not None or entry.spec.name != CARD]
    stale = () if exact is not None else tuple(filter(is_stale, names))
    carried = set(names).difference(stale)
    displaced = clashing(sorted(carried), own)
    kept = carried.difference(displaced)
    cast = resolved.recipe.cast if CONFIG in kept else None
    return Others(tuple(entry for entry in files if entry.spec.name in kept), stale, tuple(displaced), cast)
