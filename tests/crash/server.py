"""Runs the command line again and again, each time in a fork of a process that has imported everything.

Started by recorder.py with trace.c preloaded. Each line of standard input is a JSON object ``{"arguments", "directory",
"output", "before"}``: the command line, where it runs, the file that gets what it prints, with ``.err`` added what it
says, and a piece of Python to execute first. The answer is a line with the exit status, negative for a signal.
"""

import json
import mmap
import os
import pkgutil
import struct
import sys
from importlib import import_module

ROOMS = ("checkpoint", "cli", "delta", "history", "merge", "objects", "repo", "store", "util")


def import_all():
    for room in ROOMS:
        package = import_module(f"weightvc.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


def child(job):
    """Become the command, in a process group of its own; does not return."""
    os.setpgid(0, 0)
    if "CRASH_CONTROL" in os.environ:
        with mmap.mmap(os.open(os.environ["CRASH_CONTROL"], os.O_RDWR), 0) as control:
            struct.pack_into("i", control, int(os.environ["CRASH_GROUP"]), os.getpid())
    os.chdir(job["directory"])
    for descriptor, name in ((0, os.devnull), (1, job["output"]), (2, f"{job['output']}.err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["wvc", *job["arguments"]]
    exec(job["before"], {})
    try:
        import_module("weightvc.cli.main").run()
    except SystemExit as done:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(int(done.code or 0))
    except BaseException:  # noqa: BLE001 -- a child must never return
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    os._exit(1)


def forked(job):
    """Run a job in a fork and return its exit status, negative for a signal."""
    pid = os.fork()
    if not pid:
        child(job)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main():
    import_all()
    answer("ready")
    for line in sys.stdin:
        answer(forked(json.loads(line)))


def answer(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
