"""The tracked settings of a repository, `.wvc/config.toml`: an allow-list, never credentials or commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import tomli_w

from weightvc.objects.recipe import DEFAULT_METHOD, Scalar, scalars
from weightvc.util import fields, toml
from weightvc.util.errors import BadInput, Unsupported

FORMAT = 1


@dataclass(frozen=True)
class Config:
    """The repository's format version and the method that `checkout` uses when none is named."""

    method: str = DEFAULT_METHOD
    params: Mapping[str, Scalar] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the settings as TOML."""
        return tomli_w.dumps({"format": FORMAT, "merge": {"method": self.method, "params": dict(self.params)}}).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse the settings.

        Raises:
            Unsupported: the repository has a newer format.
            BadInput: invalid TOML, an unknown key or a value of the wrong type.
        """
        try:
            return cls._parse(data, where)
        except BadInput as error:
            raise BadInput(error.what, "correct the file and commit it with git") from None

    @classmethod
    def _parse(cls, data: bytes, where: str) -> Self:
        doc = toml.parse(data, where)
        version = fields.typed(doc.get("format"), int, f"{where}: format")
        if version != FORMAT:
            raise Unsupported(
                f"{where}: repository format {version}; this wvc reads format {FORMAT}", "upgrade weightvc"
            )
        fields.mapping(doc, where, ("format",), ("merge",))
        merge = fields.mapping(doc.get("merge", {}), where, (), ("method", "params"))
        method = fields.typed(merge.get("method", DEFAULT_METHOD), str, where)
        return cls(method, scalars(merge.get("params", {}), where))
