"""How commands call what a directory holds, so that all of them say it alike."""

from collections.abc import Mapping, Sequence

from weightvc.merge import table
from weightvc.objects.recipe import Scalar
from weightvc.util.errors import UsageError


def model(tasks: Sequence[str], method: str, params: Mapping[str, object], dtype: str | None, *, exact: bool) -> str:
    """Return a model in words: its tasks, and that it is bit for bit, or its method with what is not as usual."""
    made = " + ".join(tasks) or "the base"
    if exact:
        return f"{made} bit for bit"
    odd = [f"{key}={value}" for key, value in params.items() if value != _defaults(method).get(key)]
    odd += [dtype] if dtype else []
    by = f" by {method}" if tasks else ""
    return made + by + (f" ({', '.join(odd)})" if odd else "")


def _defaults(method: str) -> Mapping[str, Scalar]:
    try:
        return {param.name: param.default for param in table.describe(method).params}
    except UsageError:  # of a method that is not installed here
        return {}
