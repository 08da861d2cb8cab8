"""Who may use the store at a time: any number of commands that add to it or build from it, or one that deletes.

Git's history is guarded by another lock, for moments. This one is held for as long as a command works: from the first
object that it puts until something refers to it. The kernel frees it when a process dies.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from weightvc.repo.repository import Handle
from weightvc.util import fsio, scratch
from weightvc.util.errors import Conflict

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def using(repo: Handle) -> Iterator[None]:
    """Keep everybody from deleting objects in the block; waits for one who does, and sweeps what killed commands left.

    Where nothing can be written, nothing can be deleted either, and nothing is locked; nor where there is nothing yet.
    """
    with ExitStack() as stack:
        try:
            if os.path.lexists(repo.local):
                fsio.check_plain(repo.local)
                stack.enter_context(fsio.locked(repo.lock, shared=True))
                scratch.sweep_files(repo.tmp)
        except OSError as error:
            if error.errno not in fsio.READ_ONLY:
                raise
        yield


@contextmanager
def alone(repo: Handle) -> Iterator[None]:
    """Keep everybody else from the store in the block.

    Raises:
        Conflict: another command uses it.
    """
    fsio.make_plain(repo.local)
    with ExitStack() as stack:
        try:
            stack.enter_context(fsio.locked(repo.lock, shared=False, wait=False))
        except Conflict:
            raise Conflict("another wvc command is at work in this repository", "try again when it has ended") from None
        yield


def guarded(case: Callable[Concatenate[Handle, P], R]) -> Callable[Concatenate[Handle, P], R]:
    """Have a use case run in :func:`using`."""

    @wraps(case)
    def held(repo: Handle, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with using(repo):
            return case(repo, *args, **kwargs)

    return held
