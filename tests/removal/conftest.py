"""Tiny models with every kind of tensor, and repositories that are played here or by another process."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import weightvc

_PLAY = Path(__file__).with_name("play.py")

SHAPES = {
    "embed.weight": (20, 16),
    "block.wide.weight": (16, 24),
    "block.tall.weight": (24, 16),
    "block.square.weight": (40, 40),
    "block.own.weight": (16, 12),
    "block.norm.weight": (16,),
    "conv.weight": (4, 3, 3, 3),
    "temperature": (),
}
"""Float tensors of the base, besides a bfloat16 one and an output layer tied to the embedding."""

CHANGED = {
    "amber": set(SHAPES) - {"block.own.weight"},
    "bonsai": set(SHAPES) - {"block.tall.weight"},
    "chess": {"block.wide.weight", "block.square.weight", "block.norm.weight", "embed.weight"},
    "dance": set(SHAPES) - {"block.square.weight", "block.own.weight"},
    "bonsai2": set(SHAPES) - {"conv.weight"},
}
"""Which tensors each task changes; ``block.own.weight`` is bonsai's alone, and bonsai2 is a later version of it."""


@pytest.fixture(scope="session", autouse=True)
def _scrubbed(tmp_path_factory):
    """Nobody's own git settings, no surrounding hook, and one author."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.com\n[init]\ndefaultBranch = main\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("GIT_", "WVC_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="session")
def play():
    """The module that plays histories, under its own name."""
    spec = importlib.util.spec_from_file_location("play", _PLAY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A directory of model directories: ``base``, four tasks, and a second version of one of them."""
    root = tmp_path_factory.mktemp("models")
    random = torch.Generator().manual_seed(20)
    base = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    base["low.weight"] = torch.randn(24, 16, generator=random).bfloat16()
    base["position_ids"] = torch.arange(8)
    base["steps"] = torch.tensor(1000)
    _write(root / "base", base, "mit")
    for name, changed in CHANGED.items():
        tuned = dict(base)
        for tensor in sorted(changed):
            tuned[tensor] = base[tensor] + 0.05 * torch.randn(base[tensor].shape, generator=random)
        tuned["low.weight"] = (base["low.weight"] + 0.05 * torch.randn(24, 16, generator=random)).bfloat16()
        if name.startswith("bonsai"):
            tuned["steps"] = torch.tensor(2000 + len(name))
        tuned[f"{name}.head.weight"] = torch.randn(len(name), 16, generator=random)
        _write(root / name, tuned, "cc-by-nc-4.0" if name.startswith("bonsai") else "apache-2.0")
    return root


def _write(directory, tensors, licence):
    directory.mkdir()
    tied = {**tensors, "lm_head.weight": tensors["embed.weight"].clone()}
    save_file(tied, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text('{"model_type": "tiny"}\n')
    (directory / "vocab.txt").write_text("a\nb\n")
    (directory / "README.md").write_text(f"---\nlicense: {licence}\n---\n# {directory.name}\n")


@pytest.fixture(scope="session")
def play_elsewhere(models, tmp_path_factory):
    """Play histories in another process with another hash seed, directory and time zone, and return the listings."""

    def run(plays):
        root = tmp_path_factory.mktemp("elsewhere")
        job = {"root": str(root / "deep" / "down"), "models": str(models), "plays": plays}
        done = subprocess.run(
            [sys.executable, str(_PLAY)],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu"},
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return json.loads(done.stdout)

    return run


class Lab:
    """Repositories of this process, below one directory, and what they check out."""

    def __init__(self, play, models, seed, root):
        self._play = play
        self._seed = seed
        self._root = root
        self.models = models
        self.out = root / "out"

    def repo(self, *steps, name="repo"):
        """Take steps in a new repository that has the base."""
        root = shutil.copytree(self._seed, self._root / name)
        return self.take(weightvc.open(root), *steps)

    def take(self, repo, *steps):
        return self._play.take(repo, self.models, steps)

    def git(self, repo, *arguments):
        return self._play.git(repo, *arguments)

    def build(self, repo, checkouts, jobs=1):
        """Check out every labelled request into ``out / label`` and return the listings by label."""
        return self._play.build(repo, self.out, checkouts, jobs)

    def listing(self, label):
        return self._play.listing(self.out / label)

    def digest(self, repo, **request):
        """Return the digest of a checkout."""
        return repo.checkout(**request, output=self.out / "digest", jobs=1).digest

    @staticmethod
    def order(repo):
        """Return the names of the tasks in the default order."""
        return [line.task for line in repo.status().tasks]

    @staticmethod
    def contents(directory, *but):
        """Return the bytes of every file by its path, but for files of the given names."""
        paths = [path for path in directory.rglob("*") if path.is_file() and path.name not in but]
        return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def _seed(play, models, tmp_path_factory):
    """A repository with a base and no task."""
    return play.play(tmp_path_factory.mktemp("seed") / "repo", models, []).git.work_tree


@pytest.fixture
def lab(play, models, _seed, tmp_path):
    return Lab(play, models, _seed, tmp_path)


@pytest.fixture(scope="session")
def adding():
    """The steps that add tasks and commit them; ``name=model`` adds another model than the one of its name."""

    def steps(*names, codec="intdelta"):
        pairs = [(name.partition("=")[0], name.rpartition("=")[2]) for name in names]
        return [*(["add", name, model, codec] for name, model in pairs), ["commit"]]

    return steps
