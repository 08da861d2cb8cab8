"""Opening the file system of an address, through fsspec and the driver that its scheme needs."""

from importlib import import_module

import fsspec

from weightvc.remote.url import DRIVERS, ObjectUrl
from weightvc.util.errors import RemoteError, RequestError


def filesystem(url: ObjectUrl) -> fsspec.AbstractFileSystem:
    """Return the file system of an address that is not on this machine.

    Credentials, endpoints and regions are those of the environment, as the driver's own documentation has them.

    Raises:
        RequestError: the driver is not installed.
        RemoteError: it does not start with what the environment says.
    """
    driver = DRIVERS[url.scheme]
    try:
        import_module(driver.module)
    except ImportError as error:
        raise RequestError(
            f"{url} needs {driver.module}, which cannot be imported ({error})",
            f"run `pip install 'weightvc[{driver.extra}]'`",
        ) from None
    host = {"host": url.path.partition("/")[0]} if url.scheme == "sftp" else {}
    try:
        return fsspec.filesystem(driver.protocol, use_listings_cache=False, skip_instance_cache=True, **host)
    except Exception as error:  # noqa: BLE001 -- whatever the driver's library raises
        raise RemoteError(f"{url} cannot be opened: {error}", "look at the credentials in the environment") from None
