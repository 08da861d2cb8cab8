"""Low-rank updates as sources of a merge: a task vector computed from its factors, span by span."""

from dataclasses import dataclass

import torch
from torch import Tensor

from weightvc.objects.manifest import Entry, Manifest
from weightvc.objects.tensors import zeros_digest
from weightvc.objects.updates import Update
from weightvc.repo.decode import Reader
from weightvc.util.errors import Conflict
from weightvc.util.text import printable

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The torch dtypes of mergeable tensors."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """A task's update of one base tensor, with the entries of its factors."""

    update: Update
    a: Entry
    b: Entry

    @classmethod
    def of(cls, task: Manifest, name: str) -> "LowRank | None":
        """Return the task's update of the base tensor ``name``, if it has one."""
        update = task.by_update.get(name)
        return None if update is None else cls(update, task.by_name[update.a], task.by_name[update.b])

    @property
    def rank(self) -> int:
        """The inner dimension of the product."""
        return self.a.spec.shape[0]

    @property
    def still(self) -> bool:
        """Whether a factor or the scale is zero, as where an adapter has learned nothing."""
        zero = (entry.digest == zeros_digest(entry.spec.dtype, entry.spec.shape) for entry in (self.a, self.b))
        return not self.update.scale or any(zero)

    @property
    def identity(self) -> tuple[str, str, float, bool]:
        """What two updates have in common that give the same task vector."""
        return self.a.digest, self.b.digest, self.update.scale, self.update.transposed


@dataclass(frozen=True, slots=True)
class Factors:
    """A task vector, or a sum of them, as a product in memory: (rows + columns)·rank·8 bytes.

    Attributes:
        left: A float64 matrix, (rows, rank).
        right: Likewise, (rank, columns).
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, update: Update, a: Tensor, b: Tensor) -> "Factors":
        """Return the product that ``update`` says, as the base keeps it.

        Args:
            update: What A and B are the factors of.
            a: A as a float64 matrix, (rank, columns); it is scaled in place.
            b: B likewise, (rows, rank).
        """
        a *= update.scale
        return cls(a.t().contiguous(), b.t().contiguous()) if update.transposed else cls(b, a)

    @classmethod
    def open(cls, reader: Reader, low: LowRank, device: torch.device) -> "Factors":
        """Decode the factors of a task's update to ``device``, where the products will be computed."""
        a, b = (_numbers(reader, entry, device) for entry in (low.a, low.b))
        if not all(bool(factor.isfinite().all()) for factor in (a, b)):
            raise Conflict(
                f"tensor {printable(low.update.of)}: a task updates it by factors that hold NaN or infinity",
                "leave that task out, or check it out alone",
            )
        return cls.of(low.update, a.reshape(low.rank, -1), b.reshape(-1, low.rank))

    def vector(self, offset: int, out: Tensor) -> Tensor:
        """Return the elements of the task vector from ``offset`` on, in the memory of ``out``, as many as fit there.

        Only the rows that they stand in are computed.
        """
        columns = self.right.shape[1]
        first, last = offset // columns, -(-(offset + out.numel()) // columns)
        rows = self.left[first:last] @ self.right
        return out.copy_(rows.reshape(-1)[offset - first * columns :][: out.numel()])


def _numbers(reader: Reader, entry: Entry, device: torch.device) -> Tensor:
    """Return a copy in memory of torch's own: where a matrix begins may change bits of its products."""
    numbers = torch.frombuffer(reader.open(entry).read(), dtype=DTYPES[entry.spec.dtype])
    return numbers.to(device, torch.float64, copy=True)
