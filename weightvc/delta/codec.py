"""Codecs: how the words of one tensor become bytes and come back.

Built-in codecs stand in :data:`CODECS`; others are found by name in the entry-point group ``weightvc.codecs`` at
first use. Headers, checksums, chunks and ranges are the same for all of them: :mod:`weightvc.delta.encoding`.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, Protocol, Self, TypeAlias

from weightvc.delta.container import CHUNK
from weightvc.delta.full import Full
from weightvc.delta.intdelta import IntDelta
from weightvc.delta.lossy.grid import Int2, Int4, Int8
from weightvc.delta.lossy.signs import BitDelta, TSwitch
from weightvc.delta.lossy.skillpack import SkillPack
from weightvc.delta.lossy.svd import Svd, of_rank
from weightvc.delta.pair import Pair
from weightvc.delta.raw import Raw
from weightvc.delta.words import Words
from weightvc.objects.tensors import TensorSpec
from weightvc.util import plugins
from weightvc.util.errors import NotFound, Unsupported
from weightvc.util.text import meant, printable

__all__ = ["CHUNK", "CODECS", "FAMILIES", "GROUP", "Codec", "Level", "codec_named"]

GROUP = "weightvc.codecs"

Level: TypeAlias = Literal["fast", "default", "best"]
"""How hard to try: no look at the whole tensor, a look at a sample, or whatever makes it smallest."""


class Codec(Protocol):
    """Encodes and decodes the chunks of one tensor. Immutable, so that any number of threads may use one.

    An instance is made for a tensor, by :meth:`fit` to encode it or by :meth:`parse` to decode it. Whatever the two
    must agree on beyond the base's words is in :attr:`side`.

    Laws: decoding gives back the target bit for bit, or, if the codec is lossy, always the same tensor, whose values
    are finite and whose rows that did not move are the target's; the same pair gives the same bytes, in every thread;
    an argument is never written to, except ``out``.
    """

    name: ClassVar[str]
    """The name that object headers and manifests record, with its parameter after a colon if it has one."""
    lossy: ClassVar[bool]
    """Whether less comes back than was stored. Such a codec is used only where it is asked for by name."""
    uses_base: ClassVar[bool]
    """Whether it codes a tensor against the base's; one that does needs a base, one that does not gets none."""

    @classmethod
    def fit(cls, pair: Pair, level: Level) -> Self:
        """Return the codec for one tensor, after as much of a look at it as the level allows.

        Args:
            pair: The tensor and, if :attr:`uses_base`, the base's.
            level: How hard to try.

        Raises:
            Unsuited: a lossy codec does not take such a tensor, or its values.
        """
        ...

    @classmethod
    def parse(cls, spec: TensorSpec, side: memoryview) -> Self:
        """Return the codec whose :attr:`side` that is. The bytes may be hostile.

        Args:
            spec: The tensor's dtype and shape.
            side: What :attr:`side` was when the tensor was encoded.

        Raises:
            Corrupt: ``side`` is nothing that this codec writes for such a tensor, in memory that the tensor's size
                bounds. The message begins with what is wrong.
        """
        ...

    @property
    def side(self) -> bytes:
        """What decoding needs beside the chunks; often nothing."""
        ...

    def encode_chunk(self, index: int, target: Words, base: Words | None) -> bytes:
        """Encode one chunk of one or more words.

        Args:
            index: Which chunk, from 0.
            target: Its words, 1-d.
            base: The base's words in the same place, if the codec uses them.
        """
        ...

    def decode_chunk(self, index: int, body: memoryview, base: Words | None, out: Words) -> None:
        """Decode ``body`` into ``out``, given the base's words if the codec uses them.

        Raises:
            Corrupt: ``body`` does not decode to exactly ``out.size`` words. The message begins with what is wrong;
                the caller puts the object's name before it.
        """
        ...


CODECS: dict[str, type[Codec]] = {
    codec.name: codec for codec in (IntDelta, Full, Raw, Int8, Int4, Int2, BitDelta, TSwitch, SkillPack)
}

FAMILIES: dict[str, Callable[[str], type[Codec]]] = {Svd.name: of_rank}
"""Codecs with a parameter: what stands before the colon, and what makes one of the text after it."""


_INSTALL = "upgrade weightvc, or install the package that provides it"


def codec_named(name: str) -> type[Codec]:
    """Return the codec of that name, such as ``int4`` or ``svd:16``, built in or installed.

    Raises:
        Unsupported: there is none.
    """
    if name in CODECS:
        return CODECS[name]
    family, colon, parameter = name.partition(":")
    if family in FAMILIES:
        return FAMILIES[family](parameter if colon else "")
    known = [*CODECS, "svd:RANK"]
    try:
        codec: type[Codec] = plugins.load(GROUP, name)
    except NotFound:
        raise Unsupported(
            f"codec {printable(name)[:80]!r} is unknown",
            meant(name, known, f"the codecs here are {', '.join(known)}; for others {_INSTALL}"),
        ) from None
    return codec
