"""Writes a golden repository: run once for each released format, never to make a failing test pass.

python tests/golden/make_repository.py tests/golden/repository-1.tar.xz

It has a base in two shards; tasks of every kind: a pickled one, one that moves a part, a lossy one, an adapter, and one
with a head; a recipe with a rule, a removed task, a staged one, and a checkout; beside it the models that were added.
"""

import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "/elsewhere"}
QUERY = "encoder.layer.1.attention.query"


def model_kit():
    """Return what the tests make their models with."""
    spec = importlib.util.spec_from_file_location("conftest", HERE.parent / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["conftest"] = module
    spec.loader.exec_module(module)
    return module.ModelKit


def write_models(root: Path) -> None:
    """Write the base and the fine-tunes."""
    kit = model_kit()
    made = torch.Generator().manual_seed(7)
    small, wide = kit.base(), {"wide.weight": torch.randint(-8, 8, (64, 96), generator=made) / 64}
    base = small | wide
    kit.write(root / "base", base, shards=2)
    kit.write(root / "whole", kit.tuned(small, 1) | wide, kind="bin")
    kit.write(root / "part", kit.tuned(small, 2, only="layer") | wide)
    moved = wide["wide.weight"] + torch.randn(64, 96, generator=made) / 256
    kit.write(root / "lossy", base | {"wide.weight": moved})
    kit.write(root / "head", kit.tuned(small, 4) | wide | {"classifier.weight": torch.arange(24.0).reshape(2, 12)})
    kit.write(root / "gone", kit.tuned(small, 5) | wide)
    kit.write(root / "staged", kit.tuned(small, 6) | wide)
    factors = {f"base_model.model.{QUERY}.lora_{side}.weight": torch.randn(shape, generator=made) / 8
               for side, shape in (("A", (2, 12)), ("B", (12, 2)))}  # fmt: skip
    (root / "adapter").mkdir()
    save_file(factors, root / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    (root / "adapter/adapter_config.json").write_text(json.dumps(ADAPTER))


def make(root: Path) -> None:
    """Make the repository and its models below ``root``."""
    write_models(root / "models")

    def wvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "weightvc", "-C", str(root / "repo"), *arguments], check=True)

    wvc("-C", str(root), "init", str(root / "repo"), "--base", str(root / "models/base"))
    for task in ("whole", "part", "lossy", "head", "gone", "adapter"):
        wvc("add", str(root / "models" / task), "--task", task, *(["--codec", "int8"] if task == "lossy" else []))
        wvc("commit", "-m", f"Add {task}")
    rule = "pooler\\..*=task_arithmetic:scaling=0.5"
    wvc("recipe", "save", "prod", "--tasks", "whole,part=0.7,adapter,head", "--rule", rule, "-p", "alpha=0.4")
    wvc("commit", "-m", "Add the recipe")
    wvc("revert", "gone", "-m", "Take it out")
    wvc("checkout", "--recipe", "prod")
    wvc("add", str(root / "models/staged"), "--task", "staged")


def main() -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "models").mkdir()
        make(root)
        with tarfile.open(sys.argv[1], "x:xz", format=tarfile.PAX_FORMAT) as archive:
            for part in ("models", "repo"):
                archive.add(root / part, part, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Return a member without its owner, and leave out git's samples and what is computed again."""
    if "/.git/hooks" in member.name or member.name.endswith(("/wvc/cache", "/wvc/tmp")):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
