"""Git for neural-network weights.

>>> import weightvc
>>> repo = weightvc.open("path/to/repository")  # doctest: +SKIP

Everything here loads on first use: importing the package imports no torch, NumPy or git. ``__version__`` is the
installed version.
"""

import importlib

TYPE_CHECKING = False
"""As in ``typing``, whose import takes longer than Python's own start, and before which nothing answers Ctrl-C."""

if TYPE_CHECKING:
    from typing import Any

    from weightvc.repo.api import Repository, initialize
    from weightvc.util import errors

    open = Repository.open  # noqa: A001 -- weightvc.open, as gzip.open
    __version__: str

__all__ = ["Repository", "errors", "initialize", "open"]


def __getattr__(name: str) -> "Any":
    if name == "errors":
        return importlib.import_module("weightvc.util.errors")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("weightvc")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = importlib.import_module("weightvc.repo.api")
    return api.Repository.open if name == "open" else getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
