"""A pool of tiny checkpoints of one base, a repository to start from, and how long to look for counterexamples."""

import os
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file

import weightvc

_COMMON = {"deadline": None, "suppress_health_check": [*HealthCheck], "print_blob": True}
settings.register_profile("ci", max_examples=12, stateful_step_count=12, derandomize=True, database=None, **_COMMON)
settings.register_profile("deep", max_examples=200, stateful_step_count=30, **_COMMON)
PROFILE = settings.get_profile(os.environ.get("WVC_HYPOTHESIS_PROFILE", "ci"))

SHAPES = {"down.weight": (5, 9), "up.weight": (9, 6), "norm.weight": (7,), "scale": (), "none": (0, 3)}
"""Float tensors of the base, besides a bfloat16 one and an integer one."""


@dataclass(frozen=True)
class World:
    """What every example starts from.

    ``base`` and ``checkpoints`` hold tensors by name, one checkpoint a number; their files are below ``root``, and
    so is a repository that has the base and no task.
    """

    root: Path
    base: dict
    checkpoints: list
    profile: settings
    numbers: count

    def new(self):
        """Copy the repository."""
        return weightvc.open(shutil.copytree(self.root / "seed", self.root / f"example-{next(self.numbers)}"))

    def path(self, number):
        return self.root / f"{number}.safetensors"


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in [*os.environ]:
        if name.startswith(("GIT_", "WVC_")):
            monkeypatch.delenv(name)
    (tmp_path / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.com\n[init]\ndefaultBranch = main\n")
    for name, value in {"HOME": tmp_path, "XDG_CONFIG_HOME": tmp_path / "xdg", "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, str(value))
    base, checkpoints = _pool()
    made = World(tmp_path, base, checkpoints, PROFILE, count())
    save_file(base, tmp_path / "base.safetensors")
    for number, tensors in enumerate(checkpoints):
        save_file(tensors, made.path(number))
    weightvc.initialize(tmp_path / "seed", tmp_path / "base.safetensors", jobs=1)
    return made


def _pool():
    """Return a base and checkpoints that change different tensors; one changes none, two are the same."""
    random = torch.Generator().manual_seed(7)
    base = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    base["norm.weight"][:2] = -0.0
    base["half.weight"] = torch.randn(6, 4, generator=random).bfloat16()
    base["ids"] = torch.arange(5)
    changed = [set(SHAPES), {"down.weight", "scale"}, {"up.weight", "half.weight"}, set(), {*SHAPES, "half.weight"}]
    checkpoints = []
    for names in changed:
        moved = {name: 0.1 * torch.randn(base[name].shape, generator=random) for name in sorted(names)}
        tuned = {name: (base[name] + moved[name]).to(base[name].dtype) for name in moved}
        checkpoints.append({**base, **tuned})
    return base, [*checkpoints, checkpoints[0]]
