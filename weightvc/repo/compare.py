"""Comparing the weight files of a checkout directory with its lock, byte by byte."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weightvc.checkpoint.files import map_file
from weightvc.checkpoint.header import Header, parse_header
from weightvc.objects.lock import Lock, TensorLine
from weightvc.objects.tensors import tensor_digest
from weightvc.util import parallel
from weightvc.util.errors import BadInput, NotFound
from weightvc.util.progress import Progress


@dataclass(frozen=True)
class Compared:
    """One weight file: how many tensors the lock has in it, and what is wrong with it, if anything."""

    file: str
    tensors: int
    wrong: tuple[str, ...]


def weight_files(directory: Path, lock: Lock, jobs: int, progress: Progress) -> Iterator[Compared]:
    """Compare size, header and every tensor of each weight file that ``lock`` names, in the order of file names."""
    lines: dict[str, list[TensorLine]] = {}
    for line in lock.tensors:
        lines.setdefault(line.file, []).append(line)
    for name in sorted(lines):
        try:
            data = map_file(directory / name)
            header = parse_header(data, name, file_size=len(data))
        except (BadInput, NotFound) as error:
            wrong = [error.what]
        else:
            if tensor_digest("U8", [len(header.raw)], header.raw) == lock.files.get(name):
                wrong = _tensors(data, header, lines[name], jobs, progress)
            else:
                wrong = ["its header differs"]
        yield Compared(name, len(lines[name]), tuple(wrong))


def _tensors(data: memoryview, header: Header, lines: list[TensorLine], jobs: int, progress: Progress) -> list[str]:
    def job(line: TensorLine) -> str | None:
        slot = header.tensors.get(line.name)
        if slot is None:
            return f"{line.name} is missing"
        found = tensor_digest(slot.spec.dtype, slot.spec.shape, data[slot.start : slot.end])
        progress.advance(slot.end - slot.start)
        return None if found == line.digest else f"{line.name} differs"

    with progress.stage(f"Verifying {lines[0].file}", len(data)):
        return [finding for finding in parallel.run(job, lines, jobs) if finding]
