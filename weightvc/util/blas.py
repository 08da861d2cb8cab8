"""One thread for each call into the BLAS that NumPy brings."""

from contextlib import AbstractContextManager

import numpy  # noqa: ICN001, F401 -- its BLAS is found among the libraries that are loaded
from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """Keep NumPy's BLAS to the calling thread; the setting is the process's, and as before at the end.

    By default it starts a thread a core in each of the workers, which then wait for each other. And what it sums
    depends on how many threads it has.
    """
    limits: AbstractContextManager[object] = ThreadpoolController().limit(limits=1, user_api="blas")
    return limits
