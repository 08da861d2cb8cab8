"""The same merges by mergekit and by weightvc: wall time and private memory, from files to files.

mergekit is installed into an environment of its own in the cache of benchmarks, at its first use; only its command line
is run. It gets the checkpoints as they are; weightvc decodes the fine-tunes from the deltas that its store holds. Both
write the merge in bfloat16. mergekit computes in bfloat16, as its examples do; weightvc in float64.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from assets import building, cache_dir
from bars import Bar
from bigmodel import Generator, fitting
from memory import ENV
from sampling import Usage, watch

VERSION = "0.1.5"
TASKS = 3
ROUNDS = 3
GAINS = {"linear": 1.0, "task_arithmetic": 1.0, "ties": 3.0}
OURS = {"ties": ("-p", "compat=mergekit")}
THEIRS = {"ties": {"density": 0.2}}
CONSTRAINTS = Path(__file__).parent.parent / "constraints/ci.txt"


def installed() -> Path | None:
    """Return the interpreter of an environment that has mergekit, or ``None`` if none can be made."""
    final = cache_dir() / f"mergekit-{VERSION}"
    try:
        with building(final) as scratch:
            if scratch is not None:
                subprocess.run([sys.executable, "-m", "venv", str(scratch)], check=True)
                pip = [str(scratch / "bin/python"), "-m", "pip", "install", "-q", "-c", str(CONSTRAINTS)]
                subprocess.run([*pip, f"mergekit=={VERSION}"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"mergekit {VERSION} cannot be installed here: {error}")
        return None
    return final / "bin/python"


def _recipe(method: str, models: list[Path]) -> str:
    """Return mergekit's configuration of one merge, as YAML."""
    base, *tuned = models
    extra = {"weight": 1.0, **THEIRS.get(method, {})}
    lines = [f"merge_method: {method}", "dtype: bfloat16", "models:"]
    for model in tuned:
        lines += [f"  - model: {model}", "    parameters:", *(f"      {key}: {value}" for key, value in extra.items())]
    return "\n".join([*lines, *([] if method == "linear" else [f"base_model: {base}"])]) + "\n"


class _Merges:
    """A base and its fine-tunes, as directories and as a repository, below ``work``."""

    def __init__(self, work: Path, python: Path, nbytes: int) -> None:
        self._work, self._python = work, python
        generator = Generator(fitting(nbytes))
        print(f"\n{generator.shapes}, {generator.shapes.nbytes / 2**30:.2f} GiB in bfloat16, {TASKS} fine-tunes")
        self._models = [generator.write(work / f"model-{task}", task) for task in range(TASKS + 1)]
        self._wvc("init", str(work / "repo"), "--base", str(self._models[0]))
        for task, path in enumerate(self._models[1:]):
            self._wvc("-C", str(work / "repo"), "add", str(path), "--task", f"t{task}")
        self._wvc("-C", str(work / "repo"), "commit", "-m", "Add the fine-tunes")

    def _wvc(self, *args: str) -> Usage:
        return watch([sys.executable, "-m", "weightvc", *args], ENV)

    def run(self, method: str, who: str) -> Usage:
        """Merge all fine-tunes and remove the result."""
        out = self._work / "merged"
        try:
            if who == "weightvc":
                names = ",".join(f"t{task}" for task in range(TASKS))
                common = ("-C", str(self._work / "repo"), "checkout", "--tasks", names, "--method", method)
                return self._wvc(*common, "-o", str(out), *OURS.get(method, ()))
            recipe = self._work / "recipe.yaml"
            recipe.write_text(_recipe(method, self._models))
            options = ("--no-cuda", "--lazy-unpickle", "--no-copy-tokenizer", "--quiet")
            command = [str(self._python), "-m", "mergekit.scripts.run_yaml", str(recipe), str(out), *options]
            return watch(command, {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}, self._work)
        finally:
            shutil.rmtree(out, ignore_errors=True)


def measure(quick: bool, methods: Sequence[str] = tuple(GAINS)) -> list[Bar]:
    """Print times and peaks of some methods, and return their bars: missed where mergekit cannot be had."""
    python = installed()
    used: dict[tuple[str, str], list[Usage]] = {}
    if python is not None:
        with tempfile.TemporaryDirectory(prefix="mergekit-") as work:
            merges = _Merges(Path(work), python, 2**27 if quick else 18 * 2**28)
            print(f"{'method':<18}{'by':<10}{'wall s':>8}{'from':>8}{'to':>8}{'peak MiB':>10}   load")
            for method in methods:
                for _ in range(1 if quick else ROUNDS):
                    for who in ("mergekit", "weightvc"):
                        used.setdefault((method, who), []).append(merges.run(method, who))
                for who in ("mergekit", "weightvc"):
                    _print(method, who, used[method, who])
    return [bar for method in methods for bar in _bars(method, GAINS[method], used, binds=not quick)]


def _print(method: str, who: str, usages: list[Usage]) -> None:
    seconds = [usage.seconds for usage in usages]
    peak = max(usage.peak for usage in usages) / 2**20
    times = f"{statistics.median(seconds):>8.1f}{min(seconds):>8.1f}{max(seconds):>8.1f}"
    print(f"{method:<18}{who:<10}{times}{peak:>10.0f}   {os.getloadavg()[0]:.1f}", flush=True)


def _bars(method: str, gain: float, used: dict[tuple[str, str], list[Usage]], *, binds: bool) -> list[Bar]:
    theirs, ours = used.get((method, "mergekit")), used.get((method, "weightvc"))
    faster = more = None
    if theirs and ours:
        faster = statistics.median(u.seconds for u in theirs) / statistics.median(u.seconds for u in ours)
        more = max(u.peak for u in ours) / max(u.peak for u in theirs)
    return [
        Bar(f"{method}: mergekit / weightvc, wall", faster, gain, most=False, binds=binds),
        Bar(f"{method}: memory of weightvc / of mergekit", more, 1.0, binds=binds),
    ]
