"""Run by ``test_audit.py`` in a process of its own: parse everything there is, and print which audit events that made.

An audit hook cannot be taken off again, and imports and first uses compile code; so every parser runs twice, and what
compiles or imports counts only the second time.
"""

import io
import json
import os
import pickle
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "fuzz"))

ALWAYS = (
    "pickle.", "socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "pty.",
    "urllib.", "http.", "ftplib.", "smtplib.", "ctypes.", "webbrowser.", "shutil.", "os.chmod",
    "os.symlink", "os.link",
)  # fmt: skip
WARM = ("marshal.", "exec", "compile", "import", "code.", "function.", "object.__setattr__", "sys.")

seen = []
watched = []
"""What the hook looks for now, as one tuple."""


def hook(event, args):
    if watched and event.startswith(watched[0]):
        seen.append([event, repr(args)[:200]])


class Evil:
    """What a hostile pickle makes."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def inputs(parsers):
    """Return every parser with its seeds, the inputs that were once findings, and pickles under its own name."""
    for name, parser in parsers.items():
        kept = sorted((HERE / "fuzz/regressions" / name).glob("*"))
        odd = [pickle.dumps(Evil()), b"", bytes(99)]
        yield parser, [*parser.seeds(), *(path.read_bytes() for path in kept), *odd]


def torch_pickles(torch):
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.ones(2), "b": Evil()}, file, _use_new_zipfile_serialization=zipped)
        yield file.getvalue()


def probe():
    """Do once what must not happen, to show that it would be seen."""
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=0.01)
    subprocess.run(["true"], check=False)
    pickle.loads(pickle.dumps(Path))
    exec("1")


def main():
    import torch
    from parsers import PARSERS
    from torch import _weights_only_unpickler as restricted

    from weightvc.util.errors import WeightvcError

    table = list(inputs(PARSERS))
    table.append((PARSERS["torch"], list(torch_pickles(torch))))
    sys.addaudithook(hook)
    watched.append((*ALWAYS, "exec"))
    probe()
    live, seen[:] = sorted({event.partition(".")[0] for event, _ in seen}), []

    loads = 0
    load = restricted.Unpickler.load

    def counted(self):
        nonlocal loads
        loads += 1
        return load(self)

    def forbidden(*_, **__):
        seen.append(["pickle", "the unrestricted unpickler"])
        raise AssertionError

    restricted.Unpickler.load = counted
    pickle.loads = pickle.load = pickle.Unpickler = forbidden
    refused = 0
    for watched[0] in (ALWAYS, (*ALWAYS, *WARM)):
        for parser, made in table:
            for data in made:
                try:
                    parser.check(data)
                except WeightvcError:
                    refused += 1
    watched.clear()
    sys.stdout.write(json.dumps({"live": live, "seen": seen, "refused": refused, "restricted": loads}))


if __name__ == "__main__":
    main()
