"""`wvc env`."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from shutil import which

import click

from weightvc.cli.context import Context, columns, pass_context
from weightvc.delta.kernels import loops

_PACKAGES = ("torch", "numpy", "zstandard", "xxhash", "blake3", "click", "GitPython", "rich")


@dataclass(frozen=True)
class _Environment:
    wvc: str
    python: str
    platform: str
    cores: int
    git: str | None
    loops: str
    packages: dict[str, str]


@click.command("env")
@pass_context
def command(ctx: Context) -> None:
    """Print the versions of wvc and of what it stands on, to paste into a report."""
    result = _Environment(
        wvc=metadata.version("weightvc"),
        python=platform.python_version(),
        platform=platform.platform(),
        cores=len(os.sched_getaffinity(0)),
        git=_git(),
        loops=loops.__name__.rpartition(".")[2],
        packages={name: metadata.version(name) for name in _PACKAGES},
    )
    if result.loops != "compiled":
        ctx.note(["the codecs' loops run in NumPy, which is slower: install again where there is a C compiler"])
    rows = [("wvc", result.wvc), ("python", result.python), ("platform", result.platform), ("cores", result.cores)]
    ctx.emit(
        "env",
        result,
        columns([*rows, ("git", result.git or "not found"), ("codec loops", result.loops), *result.packages.items()]),
    )


def _git() -> str | None:
    """Return git's version, ``None`` if there is no git that runs."""
    git = which("git")
    done = git and subprocess.run([git, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("git version ") or None if done else None
