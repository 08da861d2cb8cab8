"""Trying again what a network or a busy server let fail."""

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from weightvc.util.errors import RemoteError, WeightvcError

T = TypeVar("T")

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between two tries, each more or less by up to a half: many clients must not come back all at once."""

_random = secrets.SystemRandom()
_LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, WeightvcError)


def tried(where: str, job: Callable[[], T]) -> T:
    """Return what ``job`` does, which may be done again.

    Raises:
        RemoteError: it failed after the last pause, too, or access was denied.
    """
    for pause in (*PAUSES, None):
        try:
            return job()
        except _LASTING:
            raise
        except PermissionError as error:
            raise RemoteError(
                f"{where}: access denied ({error})", "look at the credentials in the environment"
            ) from None
        except Exception as error:  # noqa: BLE001 -- whatever the driver's library raises
            if pause is None:
                said = str(error) or type(error).__name__
                raise RemoteError(f"{where}: {said}", "try again; what has arrived is not sent again") from None
        time.sleep(pause * _random.uniform(0.5, 1.5))
    raise AssertionError
