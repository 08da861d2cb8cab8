"""A codec as another package would provide it: runs of equal differences, as (u32 length, word) pairs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from weightvc.util.errors import Corrupt


@dataclass(frozen=True)
class Runs:
    """Run lengths of the wrapping difference from the base."""

    name: ClassVar[str] = "runs"
    uses_base: ClassVar[bool] = True
    lossy: ClassVar[bool] = False
    side: ClassVar[bytes] = b""

    @classmethod
    def fit(cls, pair, level):
        return cls()

    @classmethod
    def parse(cls, spec, side):
        if side:
            raise Corrupt("codec runs keeps nothing beside its chunks")
        return cls()

    def encode_chunk(self, index, target, base):
        delta = target - base
        starts = np.flatnonzero(np.concatenate(([True], delta[1:] != delta[:-1])))
        runs = np.empty(starts.size, np.dtype([("length", "<u4"), ("word", delta.dtype)]))
        runs["length"], runs["word"] = np.diff(starts, append=delta.size), delta[starts]
        return runs.tobytes()

    def decode_chunk(self, index, body, base, out):
        kind = np.dtype([("length", "<u4"), ("word", out.dtype)])
        if len(body) % kind.itemsize:
            raise Corrupt("half a run")
        runs = np.frombuffer(body, kind)
        if int(runs["length"].sum(dtype=np.uint64)) != out.size:
            raise Corrupt(f"runs of other than {out.size} words")
        np.add(np.repeat(runs["word"], runs["length"]), base, out=out)
