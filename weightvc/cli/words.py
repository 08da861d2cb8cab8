"""How commands call what a directory holds, so that all of them say it alike."""

from collections.abc import Collection, Mapping, Sequence

from weightvc.merge import table
from weightvc.objects.recipe import OWN, Scalar
from weightvc.util.errors import UsageError
from weightvc.util.text import counted


def model(
    tasks: Sequence[str],
    method: str,
    params: Mapping[str, object],
    dtype: str | None,
    *,
    rules: Collection[str] = (),
    exact: bool,
    lossy: Collection[str] = (),
) -> str:
    """Return a model in words: its tasks, and that it is bit for bit, or its method with what is not as usual.

    Args:
        tasks: Its tasks with their coefficients.
        method: Its merge method.
        params: The method's parameters.
        dtype: What the result is cast to, if it is.
        rules: The rules for tensors by name.
        exact: Whether it is a task, or the base, as it was added.
        lossy: The names of its lossy tasks.
    """
    made = " + ".join(tasks) or "the base"
    if exact:
        return f"{made} lossy" if lossy else f"{made} bit for bit"
    odd = [f"{key}={value}" for key, value in params.items() if value != _defaults(method).get(key)]
    odd += [counted(len(rules), "rule")] if rules else []
    odd += [f"dtype {dtype}" if dtype == OWN else dtype] if dtype else []
    by = f" by {method}" if tasks else ""
    return made + by + (f" ({', '.join(odd)})" if odd else "")


def _defaults(method: str) -> Mapping[str, Scalar]:
    try:
        return {param.name: param.default for param in table.describe(method).params}
    except UsageError:  # of a method that is not installed here
        return {}
