"""What ``codec.py`` holds the codec to: each bar a ratio, its limit, and whether it binds the run."""

from collections.abc import Mapping
from dataclasses import dataclass

from pairs import Pair

SMALL = 0.12
"""Share of the raw bytes below which the plane entropy leaves a coder's tables little to hide behind."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One ratio and its limit.

    Args:
        what: What is compared, on which model.
        value: The ratio; ``None`` when a part of it could not be measured.
        limit: Where it passes.
        most: Whether the limit is the most allowed; else it is the least.
        binds: Whether missing it fails the run; else it is only printed.
    """

    what: str
    value: float | None
    limit: float
    most: bool = True
    binds: bool = True

    @property
    def missed(self) -> bool:
        """Whether it is not met, or not known."""
        return self.value is None or (self.value > self.limit if self.most else self.value < self.limit)

    def __str__(self) -> str:
        """Return its line in the report."""
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        verdict = "MISSED" if self.missed else "met"
        note = "" if self.binds else " (does not bind)"
        return f"{self.what:<66}{value:>13} {'<=' if self.most else '>='} {self.limit:<7.2f}{verdict}{note}"


def over(sizes: Mapping[str, float], one: str, other: str) -> float | None:
    """Return one size over another, ``None`` when either is not there."""
    if one not in sizes or not sizes.get(other):
        return None
    return sizes[one] / sizes[other]


def of_sizes(pair: Pair, sizes: Mapping[str, float], *, quick: bool) -> list[Bar]:
    """Return the bars of one model's sizes.

    Args:
        pair: The model.
        sizes: Bytes by column.
        quick: MiniLM learned for a few steps only, so its bars do not bind.
    """
    if pair.source == "lora":
        bar = Bar(f"{pair.name}: default / fast", over(sizes, "default", "fast"), 0.25, binds=not quick)
        return [bar]
    binds = pair.source == "rxnfp" or not quick
    limit = 1.20 if sizes["entropy"] < SMALL * sizes["raw"] else 1.05
    found = [Bar(f"{pair.name}: default / plane entropy", over(sizes, "default", "entropy"), limit, binds=binds)]
    if pair.source != "minilm" or pair.dtype == "F16":
        return found
    full = pair.dtype == "F32"
    xor = (0.80 if pair.decay else 0.97) if full else 0.90
    found += [
        Bar(f"{pair.name}: default / XOR + planes + zstd -3", over(sizes, "default", "xor"), xor, binds=binds),
        Bar(f"{pair.name}: default / zipnn", over(sizes, "default", "zipnn"), 0.55 if full else 0.33, binds=binds),
    ]
    if pair.dtype == "BF16":
        ratio = over(sizes, "best", "context")
        found.append(Bar(f"{pair.name}: best / entropy given the base's exponent", ratio, 1.08, binds=binds))
    return found
