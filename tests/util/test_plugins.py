"""Entry points by name."""

from importlib import metadata

import pytest

from weightvc.util import plugins
from weightvc.util.errors import NotFound


@pytest.fixture(autouse=True)
def _forget():
    plugins.load.cache_clear()
    yield
    plugins.load.cache_clear()


def test_an_entry_point_is_loaded_once(monkeypatch):
    loads = []

    def entry_points(**wanted):
        assert wanted == {"group": "weightvc.things", "name": "it"}
        return metadata.EntryPoints([Entry("it", "a.b:c", "weightvc.things")])

    class Entry(metadata.EntryPoint):
        def load(self):
            loads.append(self.value)
            return "thing"

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert plugins.load("weightvc.things", "it") == "thing"
    assert plugins.load("weightvc.things", "it") == "thing"
    assert loads == ["a.b:c"]


def test_a_name_nobody_provides():
    with pytest.raises(NotFound, match=r"^no installed package provides 'no\\\\u0007' in weightvc\.things$"):
        plugins.load("weightvc.things", "no\x07")
