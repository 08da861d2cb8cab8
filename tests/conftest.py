"""What the rooms' tests share: a clean environment, small models, and repositories made of them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

LOCK = "wvc.lock.json"
CARD = "---\nlicense: mit\nbase_model: example/tiny\nlibrary_name: transformers\n---\n# Tiny\n"
FILES = {
    "config.json": '{"model_type": "tiny"}\n',
    "tokenizer.json": '{"version": "1.0"}\n',
    "tokenizer_config.json": "{}\n",
    "modules.json": "[]\n",
    "1_Pooling/config.json": '{"pooling_mode_mean_tokens": true}\n',
    "README.md": CARD,
}


@contextmanager
def _clean(home: Path) -> Iterator[None]:
    """Hide the user's own settings from git, wvc and the model libraries, and give git somebody to be."""
    home.joinpath(".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.com\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GIT_", "WVC_", "_WVC_"))]:
            patch.delenv(name)
        for name in ("NO_COLOR", "FORCE_COLOR", "CI", "EMAIL", "XDG_CONFIG_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TZ", "UTC")
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="session")
def _home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def clean_environment(_home):
    """Nobody's own settings, for a whole test module."""
    with _clean(_home):
        yield


class ModelKit:
    """Makes and reads small checkpoints; tensors are torch's."""

    files = FILES

    @staticmethod
    def base(seed: int = 0) -> dict:
        import torch

        made = torch.Generator().manual_seed(seed)

        def normal(*shape, dtype=torch.float32):
            return torch.randn(shape, generator=made, dtype=torch.float64).to(dtype)

        tensors = {
            "embeddings.word_embeddings.weight": normal(40, 12),
            "embeddings.position_ids": torch.arange(20).reshape(1, 20),
            "logit_scale": normal(),
            "empty": normal(0, 4),
        }
        for layer in range(3):
            name = f"encoder.layer.{layer}"
            tensors[f"{name}.attention.query.weight"] = normal(12, 12)
            tensors[f"{name}.attention.query.bias"] = normal(12)
            tensors[f"{name}.output.dense.weight"] = normal(12, 24, dtype=torch.bfloat16)
            tensors[f"{name}.output.norm.weight"] = normal(24, dtype=torch.float16)
        tensors["pooler.weight"] = normal(6, 12, dtype=torch.float64)
        return tensors

    @staticmethod
    def tuned(base: Mapping, seed: int, *, scale: float = 0.05, only: str = "") -> dict:
        """Move every floating-point tensor whose name holds ``only``."""
        import torch

        made = torch.Generator().manual_seed(1000 + seed)
        moved = {}
        for name, tensor in base.items():
            step = torch.randn(tensor.shape, generator=made, dtype=torch.float64)
            moves = tensor.is_floating_point() and only in name
            moved[name] = (tensor.double() + scale * step).to(tensor.dtype) if moves else tensor.clone()
        return moved

    @staticmethod
    def write(path: Path, tensors: Mapping, *, shards: int = 1, kind: str = "safetensors", files=None) -> Path:
        """Write a model directory: ``kind`` is ``safetensors`` or ``bin``, in ``shards`` files with an index."""
        import torch
        from safetensors.torch import save_file

        path.mkdir(parents=True)
        stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
        names = [f"{stem}-{i + 1:05d}-of-{shards:05d}.{suffix}" for i in range(shards)]
        names = names if shards > 1 else [f"{stem}.{suffix}"]
        places = {name: names[i % len(names)] for i, name in enumerate(tensors)}
        for file in names:
            held = {name: tensors[name] for name, place in places.items() if place == file}
            if kind == "safetensors":
                save_file(held, path / file, metadata={"format": "pt"})
            else:
                torch.save(held, path / file)
        if shards > 1:
            index = {"metadata": {"total_size": 1}, "weight_map": places}
            (path / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=2))
        for name, text in (FILES if files is None else files).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        return path

    @staticmethod
    def read(path: Path) -> dict:
        """Read every tensor of a directory or file, whatever its format, heads left out."""
        import torch
        from safetensors.torch import load_file

        found = {}
        for file in [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.bin")]:
            found |= torch.load(file, weights_only=True) if file.suffix == ".bin" else load_file(file)
        return found

    @staticmethod
    def contents(root: Path) -> dict[str, bytes]:
        """Return every file of a directory but the lock, by its path in there."""
        paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != LOCK)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    @staticmethod
    def assert_same(found: Mapping, wanted: Mapping) -> None:
        """Compare names, dtypes, shapes and bits."""
        import torch

        assert sorted(found) == sorted(wanted)
        for name, tensor in wanted.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
            bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor)]
            assert torch.equal(*bits), name


@pytest.fixture(scope="session")
def models():
    return ModelKit


@dataclass(frozen=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class _Stream(io.TextIOWrapper):
    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()


def _run(*arguments: object) -> Ran:
    """Run the command line in this process and return its exit code and output."""
    from weightvc.cli.main import run

    out, err = _Stream(), _Stream()
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with pytest.MonkeyPatch.context() as patch, chdir(Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["wvc", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
    for number, handler in signals.items():
        signal.signal(number, handler)
    return Ran(int(ended.value.code or 0), out.text, err.text)


@pytest.fixture(scope="session")
def wvc():
    """Run the command line: ``wvc("status").out``."""
    return _run


@dataclass(frozen=True)
class Sandbox:
    """A repository in a directory of its own, driven by the command line and by plain git."""

    path: Path

    def run(self, *arguments: object) -> Ran:
        return _run("-C", self.path, *arguments)

    def wvc(self, *arguments: object) -> str:
        """Run a command that must succeed, and return what it prints."""
        ran = self.run(*arguments)
        assert ran.code == 0, ran.err
        return ran.out

    def json(self, *arguments: object):
        """Run a command that must succeed, and return its document."""
        return json.loads(self.wvc("--json", *arguments))

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments], check=False, stdout=-1, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.strip("\n")

    def api(self):
        """Return the repository as the library opens it."""
        import weightvc

        return weightvc.open(self.path)

    def put(self, name: str, model: Path, *options: object):
        """Add a task and commit it."""
        added = self.json("add", model, "--task", name, *options)
        self.json("commit", "-m", f"Add {name}")
        return added

    def objects(self) -> set[str]:
        return {path.parent.name + path.name for path in (self.path / ".git/wvc/objects").glob("*/*")}

    def object_file(self, oid: str) -> Path:
        return self.path / ".git/wvc/objects" / oid[:2] / oid[2:]

    def staged(self, path: str) -> bytes:
        """Return what is staged for ``tasks/NAME.json`` or a recipe, without the checksum's line."""
        lines = (self.path / ".git/wvc/stage" / path).read_bytes().splitlines(keepends=True)
        assert lines[-1].startswith(b"xxh3-128 ")
        return b"".join(lines[:-1])

    def manifest(self, task: str):
        return json.loads((self.path / f".wvc/tasks/{task}.json").read_text())

    def everything(self) -> dict[str, bytes]:
        """Return every file of wvc's and of the work tree, and the branches: what a refused command must not change.

        Cached states may come and go.
        """
        roots = [path for path in self.path.iterdir() if path.name != ".git"]
        roots += [self.path / ".git" / name for name in ("wvc", "refs", "HEAD")]
        paths = [path for root in roots for path in (root, *root.rglob("*")) if "wvc/cache" not in path.as_posix()]
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes() if path.is_file() else b"directory"
            for path in paths
        }


@dataclass(frozen=True)
class Templates:
    """Built once: models, a repository of the base alone, and one with the tasks alpha and beta."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "models/base"

    @property
    def alpha(self) -> Path:
        return self.root / "models/alpha"

    @property
    def beta(self) -> Path:
        return self.root / "models/beta"


@pytest.fixture(scope="session")
def templates(tmp_path_factory, _home):
    root = tmp_path_factory.mktemp("templates")
    made = Templates(root)
    tensors = ModelKit.base()
    ModelKit.write(made.base, tensors)
    ModelKit.write(made.alpha, ModelKit.tuned(tensors, 1), files={**FILES, "README.md": "---\nlicense: gpl-3.0\n---\n"})
    ModelKit.write(made.beta, ModelKit.tuned(tensors, 2, only="layer"), files={**FILES, "README.md": "no front\n"})
    with _clean(_home):
        assert _run("init", root / "empty", "--base", made.base).code == 0
        shutil.copytree(root / "empty", root / "two", symlinks=True)
        two = Sandbox(root / "two")
        two.put("alpha", made.alpha)
        two.put("beta", made.beta)
    return made


@pytest.fixture(scope="session")
def sandbox():
    """Drive a repository that is at a path: ``sandbox(path)``."""
    return Sandbox


@pytest.fixture
def empty(templates, tmp_path):
    """A repository with a base and no tasks."""
    return Sandbox(Path(shutil.copytree(templates.root / "empty", tmp_path / "repo", symlinks=True)))


@pytest.fixture
def two(templates, tmp_path):
    """A repository with the tasks alpha and beta."""
    return Sandbox(Path(shutil.copytree(templates.root / "two", tmp_path / "repo", symlinks=True)))


@pytest.fixture
def copied(tmp_path):
    """Copy a repository that was made once: ``copied(path)``."""
    return lambda path: Sandbox(Path(shutil.copytree(path, tmp_path / "repo", symlinks=True)))


@pytest.fixture
def repository(tmp_path):
    """Make a repository over any base: ``repository(path, *init_options)``."""

    def make(base: Path, *options: object, name: str = "repo") -> Sandbox:
        made = Sandbox(tmp_path / name)
        ran = _run("init", made.path, "--base", base, *options)
        assert ran.code == 0, ran.err
        return made

    return make


@pytest.fixture
def refused():
    """Run a command that must be refused: code and words as given, and nothing written."""

    def check(sandbox: Sandbox, code: int, *arguments: object, says: str, hint: str = "") -> Ran:
        before = sandbox.everything()
        ran = sandbox.run(*arguments)
        assert ran.code == code, ran.err
        assert says in ran.err
        assert f"hint: {hint}" in ran.err
        assert ran.out == ""
        after = sandbox.everything()
        assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} == set()
        return ran

    return check
