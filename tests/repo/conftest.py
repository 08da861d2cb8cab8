import shutil

import pytest


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every test of this room."""


@pytest.fixture(scope="module")
def family_once(sandbox, templates, models, tmp_path_factory):
    root = tmp_path_factory.mktemp("family")
    made = sandbox(root / "repo")
    shutil.copytree(templates.root / "two", made.path, symlinks=True)
    made.put("child", models.write(root / "child", models.tuned(models.base(), 5)), "--derived-from", "alpha")
    made.put("grand", models.write(root / "grand", models.tuned(models.base(), 6)), "--derived-from", "child")
    made.wvc("recipe", "save", "prod", "--tasks", "alpha=0.5,beta", "--method", "task_arithmetic")
    made.wvc("recipe", "save", "rest", "--tasks", "beta")
    made.wvc("commit", "-m", "Save them")
    return made.path


@pytest.fixture
def family(family_once, copied):
    """Alpha and beta, a child of alpha, a grandchild, and recipes."""
    return copied(family_once)
