"""Git for neural-network weights.

>>> import weightvc
>>> repo = weightvc.open("path/to/repository")  # doctest: +SKIP

Everything here loads on first use: importing the package imports no torch, NumPy or git.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightvc.repo.api import Repository, initialize
    from weightvc.util import errors

    open = Repository.open  # noqa: A001 -- weightvc.open, as gzip.open

__all__ = ["Repository", "errors", "initialize", "open"]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("weightvc.util.errors")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = importlib.import_module("weightvc.repo.api")
    return api.Repository.open if name == "open" else getattr(api, name)
