import pytest


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every test of this room."""
