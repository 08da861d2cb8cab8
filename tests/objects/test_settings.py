import pytest

from weightvc.objects.settings import Settings
from weightvc.util.errors import BadInput


def read(text):
    return Settings.from_bytes(text.encode(), "config.toml")


def test_what_is_left_out_has_its_default():
    assert read("") == read("[cache]\n") == Settings(None)
    assert read("cache.max_bytes = 0") == Settings(0)
    assert read("[cache]\nmax_bytes = 2_000_000_000\n") == Settings(2 * 10**9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cache = ", "config.toml: not valid TOML"),
        ("cash = 1", "config.toml: unknown cash"),
        ("cache = 1", "config.toml: an object was expected"),
        ("cache.bytes = 1", "config.toml: unknown bytes"),
        ("cache.max_bytes = -1", "config.toml: max_bytes: -1 is negative"),
        ("cache.max_bytes = '4GB'", "config.toml: max_bytes: '4GB' is not of type int"),
        ("cache.max_bytes = 1e9", "is not of type int"),
    ],
)
def test_everything_else_is_refused(text, words):
    with pytest.raises(BadInput, match=words) as caught:
        read(text)
    assert caught.value.hint == "correct the file, or delete it: all settings have defaults"
