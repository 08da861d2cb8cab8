import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from weightvc.objects.tensors import version_of
from weightvc.util import canon

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every test of this room."""


@pytest.fixture(scope="session")
def builders():
    """Load the builders of another room's tests: ``builders("delta/test_hostile")``."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"hostile_{Path(name).name}", TESTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@dataclass(frozen=True)
class Clone:
    """A repository that somebody offers to be cloned; ``out`` is where a checkout of it would go."""

    repo: object
    out: Path
    _refused: object

    def refuses(self, code, *arguments, says, hint=""):
        return self._refused(self.repo, code, *arguments, says=says, hint=hint)

    def refuses_alpha(self, says, hint="", code=4):
        """Ask for the task alpha, which is refused before anything is there."""
        ran = self.refuses(code, "checkout", "--tasks", "alpha", "-o", self.out, says=says, hint=hint)
        assert not self.out.exists()
        return ran

    def forge(self, edit):
        """Change alpha's manifest, and give it the form and the digest that its contents need."""
        path = self.repo.path / ".wvc/tasks/alpha.json"
        value = json.loads(path.read_bytes())
        edit(value)
        value["version"] = version_of((line["name"], line["digest"]) for line in value["tensors"])
        path.write_bytes(canon.document(value))
        self.repo.git("commit", "-qam", "Forged")

    def plant(self, data, codec="full", length=3000):
        """Store any bytes as an object, and add a file to alpha that they are said to be."""
        oid = hashlib.sha256(data).hexdigest()
        self.repo.object_file(oid).parent.mkdir(exist_ok=True)
        self.repo.object_file(oid).write_bytes(data)
        line = {"name": "zzz", "dtype": "U8", "shape": [length], "digest": "d" * 64, "state": "whole"}
        place = {"codec": codec, "object": oid, "size": len(data)}
        self.forge(lambda value: value["files"].append(line | place))
        return oid

    def an_object(self):
        """Return the id of one of alpha's objects."""
        return next(line["object"] for line in self.repo.manifest("alpha")["tensors"] if "object" in line)


@pytest.fixture
def clone(two, refused, tmp_path):
    return Clone(two, tmp_path / "out", refused)
