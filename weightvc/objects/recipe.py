"""Recipes: everything that decides a merged model, apart from the tasks' own bytes."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeAlias, get_args

import tomli_w

from weightvc.objects.ids import task_name
from weightvc.util import canon, fields, toml
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput, UsageError
from weightvc.util.text import listed, printable

SCHEMA = "weightvc/recipe/1"
DEFAULT_METHOD = "opcm-s"

OWN = "base"
"""The ``dtype`` of a merge in the base's own dtypes."""

KEEP = "base"
"""What a rule names instead of a method to keep the base's tensors."""

_RULE = re.compile(r"((?:[^\\=]|\\.)*)=([^:]*)(?::(.*))?", re.DOTALL)
_ITEM = re.compile(r"(?:[^\\,]|\\.?)+", re.DOTALL)
_HINT = "correct the file; `wvc recipe save` writes one to compare it with"

Scalar: TypeAlias = str | int | float | bool
"""What a method parameter can be."""

Mismatch: TypeAlias = Literal["error", "base"]
"""What to do with an integer tensor that several tasks changed in different ways."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A task and the coefficient that multiplies its task vector."""

    task: str
    coefficient: float = 1.0

    def __str__(self) -> str:
        return self.task if self.coefficient == 1.0 else f"{self.task}={self.coefficient!r}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``name`` or ``name=coefficient``.

        Raises:
            UsageError: the coefficient is not a finite number.
            BadInput: the name cannot name a task.
        """
        name, sep, number = text.strip().partition("=")
        try:
            coefficient = float(number) if sep else 1.0
        except ValueError:
            coefficient = math.nan
        if not math.isfinite(coefficient):
            raise UsageError(f"{printable(text)!r}: the coefficient is not a finite number", "write TASK=0.7")
        return cls(task_name(name), coefficient)


def parse_tasks(items: Iterable[str]) -> tuple[Weighted, ...]:
    """Parse a list of ``name[=coefficient]``; naming a task twice is a :class:`UsageError`."""
    tasks = tuple(Weighted.parse(item) for item in items)
    names = [weighted.task for weighted in tasks]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UsageError(f"named twice: {listed(twice)}", "give each task one coefficient")
    return tasks


def scalars(value: Json, where: str) -> dict[str, Scalar]:
    """Return ``value`` if it maps names to strings, booleans and finite numbers, else raise :class:`BadInput`."""
    params = fields.typed(value, dict, where)
    if bad := sorted(key for key, item in params.items() if not _is_scalar(item)):
        raise BadInput(f"{where}: parameters that are no text, boolean or finite number: {listed(bad)}")
    return params


def _is_scalar(item: Json) -> bool:
    return math.isfinite(item) if isinstance(item, float) else isinstance(item, str | int)


@dataclass(frozen=True, slots=True)
class NameRule:
    """What merges the tensors of some names: a method with its parameters, or :data:`KEEP`.

    ``pattern`` is a regular expression for whole names of the base's tensors, see :mod:`weightvc.util.regex`.
    """

    pattern: str
    method: str
    params: Mapping[str, Scalar] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the rule as :meth:`parse` reads it."""
        pattern = re.sub(r"(\\.)|=", lambda found: found[1] or r"\=", self.pattern, flags=re.DOTALL)
        params = ",".join(f"{key}={_escaped(value)}" for key, value in sorted(self.params.items()))
        return f"{pattern}={self.method}" + (f":{params}" if params else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Parse ``PATTERN=METHOD`` or ``PATTERN=METHOD:KEY=VALUE,…``.

        An equals sign in a pattern is written ``\=``, and a comma or a backslash in a value ``\,`` or ``\\``.

        Raises:
            UsageError: it is no such text, or names a parameter twice.
        """
        found = _RULE.fullmatch(text)
        if found is None or not found[1] or not found[2]:
            raise _no_rule(text)
        pattern = re.sub(r"\\(.)", lambda item: "=" if item[1] == "=" else item[0], found[1], flags=re.DOTALL)
        params: dict[str, Scalar] = {}
        for item in _ITEM.findall(found[3] or ""):
            key, sep, value = item.partition("=")
            if not sep or not key or key in params:
                raise _no_rule(text)
            params[key] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        return cls(pattern, found[2], params)

    def to_json(self) -> dict[str, Json]:
        """Return the rule as JSON; ``params`` is left out if empty."""
        value: dict[str, Json] = {"pattern": self.pattern, "method": self.method}
        return value | ({"params": dict(sorted(self.params.items()))} if self.params else {})

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse what :meth:`to_json` gives; raises :class:`BadInput`."""
        doc = fields.mapping(value, where, ("pattern", "method"), ("params",))
        pattern, method = (fields.typed(doc[key], str, where) for key in ("pattern", "method"))
        return cls(pattern, method, scalars(doc.get("params", {}), where))


def _escaped(value: Scalar) -> str:
    return re.sub(r"([\\,])", r"\\\1", str(value))


def _no_rule(text: str) -> UsageError:
    return UsageError(f"{printable(text)[:80]!r} is not a rule", "write PATTERN=METHOD, or PATTERN=METHOD:KEY=VALUE,…")


@dataclass(frozen=True)
class Recipe:
    """Ordered tasks with coefficients, a method with its parameters, and rules: by name, and two of the engine.

    The first of ``rules`` whose pattern matches a tensor's name says what merges it; ``method`` merges all others.
    ``dtype`` casts the floating-point tensors of the result. ``None`` keeps each tensor's own dtype, and so does
    :data:`OWN`, by which a task alone is merged into the base, too.
    """

    tasks: tuple[Weighted, ...]
    method: str = DEFAULT_METHOD
    params: Mapping[str, Scalar] = field(default_factory=dict)
    dtype: str | None = None
    on_int_mismatch: Mismatch = "error"
    rules: tuple[NameRule, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the recipe as JSON; optional members are left out at their defaults."""
        value: dict[str, Json] = {
            "schema": SCHEMA,
            "tasks": [str(weighted) for weighted in self.tasks],
            "method": self.method,
        }
        if self.dtype is not None:
            value["dtype"] = self.dtype
        if self.on_int_mismatch != "error":
            value["on_int_mismatch"] = self.on_int_mismatch
        if self.params:
            value["params"] = dict(sorted(self.params.items()))
        if self.rules:
            value["rules"] = [rule.to_json() for rule in self.rules]
        return value

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe's canonical JSON."""
        return hashlib.sha256(canon.dumps(self.to_json())).hexdigest()

    @property
    def cast(self) -> str | None:
        """The dtype that floating-point tensors are cast to, ``None`` if they keep the base's."""
        return None if self.dtype == OWN else self.dtype

    @property
    def exact_task(self) -> str | None:
        """The task that this recipe gives back bit for bit: the only one, at coefficient 1 and its own dtype."""
        alone = len(self.tasks) == 1 and self.tasks[0].coefficient == 1.0 and self.dtype is None
        return self.tasks[0].task if alone else None

    def without(self, names: Iterable[str]) -> "Recipe":
        """Return the recipe with the tasks ``names`` taken out."""
        gone = set(names)
        kept = tuple(weighted for weighted in self.tasks if weighted.task not in gone)
        return replace(self, tasks=kept, dtype=self.dtype if kept else self.cast)

    def to_bytes(self) -> bytes:
        """Return the recipe as TOML; a :class:`BadInput` if that would be longer than what :meth:`from_bytes` takes."""
        data = tomli_w.dumps(self.to_json(), multiline_strings=False).encode()
        if len(data) > toml.MAX_BYTES:
            what = f"the recipe takes {len(data)} bytes, more than the limit of {toml.MAX_BYTES}"
            raise BadInput(what, "use fewer or shorter rules and parameters")
        return data

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse a recipe file. People write these by hand, so any valid TOML spelling will do.

        Raises:
            BadInput: no recipe, with the reason.
            Unsupported: a newer schema.
        """
        try:
            return cls.from_json(toml.parse(data, where), where)
        except BadInput as error:
            raise BadInput(error.what, error.hint or _HINT) from None

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Parse what :meth:`to_json` gives; raises as :meth:`from_bytes`."""
        fields.schema(value, SCHEMA, where)
        doc = fields.mapping(
            value, where, ("schema", "tasks", "method"), ("params", "dtype", "on_int_mismatch", "rules")
        )
        mismatch = doc.get("on_int_mismatch", "error")
        if mismatch not in get_args(Mismatch):
            raise BadInput(f"{where}: on_int_mismatch is one of {listed(get_args(Mismatch))}")
        items = [fields.typed(item, str, where) for item in fields.typed(doc["tasks"], list, where)]
        try:
            tasks = parse_tasks(items)
        except (BadInput, UsageError) as error:
            raise BadInput(fields.located(error.what, where), error.hint) from None
        return cls(
            tasks=tasks,
            method=fields.typed(doc["method"], str, where),
            params=scalars(doc.get("params", {}), where),
            dtype=fields.optional(doc.get("dtype"), str, where),
            on_int_mismatch=mismatch,
            rules=tuple(NameRule.from_json(item, where) for item in fields.typed(doc.get("rules", []), list, where)),
        )
