"""Addresses of remotes: which are taken, and what each one needs installed.

An address says where objects are and nothing more. Credentials and endpoints come from the environment, so that none
is ever written into a repository; what fsspec would chain or run (``simplecache::…``, ``ext::…``) is no address here.
"""

import os
import re
from dataclasses import dataclass
from typing import Self

from weightvc.util.errors import BadInput
from weightvc.util.text import listed, printable


@dataclass(frozen=True, slots=True)
class Driver:
    """What reaches the remotes of one scheme.

    Attributes:
        protocol: fsspec's name of it.
        module: The module that has to be there.
        extra: The extra of this package that installs it.
    """

    protocol: str
    module: str
    extra: str


LOCAL = "file"
DRIVERS = {
    "s3": Driver("s3", "s3fs", "s3"),
    "gs": Driver("gs", "gcsfs", "gcs"),
    "az": Driver("az", "adlfs", "azure"),
    "hf": Driver("hf", "huggingface_hub", "hf"),
    "sftp": Driver("sftp", "paramiko", "sftp"),
}
"""By the scheme of an address; ``file`` needs none."""

SCHEMES = (LOCAL, *DRIVERS)
_LONGEST = 1024
_PLAIN = r"[^\s:?#%\\\x00-\x20\x7f]+"
_SHAPE = re.compile(rf"(?P<scheme>[a-z][a-z0-9]*)://(?P<rest>{_PLAIN}(?::[0-9]{{1,5}}(?=/){_PLAIN})?)")


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """An address that may be used.

    Attributes:
        scheme: One of ``SCHEMES``.
        path: What stands after ``://``, without a slash at its end: bucket and prefix, host and path, or an
            absolute path.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        """Return the address as it is written."""
        return f"{self.scheme}://{self.path}"

    @classmethod
    def parse(cls, text: str, *, tracked: bool = False) -> Self:
        """Check an address.

        Args:
            text: ``scheme://…``, or a path of this machine.
            tracked: It comes from a file that travels with the repository: then no path of this machine is taken,
                since it would be one that a stranger chose.

        Raises:
            BadInput: it is not such an address, or says more than where the objects are.
        """
        if not tracked and (local := _local(text)) is not None:
            return cls(LOCAL, local)
        found = _SHAPE.fullmatch(text) if len(text) <= _LONGEST else None
        allowed = tuple(DRIVERS)
        if found is None or found["scheme"] not in allowed:
            known = allowed if tracked else SCHEMES
            raise BadInput(
                f"{printable(text)[:80]!r} is no address of a remote",
                f"write SCHEME://PATH, with one of {listed(known)}; credentials come from the environment",
            )
        return cls(found["scheme"], _placed(found["scheme"], found["rest"].rstrip("/"), text))


def _local(text: str) -> str | None:
    """Return the absolute path that an address on this machine stands for; ``None`` if it is another one."""
    if text.startswith(f"{LOCAL}://"):
        path = text.removeprefix(f"{LOCAL}://")
        if not path.startswith("/"):
            raise BadInput(f"{printable(text)[:80]!r} names a host", "write file:///absolute/path, or the path alone")
    elif text and "://" not in text and "::" not in text:
        path = os.path.abspath(text)
    else:
        return None
    if not path.isprintable():
        raise BadInput(f"{printable(text)[:80]!r} has characters that cannot be shown", "rename the directory")
    if any(part in {".", ".."} for part in path.split("/")):
        raise BadInput(f"{printable(text)[:80]!r} has a part of dots", "give the absolute path")
    return path.rstrip("/") or "/"


def _placed(scheme: str, path: str, text: str) -> str:
    user, at, _ = path.partition("/")[0].rpartition("@")
    if at and (scheme != "sftp" or not user):
        raise BadInput(
            f"{printable(text)[:80]!r} names a user", "credentials come from the environment, never from an address"
        )
    if any(part in {".", "..", ""} for part in path.split("/")):
        raise BadInput(f"{printable(text)[:80]!r} has an empty part, or one of dots", "write the path out")
    return path
