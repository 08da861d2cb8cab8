"""The whole life of a repository, on published models, in a few minutes: what ``make demo`` runs.

Run:
    python benchmarks/demo.py

It downloads a small BERT for chemistry with two genuine fine-tunes, and a sentence encoder that is fine-tuned here on
three tasks for some seconds each (see ``assets.py`` and ``finetunes.py``). With each it makes a repository, adds and
commits the tasks, looks at them, merges them, takes one out again, and shows that what is left is, byte for byte, what
it would have been had that task never been added. All is made anew in ``.demo/``; it exits 1 if anything differs.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import assets
import finetunes
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1] / ".demo"
WHO = {f"GIT_{role}_{what}": "demo@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENV = {
    **os.environ,
    **WHO,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_PAGER": "cat",
    "PAGER": "cat",
    "WVC_NO_PROGRESS": "1",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the closing table: a model directory, its bytes, what it took in the store, and seconds."""

    model: str
    raw: int
    stored: int
    add: float
    checkout: float | None = None


@dataclass
class Demo:
    """One repository below :data:`ROOT` and what was measured with it.

    Args:
        name: Its folder.
        base: The base's model directory.
        tasks: Each task's model directory.
    """

    name: str
    base: Path
    tasks: Mapping[str, Path]
    rows: list[Row] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the repository is."""
        return ROOT / self.name

    def wvc(self, *args: str, folder: str = "", show: bool = True) -> float:
        """Type ``wvc ARGS`` in the repository and return the seconds it took; exit 1 if it fails."""
        where = self.folder / folder
        if show:
            print(f"\n{self.name}$ {shlex.join(('wvc', *args))}", flush=True)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "weightvc", *([] if show else ["-q"]), *args],
            cwd=where,
            env=ENV,
            stdout=None if show else subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            sys.exit(f"wvc {args[0]} exited {done.returncode}")
        return time.perf_counter() - started

    def start(self, repo: str = "repo", *, show: bool = True, without: str = "") -> None:
        """Make a repository over the base and commit all tasks ``without`` one."""
        (self.folder / repo).mkdir(parents=True)
        subprocess.run(["git", "init", "-q"], cwd=self.folder / repo, env=ENV, check=True)
        seconds = self.wvc("init", "--base", "../models/base", folder=repo, show=show)
        if show:
            self.rows.append(Row(f"{self.name} base", size(self.base), self.stored(), seconds))
        for task in self.tasks:
            if task == without:
                continue
            before = self.stored(repo)
            seconds = self.wvc("add", f"../models/{task}", "--task", task, folder=repo, show=show)
            if show:
                self.rows.append(Row(f"{self.name} {task}", size(self.tasks[task]), self.stored() - before, seconds))
        self.wvc("commit", "-m", "Add the fine-tunes", folder=repo, show=show)

    def stored(self, repo: str = "repo") -> int:
        """Return the bytes of all objects of a repository."""
        return size(self.folder / repo / ".git/wvc/objects")

    def look(self) -> None:
        """Show what the repository knows."""
        first, second, *_ = self.tasks
        for args in (("log",), ("show", first), ("diff", first, second)):
            self.wvc(*args, folder="repo")

    def check_exact(self) -> None:
        """Check each task out alone and compare every tensor with the original, bit for bit."""
        for i, task in enumerate(self.tasks):
            seconds = self.wvc("checkout", "--tasks", task, "-o", f"../{task}", folder="repo")
            row = self.rows[i + 1]
            self.rows[i + 1] = Row(row.model, row.raw, row.stored, row.add, seconds)
            count = compare(self.folder / task, self.tasks[task])
            print(f"=> {task}: {count} tensors, every bit as in the original")

    def merge_and_revert(self, gone: str) -> None:
        """Merge, take one task out, and compare what revert rebuilt with a repository that never had the task."""
        self.wvc("checkout", "-o", "../merged", folder="repo")
        before = contents(self.folder / "merged")
        self.wvc("revert", gone, folder="repo")
        after = contents(self.folder / "merged")
        self.wvc("verify", "../merged", folder="repo")
        self.wvc("fsck", "--full", folder="repo")
        print(f"\n(the same in a repository that never had {gone}, not shown)", flush=True)
        self.start("never", show=False, without=gone)
        self.wvc("checkout", "-o", "../never-added", folder="never", show=False)
        if after != contents(self.folder / "never-added") or after == before:
            sys.exit(f"{self.name}: without {gone} is not what it would have been had {gone} never been added")
        total = sum(map(len, after.values()))
        proof = f"{self.name} without {gone} = never had {gone}: {len(after)} files, {total:,} bytes, all equal"
        print(f"=> {proof}")
        self.proofs.append(proof)


def size(path: Path) -> int:
    """Return the bytes of all files below ``path``."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file of a checkout by its path in there, but the lock, which names a commit."""
    files = (file for file in directory.rglob("*") if file.is_file() and file.name != "wvc.lock.json")
    return {file.relative_to(directory).as_posix(): file.read_bytes() for file in files}


def read(directory: Path) -> dict[str, torch.Tensor]:
    """Read a model directory's tensors, from safetensors or PyTorch files."""
    found = {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}
    if not found:
        found = torch.load(directory / "pytorch_model.bin", weights_only=True, map_location="cpu")
    return found


def compare(made: Path, original: Path) -> int:
    """Return the number of tensors when both directories hold the same ones bit for bit; exit 1 if not."""
    found, wanted = read(made), read(original)
    if found.keys() != wanted.keys():
        sys.exit(f"{made} has other tensors than {original}")
    for name, tensor in wanted.items():
        one, other = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        if found[name].dtype != tensor.dtype or found[name].shape != tensor.shape or not torch.equal(one, other):
            sys.exit(f"{made}: tensor {name} differs from {original}")
    return len(wanted)


def prepare(name: str, base: Path, tasks: Mapping[str, Path]) -> Demo:
    """Copy the models to where the commands will name them."""
    models = ROOT / name / "models"
    for model, source in {"base": base, **tasks}.items():
        shutil.copytree(source, models / model)
    return Demo(name, models / "base", {task: models / task for task in tasks})


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def run(demo: Demo, gone: str) -> None:
    """Go through the whole life of one repository."""
    demo.start()
    demo.look()
    demo.check_exact()
    demo.merge_and_revert(gone)


def summary(demos: list[Demo], seconds: float) -> None:
    """Print the closing table."""
    title("What it took")
    print(f"{'model':<24}{'raw bytes':>14}{'stored bytes':>14}{'ratio':>8}{'add s':>8}{'checkout s':>12}")
    for row in (row for demo in demos for row in demo.rows):
        checkout = "" if row.checkout is None else f"{row.checkout:.1f}"
        print(
            f"{row.model:<24}{row.raw:>14,}{row.stored:>14,}{row.stored / row.raw:>8.3f}{row.add:>8.1f}{checkout:>12}"
        )
    print("\nRemoval, compared byte for byte:")
    for proof in (proof for demo in demos for proof in demo.proofs):
        print(f"  {proof}")
    print(f"\nAll in {seconds:.0f} s. The repositories are {ROOT}/*/repo.")


def main() -> None:
    """Run both halves and print the table."""
    started = time.perf_counter()
    shutil.rmtree(ROOT, ignore_errors=True)
    title("A BERT for chemical reactions and two published fine-tunes (rxnfp)")
    print("downloading on first use …", flush=True)
    models = assets.rxnfp()
    chemistry = prepare("rxnfp", models.base, {"bert-ft": models.bert_ft, "bert-ft-10k": models.bert_ft_10k_25s})
    run(chemistry, "bert-ft-10k")
    title("A sentence encoder and three fine-tunes made here (all-MiniLM-L6-v2)")
    print("downloading and fine-tuning on first use …", flush=True)
    tuned = finetunes.quick(("reuters8", "movies", "questions"))
    sentences = prepare("minilm", assets.minilm(), {task: folder / "f32" for task, folder in tuned.items()})
    run(sentences, "movies")
    summary([chemistry, sentences], time.perf_counter() - started)


if __name__ == "__main__":
    main()
