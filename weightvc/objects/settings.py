"""The settings of one clone, `<git common dir>/wvc/config.toml`: what a machine can afford, never what a model is."""

from dataclasses import dataclass
from typing import Self

from weightvc.util import fields, toml
from weightvc.util.errors import BadInput


@dataclass(frozen=True)
class Settings:
    """``cache_bytes`` is what cached states may take on disk; ``None`` leaves that to wvc, 0 keeps none."""

    cache_bytes: int | None = None

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse the settings; raises :class:`BadInput` for invalid TOML, an unknown key or a wrong value."""
        try:
            doc = fields.mapping(toml.parse(data, where), where, (), ("cache",))
            cache = fields.mapping(doc.get("cache", {}), where, (), ("max_bytes",))
            return cls(fields.natural(cache["max_bytes"], f"{where}: max_bytes") if cache else None)
        except BadInput as error:
            raise BadInput(error.what, "correct the file, or delete it: all settings have defaults") from None
