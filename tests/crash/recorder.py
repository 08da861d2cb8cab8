"""Runs commands with trace.c preloaded: what they change on disk, in order, git's own changes included.

The files of one directory are watched. A run can be told to fail at its n-th change: by the death of the whole process
group, or by an error of the system.
"""

import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_SERVER = Path(__file__).with_name("server.py")
_SOURCE = Path(__file__).with_name("trace.c")
_CONTROL = struct.Struct("=QQiiii4096s")
_GROUP = 24
_RECORD = struct.Struct("=QQqIIII")

KILL = 0


@dataclass(frozen=True)
class Operation:
    """One change that was made.

    ``kind`` is a letter of trace.c's; ``path`` and ``other`` are below the watched directory; ``inode`` is that of what
    was made, written, cut or synced.
    """

    number: int
    kind: str
    path: str
    inode: int = 0
    offset: int = 0
    other: str = ""
    data: bytes = b""

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.number}{self.kind}", self.path, self.other)))


@dataclass(frozen=True)
class Run:
    """How a command ended, how many changes it tried, and those that it made; ``fired`` if one was made to fail."""

    code: int
    out: str
    err: str
    tried: int
    fired: bool
    operations: tuple[Operation, ...]


def compiled(directory: Path) -> Path:
    """Compile the library into ``directory``; raises :class:`FileNotFoundError` where there is no compiler."""
    library = directory / "trace.so"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


class Recorder:
    """A process that runs the command line in forks of itself; a context manager.

    Args:
        library: What :func:`compiled` made.
        scratch: A directory for its own files.
        within: A command that runs the one after it, in a namespace of its own for example.
    """

    def __init__(self, library: Path, scratch: Path, within: Sequence[str] = ()) -> None:
        self._log, self._output = scratch / "log", scratch / "output"
        self._log.touch()
        control = scratch / "control"
        control.write_bytes(bytes(_CONTROL.size))
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "CRASH_CONTROL": str(control),
            "CRASH_GROUP": str(_GROUP),
            "CRASH_LOG": str(self._log),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        with ExitStack() as stack:
            file = stack.enter_context(control.open("r+b"))
            self._control = stack.enter_context(mmap.mmap(file.fileno(), 0))
            command = [*within, sys.executable, str(_SERVER)]
            self._server = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)
            stack.enter_context(self._server)
            stack.callback(self._server.stdin.close)
            assert self._server.stdout.readline() == "ready\n"
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def run(self, below: Path, *arguments: object, at: int = 0, error: int = KILL, lasting=False, before="") -> Run:
        """Run the command line in ``below``, which is watched.

        Args:
            below: The directory.
            arguments: The command line.
            at: The change to fail, from 1 on; 0 for none.
            error: The errno that it fails with, or :data:`KILL`.
            lasting: Whether all later ones fail, too.
            before: Python that the process executes first.
        """
        os.truncate(self._log, 0)
        _CONTROL.pack_into(self._control, 0, 0, at, error, lasting, 0, 0, os.fsencode(below))
        job = {"arguments": [*map(str, arguments)], "directory": str(below), "output": str(self._output)}
        self._server.stdin.write(json.dumps({**job, "before": before}) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        tried, _, _, _, _, fired, _ = _CONTROL.unpack_from(self._control)
        _CONTROL.pack_into(self._control, 0, 0, 0, 0, 0, 0, 0, b"")
        out, err = (Path(f"{self._output}{suffix}").read_text("utf-8") for suffix in ("", ".err"))
        return Run(code, out, err, tried, bool(fired), tuple(_parsed(self._log.read_bytes(), below)))


def _parsed(log: bytes, below: Path) -> list[Operation]:
    found, at = [], 0
    while at < len(log):
        number, inode, offset, kind, *sizes = _RECORD.unpack_from(log, at)
        at += _RECORD.size
        path, other, data = (log[(start := at + sum(sizes[:n])) : start + sizes[n]] for n in range(3))
        at += sum(sizes)
        kind, names = chr(kind), [os.fsdecode(path), os.fsdecode(other)]
        if kind != "y":
            names[1] = names[1] and _inside(names[1], below)
        found.append(Operation(number, kind, _inside(names[0], below), inode, offset, names[1], data))
    return sorted(found, key=lambda operation: operation.number)


def _inside(path: str, below: Path) -> str:
    return os.path.relpath(path.removesuffix(" (deleted)"), below)
