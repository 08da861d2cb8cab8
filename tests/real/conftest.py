"""Published weights, genuine fine-tunes, and the command line as users run it."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LOCK = "wvc.lock.json"


@pytest.fixture(scope="session")
def _offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TRANSFORMERS_OFFLINE", "1")
        yield


def _load(name):
    """Import a benchmark script by its path, under its own name, as the scripts import each other."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def assets():
    return _load("assets")


@pytest.fixture(scope="session")
def finetunes(_offline):
    for name in ("assets", "texts"):
        _load(name)
    return _load("finetunes")


@pytest.fixture(scope="session")
def quick(finetunes):
    """Four genuine fine-tunes of MiniLM: task to a folder with the model directories `f32` and `bf16`."""
    return finetunes.quick()


@dataclass
class Repo:
    """A repository under test."""

    path: Path
    env: dict

    def run(self, *args):
        command = [sys.executable, "-m", "weightvc", "-C", str(self.path), "--json", *map(str, args)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def wvc(self, *args):
        done = self.run(*args)
        assert done.returncode == 0, f"wvc {args} exited {done.returncode}:\n{done.stderr}"
        return json.loads(done.stdout)

    def objects_bytes(self):
        store = self.path / ".git/wvc/objects"
        return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def new_repo(tmp_path_factory, _offline):
    """Make a repository over a base and add tasks to it: `new_repo(base, {name: path})`."""
    home = tmp_path_factory.mktemp("home")
    scrubbed = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "WVC_"))}
    who = {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**scrubbed, **who, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}

    def make(base, tasks):
        repo = Repo(tmp_path_factory.mktemp("repo"), env)
        repo.init = repo.wvc("init", repo.path, "--base", base)
        repo.added = {name: repo.wvc("add", path, "--task", name) for name, path in tasks.items()}
        repo.wvc("commit", "-m", "Add tasks")
        return repo

    return make


class Models:
    """Looks into model directories."""

    @staticmethod
    def tensors(path):
        """Read every tensor of a directory or file, whatever its format."""
        found = {}
        for file in [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]:
            torch_file = file.suffix == ".bin"
            found |= torch.load(file, weights_only=True, map_location="cpu") if torch_file else load_file(file)
        return found

    @staticmethod
    def files(root, *without):
        """Read every file of a directory but the lock, by its path in there, except the named ones."""
        paths = [path for path in root.rglob("*") if path.is_file()]
        names = {path.relative_to(root).as_posix(): path for path in paths}
        return {name: path.read_bytes() for name, path in names.items() if name not in {LOCK, *without}}

    @staticmethod
    def assert_same_tensors(found, wanted):
        """Compare names, dtypes, shapes and bits."""
        assert sorted(found) == sorted(wanted)
        for name, tensor in wanted.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
            bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor)]
            assert torch.equal(*bits), name


@pytest.fixture(scope="session")
def models():
    return Models
