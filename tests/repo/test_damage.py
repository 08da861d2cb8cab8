"""A thousand bits flipped and files cut short, wherever wvc keeps anything: each is found, and none is served."""

import random
import shutil
from contextlib import suppress

import pytest

import weightvc
from weightvc.util.errors import WeightvcError

KINDS = {
    "objects": ".git/wvc/objects/*/*",
    "history": ".git/objects/*/*",
    "staged": ".git/wvc/stage/*/*.*",
    "cached": ".git/wvc/cache/*",
}
SHARES = {"objects": 400, "history": 300, "staged": 200, "cached": 100}
PARTS = 10
LOCK = "wvc.lock.json"


@pytest.fixture(scope="module")
def stored(templates, sandbox, tmp_path_factory):
    """A repository that has something in every place: tasks, a removal, recipes, staged files and cached states."""
    root = tmp_path_factory.mktemp("damage")
    repo = sandbox(root / "repo")
    shutil.copytree(templates.root / "two", repo.path, symlinks=True)
    repo.put("gone", templates.alpha)
    repo.wvc("revert", "gone")
    repo.wvc("recipe", "save", "kept", "--tasks", "alpha,beta")
    repo.wvc("commit", "-m", "A recipe")
    repo.wvc("checkout", "-o", root / "out", "--method", "opcm-s")
    repo.wvc("add", templates.beta, "--task", "staged")
    repo.wvc("recipe", "save", "staged", "--tasks", "alpha")
    assert all(list(repo.path.glob(pattern)) for pattern in KINDS.values())
    return repo, root / "out"


def damaged(data, chance):
    """Return data with one bit flipped, or cut short."""
    if chance.random() < 0.2:
        return data[: chance.randrange(len(data))]
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def found(repo):
    try:
        return not repo.fsck(full=True, jobs=1).ok
    except WeightvcError:
        return True


def served(repo, out):
    """Return the files of a checkout, ``None`` if it is refused."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        repo.checkout(output=out, method="opcm-s", jobs=1)
    except WeightvcError:
        return None
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def without_time(files):
    return files and {name: data for name, data in files.items() if name != LOCK}


@pytest.mark.parametrize("part", range(PARTS))
def test_damage_is_found_and_never_served(stored, tmp_path, part):
    repo, out = stored
    expected = {path.name: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    copy = tmp_path / "repo"
    shutil.copytree(repo.path, copy, symlinks=True)
    chance = random.Random(part)
    opened = weightvc.open(copy)
    for kind, count in SHARES.items():
        files = sorted(path for path in copy.glob(KINDS[kind]) if path.is_file())
        for _ in range(count // PARTS):
            file = chance.choice(files)
            good, mode = file.read_bytes(), file.stat().st_mode
            if not good:
                continue
            file.chmod(0o600)
            file.write_bytes(damaged(good, chance))
            came = None
            if kind != "cached":
                seen = found(opened)
                came = served(opened, tmp_path / "out") if not seen or chance.random() < 0.2 else None
                assert seen or (kind == "history" and came), f"{kind}: {file.name} was not found"
            else:
                came = served(opened, tmp_path / "out")
                assert came
            assert came is None or without_time(came) == without_time(expected), f"{kind}: {file.name} was served"
            file.write_bytes(good)
            file.chmod(mode)


def test_damage_in_an_output_is_found_by_verify(stored, tmp_path):
    repo, out = stored
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    opened = weightvc.open(repo.path)
    assert opened.verify(copy, jobs=1).ok
    chance = random.Random(1)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != LOCK)
    for _ in range(100):
        file = chance.choice(files)
        good = file.read_bytes()
        file.write_bytes(damaged(good, chance))
        with suppress(WeightvcError):
            assert not opened.verify(copy, jobs=1).ok, file
        file.write_bytes(good)
