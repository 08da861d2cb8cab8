"""Trying again what a network or a busy server let fail."""

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from weightvc.util.errors import RemoteError, WeightvcError

T = TypeVar("T")

PAUSES = (0.5, 2.0)
"""Seconds between two tries, each more or less by up to a half: many clients must not come back all at once.

Drivers try again by themselves before that.
"""

_ENVIRONMENT = "look at the credentials and the endpoint in the environment"
_SETTINGS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
"""What boto's and Google's libraries raise for settings that are not there, without a class of errors in common."""

_random = secrets.SystemRandom()
_LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, WeightvcError)


def tried(where: str, job: Callable[[], T], *, denied: bool = True) -> T:
    """Return what ``job`` does, which may be done again.

    Args:
        where: What to call the other side in errors.
        job: What is to be done.
        denied: Whether a lack of rights is an error of the remote, and not passed on as it is.

    Raises:
        RemoteError: it failed after the last pause, too, or access was denied.
    """
    for pause in (*PAUSES, None):
        try:
            return job()
        except _LASTING:
            raise
        except PermissionError as error:
            if not denied:
                raise
            raise RemoteError(f"{where}: access denied ({error})", _ENVIRONMENT) from None
        except ValueError as error:  # such as an address that is none
            raise RemoteError(f"{where}: {error}", _ENVIRONMENT) from None
        except Exception as error:  # noqa: BLE001 -- whatever the driver's library raises
            if type(error).__name__ in _SETTINGS:
                raise RemoteError(f"{where}: {error}", _ENVIRONMENT) from None
            if pause is None:
                said = str(error) or type(error).__name__
                raise RemoteError(f"{where}: {said}", "try again; what has arrived is not sent again") from None
        time.sleep(pause * _random.uniform(0.5, 1.5))
    raise AssertionError
