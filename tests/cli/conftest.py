import re
import shutil
import signal

import pytest


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every test of this room."""


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Ctrl-C stops the tests, whatever a test did about it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def masked():
    """Replace what differs between runs, machines and versions of zstd: paths, ids, times, durations and sizes."""

    def mask(text: str, **names: object) -> str:
        for name, value in names.items():
            text = text.replace(str(value), name.upper())
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "TIME", text)
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
        text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}([0-9a-f]{4}|[0-9a-f]{28}|[0-9a-f]{52})?\b", "ID", text)
        text = re.sub(r" *\b\d+(\.\d [KMG]i)?B", " SIZE", re.sub(r"(\d+) B\b", r"\1B", text))
        return re.sub(r" *\b\d+\.\d (s|%)", r" N \1", text)

    return mask


@pytest.fixture
def told(masked, sandbox, tmp_path):
    """Run a command that must succeed and return its masked output."""

    def tell(*arguments):
        repo = tmp_path / "repo"
        return masked(sandbox(repo).wvc(*arguments), out=tmp_path / "out", repo=repo)

    return tell


@pytest.fixture(scope="module")
def family_once(sandbox, templates, tmp_path_factory):
    made = sandbox(tmp_path_factory.mktemp("family") / "repo")
    shutil.copytree(templates.root / "two", made.path, symlinks=True)
    made.put("child", templates.base, "--derived-from", "alpha", "--derived-from", "beta")
    made.wvc("recipe", "save", "prod", "--tasks", "alpha,beta=0.5")
    made.wvc("commit", "-m", "Save prod")
    return made.path


@pytest.fixture
def family(family_once, copied):
    """Alpha, beta, a child of both and a recipe."""
    return copied(family_once)
