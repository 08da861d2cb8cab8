"""A recorder of what commands change on disk, small repositories to run them in, and a judge of what crashes leave."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import disk
import judge
import pytest
import recorder as recording

from weightvc.history import commit, refresh


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment, tmp_path_factory):  # noqa: ARG001 -- it comes first
    """Every test of this room.

    git's own templates, hooks that nobody uses, would only be more files; and commits of the same are the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_TEMPLATE_DIR", str(tmp_path_factory.mktemp("template")))
        patch.setenv("GIT_AUTHOR_DATE", "1700000000 +0000")
        patch.setenv("GIT_COMMITTER_DATE", "1700000000 +0000")
        yield


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Nobody holds the locks that a killed git left."""
    monkeypatch.setattr(commit, "PATIENCE", 0.0)
    monkeypatch.setattr(refresh, "INDEX_PATIENCE", 0.0)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The compiled trace.c."""
    if not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        pytest.skip("trace.c is for 64-bit Linux")
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to compile trace.c with")
    return recording.compiled(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def namespace(tmp_path_factory):
    """The command that runs another one where file systems can be mounted, and nobody else sees them."""
    command = ["unshare", "--map-root-user", "--user", "--mount"]
    probe = [*command, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path_factory.mktemp("probe"))]
    if not shutil.which("unshare") or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: unshare -rUm is refused")
    return command


@pytest.fixture(scope="module")
def arena():
    """A directory in memory if there is one: a sync costs nothing there."""
    with tempfile.TemporaryDirectory(prefix="crash-", dir=judge.memory()) as made:
        yield Path(made).resolve()


@pytest.fixture(scope="module")
def recorder(library, arena):
    (arena / "recorder").mkdir()
    with recording.Recorder(library, arena / "recorder") as made:
        yield made


def _tensors(torch, seed=None):
    made = torch.Generator().manual_seed(0)
    tensors = {"layer.weight": torch.randn(6, 4, generator=made), "layer.bias": torch.randn(4, generator=made)}
    if seed is None:
        return tensors
    made.manual_seed(seed)
    return {name: t + 0.05 * torch.randn(t.shape, generator=made) for name, t in tensors.items()}


@dataclass(frozen=True)
class Start:
    """A repository to begin with: its files, and what it says of itself."""

    path: Path
    seen: judge.Seen


@pytest.fixture(scope="module")
def models(arena, models):
    """Checkpoints of two small tensors each."""
    import torch

    root = arena / "models"
    for seed, name in enumerate(("base", "alpha", "beta", "gamma", "next")):
        models.write(root / name, _tensors(torch, seed or None), files={"config.json": "{}\n"})
    return root


@pytest.fixture(scope="module")
def starts(arena, models, sandbox):
    """Where commands start: with nothing, one task, another one staged, two tasks, and a model made of them.

    And with objects that nothing refers to, or that are damaged.
    """
    root = arena / "starts"
    (root / "nothing").mkdir(parents=True)

    def after(start, name, *commands):
        made = sandbox(judge.copy(root / start, root / name))
        for command in commands:
            made.wvc(*command)

    after("nothing", "base", ("init", root / "base", "--base", models / "base"))
    after("base", "one", ("add", models / "alpha", "--task", "alpha"), ("commit", "-m", "Add alpha"))
    after("one", "staged", ("add", models / "beta", "--task", "beta"))
    after("staged", "two", ("commit", "-m", "Add beta"))
    save = ("recipe", "save", "prod", "--tasks", "alpha,beta=0.5")
    after("two", "littered", ("add", models / "gamma", "--task", "gone", "--codec", "raw"), ("unstage",))
    damaged = judge.copy(root / "two", root / "damaged")
    for object_ in sorted((damaged / ".git/wvc/objects").glob("*/*"))[:2]:
        object_.chmod(0o600)
        object_.write_bytes(object_.read_bytes()[:-1])
    after("two", "model", save, ("commit", "-m", "Save prod"), ("checkout", "--tasks", "alpha"))
    return {path.name: Start(path, judge.Judge.look(path)) for path in root.iterdir()}


@pytest.fixture(scope="module")
def judged(wvc, models):
    """The judge of what a crash left."""
    return judge.Judge(wvc, models)


@dataclass(frozen=True)
class Recorded:
    """A command that was run to its end: what it changed, and what the repository says of itself before and after."""

    disk: disk.Disk
    run: recording.Run
    old: judge.Seen
    new: judge.Seen


@pytest.fixture
def record(recorder, starts, arena):
    """Run a command to its end and return what it changed: ``record(start, *arguments)``, also from a crash on."""

    def run(start, *arguments, before=""):
        with tempfile.TemporaryDirectory(dir=arena) as made:
            root = Path(made) / "repo"
            if isinstance(start, disk.Crash):
                disk.write(start.tree, root)
                judge.restart(root)
            else:
                judge.copy(starts[start].path, root)
            held, old = disk.scan(root), judge.Judge.look(root)
            ran = recorder.run(root, *arguments, before=before)
            changed = disk.Disk(*held, ran.operations)
            assert ran.code == 0, ran.err
            assert changed.tree() == disk.scan(root)[0], "the recorder missed a change"
            return Recorded(changed, ran, old, judge.Judge.look(root))

    return run
