"""Runs commands on small file systems in memory that are full but for so much room; in a mount namespace of its own.

Arguments: a directory of starting repositories, one of checkpoints, and an empty one. Prints a JSON object: for each
scenario, how often the command had too little room, and what was wrong then.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import judge
import server

PAGE = os.sysconf("SC_PAGESIZE")
SCENARIOS = {
    "init": ("nothing", ("init", ".", "--base", "{models}/base", "-j", "1")),
    "add": ("one", ("add", "{models}/beta", "--task", "beta", "-j", "1")),
    "commit": ("staged", ("commit", "-m", "Add beta")),
    "checkout": ("model", ("checkout", "-j", "1")),
    "revert": ("model", ("revert", "alpha", "--no-rebuild")),
}
KINDS = {"bytes": "size=8m", "inodes": "size=8m,nr_inodes=1000"}
STEPS = {"bytes": 2, "inodes": 3}
"""Of pages, or of files, by which the room grows until the command succeeds."""

SAID = re.compile(
    r"wvc: .*(No space left on device|Out of diskspace).*\nhint: free some space and run it again\n"
    r"|wvc: git [a-z-]+ failed \(\d+\): .*\b(write|create)\b"  # git does not always say why
)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def wvc(output, *arguments):
    code = server.forked({"arguments": [*map(str, arguments)], "directory": "/", "output": output, "before": ""})
    return Ran(code, Path(output).read_text(), Path(f"{output}.err").read_text())


def fill(root, kind, room):
    """Take all room but for ``room`` pages or files."""
    free = os.statvfs(root)
    if kind == "inodes":
        for n in range(free.f_favail - room):
            (root / f"filler{n}").touch()
    else:
        (root / "filler0").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room * PAGE)))


def short(root, start, command, *, kind, room, judged, output):
    """Run a command with so much room, and again with enough; return what is wrong, ``None`` if it had enough."""
    repository = judge.copy(start, root / "repo")
    old = judge.Judge.look(repository)
    fill(root, kind, room)
    ran = wvc(output, "-C", repository, *command)
    if ran.code == 0:
        return None
    wrong = []
    if ran.code != 3 or not SAID.match(ran.err):
        wrong.append(f"said: {ran.code} {ran.err}")
    wrong += [f"not swept: {name}" for name in judge.left_over(repository) if not name.endswith("/pending.json")]
    if judge.Judge.look(repository) != old:
        wrong.append("the old state is gone")
    for filler in root.glob("filler*"):
        filler.unlink()
    again = wvc(output, "-C", repository, *command)
    if again.code or again.err:
        wrong.append(f"with room: {again.code} {again.err}")
    return wrong + judged.whole(repository)


def main():
    starts, models, empty = map(Path, sys.argv[1:])
    server.import_all()
    output = str(empty / "output")
    root = empty / "mounted"
    root.mkdir()
    judged = judge.Judge(lambda *arguments: wvc(output, *arguments), models)
    results = {}
    for name, (start, command) in SCENARIOS.items():
        for kind, options in KINDS.items():
            wrong, room, done = [], 0, False
            while not done:
                subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=True)
                arguments = [part.format(models=models) for part in command]
                found = short(root, starts / start, arguments, kind=kind, room=room, judged=judged, output=output)
                subprocess.run(["umount", root], check=True)
                done = found is None
                wrong += [f"{room} {kind}: {what}" for what in found or []]
                room += STEPS[kind]
            results[f"{name}, {kind}"] = {"short": room // STEPS[kind] - 1, "wrong": wrong}
    sys.stdout.write(json.dumps(results))


main()
