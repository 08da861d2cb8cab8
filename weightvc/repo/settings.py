"""Reading the settings of a clone."""

from pathlib import Path

from weightvc.objects.settings import Settings
from weightvc.repo.repository import Handle
from weightvc.util import toml
from weightvc.util.reading import read_file


def path(repo: Handle) -> Path:
    """Return where the settings are."""
    return repo.local / "config.toml"


def data(repo: Handle) -> bytes:
    """Return the file's bytes, none if there is none; raise :class:`Corrupt` for something else than a small file."""
    try:
        return read_file(path(repo), "move it away", toml.MAX_BYTES)
    except FileNotFoundError:
        return b""


def load(repo: Handle) -> Settings:
    """Return the settings; those of a clone without the file are the defaults.

    Raises:
        BadInput: the file holds something else.
    """
    return Settings.from_bytes(data(repo), str(path(repo)))
