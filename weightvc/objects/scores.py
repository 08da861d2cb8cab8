"""What an evaluator said of a task when it was added: a part of its manifest."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from weightvc.util import fields
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput
from weightvc.util.text import printable

MAX_NAME = 100
"""Characters of a score's name."""

MAX_SCORES = 1000

_NUMBERS = ("base", "tuned", "stored")


@dataclass(frozen=True, slots=True)
class Score:
    """One score of three models, higher is better; finite numbers in the evaluator's own unit.

    Attributes:
        name: What the evaluator calls it.
        base: Of the base.
        tuned: Of the fine-tune that was added.
        stored: Of what comes back. Where no tensor is lossy that is what was added, and the number the same.
    """

    name: str
    base: float
    tuned: float
    stored: float

    @property
    def kept(self) -> float | None:
        """The share of the gain over the base that is kept; ``None`` where there is no gain, or no number for it."""
        gain = self.tuned - self.base
        kept = (self.stored - self.base) / gain if gain > 0 else math.nan
        return kept if math.isfinite(kept) else None

    def __str__(self) -> str:
        """Return the figures as people read them."""
        kept = "no gain to keep" if self.kept is None else f"{100 * self.kept:.1f} % of the gain kept"
        return f"base {self.base:g}, tuned {self.tuned:g}, stored {self.stored:g}: {kept}"

    def to_json(self) -> dict[str, Json]:
        """Return the score as JSON."""
        return {"name": self.name, "base": self.base, "tuned": self.tuned, "stored": self.stored}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse a score; raises :class:`BadInput`."""
        line = fields.mapping(value, where, ("name", *_NUMBERS))
        name = fields.typed(line["name"], str, where)
        if not is_name(name):
            raise BadInput(f"{where}: {printable(name)[:80]!r} cannot name a score")
        numbers = {key: fields.typed(line[key], float, where) for key in _NUMBERS}
        if any(number == 0 and math.copysign(1, number) < 0 for number in numbers.values()):
            raise BadInput(f"{where}: a score of -0.0")
        return cls(name, **numbers)


def is_name(text: str) -> bool:
    """Tell whether ``text`` can name a score: printable, and not long."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def noted(scores: Iterable[Score]) -> str:
    """Return the scores as the end of a sentence; nothing if there are none."""
    return "".join(f"; {score.name}: {score}" for score in scores)


def to_member(scores: Iterable[Score]) -> dict[str, Json]:
    """Return the member of a manifest that holds the scores; none if there are none."""
    lines = [score.to_json() for score in scores]
    return {"scores": lines} if lines else {}


def of_document(document: Mapping[str, Json], where: str) -> tuple[Score, ...]:
    """Parse the scores of a manifest, whose other members have been parsed before; raises :class:`BadInput`."""
    if "scores" not in document:
        return ()
    lines = fields.typed(document["scores"], list, where)
    where = f"{where}: scores"
    if document["task"] is None or not 0 < len(lines) <= MAX_SCORES:
        raise BadInput(f"{where}: only a task has scores, from 1 to {MAX_SCORES}")
    scores = tuple(Score.from_json(line, where) for line in lines)
    if any(a.name >= b.name for a, b in itertools.pairwise(scores)):
        raise BadInput(f"{where}: names are not sorted and distinct")
    lossy = any("lossy" in line for line in document["tensors"])
    if not lossy and (odd := next((score.name for score in scores if score.stored != score.tuned), None)):
        raise BadInput(f"{where}: {odd!r} changed, though all tensors come back as they were added")
    return scores
