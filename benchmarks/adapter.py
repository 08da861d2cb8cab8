"""Measure a LoRA adapter as a task beside the model that it was merged into, as another task of the same repository.

Run:
    python benchmarks/adapter.py           # a LoRA trained for sixty steps, made once
    python benchmarks/adapter.py --quick   # six steps

Prints what each takes in the store and how long it takes to add and to merge each with a fine-tune, and compares the
adapter merged into the base with the merged model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import assets
import finetunes
import lowrank
from safetensors.torch import load_file


def wvc(repository: Path, *args: object) -> tuple[dict[str, Any], float]:
    """Run a command and return its document and its seconds."""
    who = {f"GIT_{role}_{part}": "b@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    command = [sys.executable, "-m", "weightvc", "-C", str(repository), "--json", *map(str, args)]
    started = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **who}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), time.perf_counter() - started


def main() -> None:
    """Print a line for each of both tasks, and how far the two models are apart."""
    parser = argparse.ArgumentParser(description="Measure a LoRA adapter as a task beside its merged model.")
    parser.add_argument("--quick", action="store_true", help="take a LoRA of six steps")
    quick = parser.parse_args().quick
    folder = lowrank.merged(quick=quick).parent
    (other,) = finetunes.quick(["reuters8"]).values()
    with tempfile.TemporaryDirectory() as name:
        repository, out = Path(name) / "repository", Path(name) / "out"
        wvc(Path(name), "init", repository, "--base", assets.minilm())
        wvc(repository, "add", other / "f32", "--task", "other")
        print(f"{'task':<10}{'bytes':>12}{'stored':>12}{'add':>9}{'merge':>9}")
        for task, source in (("adapter", folder / "adapter"), ("merged", folder / "f32")):
            added, adding = wvc(repository, "add", source, "--task", task)
            wvc(repository, "commit", "-m", f"Add {task}")
            _, merging = wvc(repository, "checkout", "--tasks", f"{task},other", "-o", out / task)
            print(f"{task:<10}{added['bytes']:>12,}{added['stored_bytes']:>12,}{adding:>7.1f} s{merging:>7.1f} s")
        wvc(repository, "checkout", "--tasks", "adapter", "--dtype", "base", "-o", out / "dense")
        ours, theirs = (load_file(path / finetunes.WEIGHTS) for path in (out / "dense", folder / "f32"))
        apart = max(float((ours[key].double() - theirs[key].double()).abs().max()) for key in theirs)
        print(f"the adapter merged into the base is at most {apart:.1e} from the merged model")


if __name__ == "__main__":
    main()
