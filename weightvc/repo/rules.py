"""Which method merges which tensor: the recipe's own, or that of its first rule that matches the tensor's name."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, cast

from weightvc.merge import table
from weightvc.objects.recipe import KEEP, NameRule, Recipe
from weightvc.util.errors import NotFound, UsageError
from weightvc.util.regex import Pattern
from weightvc.util.text import counted, listed, printable

if TYPE_CHECKING:  # it needs torch, and recipes are kept without
    from weightvc.merge.joint import Joint
    from weightvc.merge.method import Fold

MAX_RULES = 100
"""Most rules of a recipe."""

_FEW = 3
_COMPARED = 2000
"""Names that a pattern which matches none is compared with."""


@dataclass(frozen=True)
class Methods:
    """The methods of a recipe: its own, and those of its rules, in their order, with the patterns that they go by."""

    own: "Fold | Joint"
    rules: "tuple[tuple[Pattern, Fold | Joint], ...]" = ()

    def rule(self, names: Iterable[str]) -> int | None:
        """Return the position of the first rule that matches one of the names that a tensor has."""
        held = tuple(names)
        return next((at for at, (pattern, _) in enumerate(self.rules) if any(map(pattern.matches, held))), None)

    def at(self, rule: int | None) -> "Fold | Joint":
        """Return the method of a rule, or the recipe's own for ``None``."""
        return self.own if rule is None else self.rules[rule][1]

    @property
    def every(self) -> "tuple[Fold | Joint, ...]":
        """Each of them once: methods that are equal in all parameters are one."""
        return tuple(dict.fromkeys((self.own, *(method for _, method in self.rules))))

    @property
    def neutral(self) -> bool:
        """Whether all of them leave a single task vector at coefficient 1 as it is."""
        return all(map(_is_neutral, self.every))


def create(recipe: Recipe) -> Methods:
    """Return the methods of a recipe; raises as :func:`complete`."""
    _refuse_many(recipe)
    own = table.create(recipe.method, recipe.params)
    return Methods(own, tuple((_pattern(rule), _method(rule)) for rule in recipe.rules))


def complete(recipe: Recipe) -> Recipe:
    """Return a recipe with all parameters of its methods, as locks have it, loading no tensors.

    Raises:
        UsageError: an unknown method or parameter, a value out of range, what is no pattern, or too many rules.
    """
    _refuse_many(recipe)
    params = table.check(recipe.method, recipe.params)
    return replace(recipe, params=params, rules=tuple(map(checked, recipe.rules)))


def checked(rule: NameRule) -> NameRule:
    """Return a rule with all parameters of its method; raises as :func:`complete`."""
    _pattern(rule)
    if rule.method == KEEP:
        if rule.params:
            raise UsageError(f"{_label(rule)}: {KEEP} keeps the base's tensors, without parameters", "leave them out")
        return rule
    try:
        return replace(rule, params=table.check(rule.method, rule.params))
    except UsageError as error:
        raise UsageError(f"{_label(rule)}: {error.what}", error.hint) from None


def refuse_idle(recipe: Recipe, methods: Methods, names: Collection[str]) -> None:
    """Raise :class:`NotFound` if a rule decides about none of the base's tensors, as after a slip in its pattern.

    Args:
        recipe: The recipe.
        methods: What :func:`create` makes of it.
        names: The names of the base's tensors.
    """
    used = {methods.rule([name]) for name in names} if methods.rules else set()
    for at, (rule, (pattern, _)) in enumerate(zip(recipe.rules, methods.rules, strict=True)):
        if at in used:
            continue
        if matched := sum(map(pattern.matches, names)):
            what = f"rules before it match the {counted(matched, 'tensor')} that it matches"
            raise NotFound(
                f"{_label(rule)} decides nothing: {what}", "put it before them; the first rule that matches decides"
            )
        raise NotFound(f"{_label(rule)} matches no tensor of the base", _near(rule.pattern, names))


def _refuse_many(recipe: Recipe) -> None:
    if len(recipe.rules) > MAX_RULES:
        raise UsageError(f"{len(recipe.rules)} rules, more than the limit of {MAX_RULES}", "join some of them with |")


def _near(pattern: str, names: Collection[str]) -> str:
    """Return what to do about a pattern that matches no name: name some that it may have meant."""
    whole = "a pattern is for the whole name"
    try:
        wider = Pattern(f".*(?:{pattern}).*")
    except ValueError:
        held = []
    else:
        held = [name for name in names if wider.matches(name)]
    if held:
        return f"{whole}; with .* around it, it would match {listed(held, _FEW)}"
    plain = re.sub(r"\\(.)|[^\w.-]", r"\1", pattern)
    near = get_close_matches(plain, list(names)[:_COMPARED], _FEW, 0.3) or sorted(names)[:_FEW]
    return f"{whole}; some names are {listed(near, _FEW)}"


def _label(rule: NameRule) -> str:
    return f"rule '{printable(rule.pattern)[:80]}'"


def _pattern(rule: NameRule) -> Pattern:
    try:
        return Pattern(rule.pattern)
    except ValueError as error:
        hint = "a pattern is a regular expression for whole names of tensors"
        raise UsageError(f"{_label(rule)}: {error}", hint) from None


def _method(rule: NameRule) -> "Fold | Joint":
    if rule.method == KEEP:
        return cast("Fold", import_module("weightvc.merge.keep").Keep())
    try:
        return table.create(rule.method, rule.params)
    except UsageError as error:
        raise UsageError(f"{_label(rule)}: {error.what}", error.hint) from None


def _is_neutral(method: "Fold | Joint") -> bool:
    if (neutral := getattr(method, "neutral", None)) is not None:
        return bool(neutral)
    method = cast("Fold", method)
    return method.coefficients([1.0]) == (1.0,) and (method.scaled or method.scale((), 0.0) == 1.0)
