"""The settings of one clone, `<git common dir>/wvc/config.toml`: what a machine can afford, where its remotes are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from weightvc.util import fields, toml
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput, UsageError
from weightvc.util.text import printable

_REMOTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """``cache_bytes`` is what cached states may take on disk; ``None`` leaves that to wvc, 0 keeps none.

    ``remotes`` are the addresses of stores of objects, by name.
    """

    cache_bytes: int | None = None
    remotes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse the settings; raises :class:`BadInput` for invalid TOML, an unknown key or a wrong value."""
        try:
            doc = fields.mapping(toml.parse(data, where), where, (), ("cache", "remotes"))
            cache = fields.mapping(doc.get("cache", {}), where, (), ("max_bytes",))
            remotes = _remotes(doc.get("remotes", {}), f"{where}: remotes")
            return cls(fields.natural(cache["max_bytes"], f"{where}: max_bytes") if cache else None, remotes)
        except BadInput as error:
            raise BadInput(error.what, "correct the file, or delete it: all settings have defaults") from None


def _remotes(value: Json, where: str) -> dict[str, str]:
    table = fields.typed(value, dict, where)
    if wrong := [name for name in table if not _REMOTE.fullmatch(name)]:
        raise BadInput(f"{where}: {printable(wrong[0])!r} is no name of a remote")
    return {name: fields.typed(url, str, f"{where}: {name}") for name, url in table.items()}


def remote_name(name: str) -> str:
    """Return a name that a remote may have; raise :class:`UsageError` for any other."""
    if not _REMOTE.fullmatch(name):
        what = "letters, digits, dots, dashes and underscores, at most 64, a letter or a digit first"
        raise UsageError(f"{printable(name)[:80]!r} is no name of a remote", f"use {what}")
    return name
