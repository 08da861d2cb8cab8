import pytest
from lora import BASE


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every test of this room."""


@pytest.fixture(scope="module")
def made_once(sandbox, models, wvc, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    assert wvc("init", root / "repo", "--base", models.write(root / "base", BASE)).code == 0
    return sandbox(root / "repo")


@pytest.fixture
def repo(made_once, copied):
    """A repository over `BASE` without a task."""
    return copied(made_once.path)
