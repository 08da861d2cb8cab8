import pytest

from weightvc.objects.config import Config
from weightvc.util.errors import BadInput, Unsupported


def read(text):
    return Config.from_bytes(text.encode(), ".wvc/config.toml")


def test_the_bytes_are_these():
    assert Config().to_bytes() == b'format = 1\n\n[merge]\nmethod = "opcm-s"\n\n[merge.params]\n'
    assert Config("linear", {"x": 0.5}).to_bytes().endswith(b'method = "linear"\n\n[merge.params]\nx = 0.5\n')


@pytest.mark.parametrize("config", [Config(), Config("opcm", {"alpha": 0.25, "other": "a|b", "n": 3, "yes": True})])
def test_what_is_written_is_read(config):
    assert Config.from_bytes(config.to_bytes(), "x") == config


def test_what_is_left_out_has_its_default():
    assert read("format = 1\n") == read("format = 1\n[merge]\n") == Config("opcm-s", {})
    assert read("format = 1\nmerge.method = 'linear'") == Config("linear", {})


@pytest.mark.parametrize("version", [2, 0, 99])
def test_another_format_asks_for_an_upgrade(version):
    words = rf"\.wvc/config\.toml: repository format {version}; this wvc reads format 1"
    with pytest.raises(Unsupported, match=words) as caught:
        read(f"format = {version}\nsurprise = true\n")
    assert caught.value.hint == "upgrade weightvc"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = ", "not valid TOML"),
        ("format = 1\nx = " + "[" * 100_000, "not valid TOML"),
        ("", "format: None is not of type int"),
        ("format = '1'", "format: '1' is not of type int"),
        ("format = 1.0", "format: 1.0 is not of type int"),
        ("format = true", "format: True is not of type int"),
        ("format = 1\ntoken = 'secret'", "unknown token"),
        ("format = 1\nmerge.command = 'sh'", "unknown command"),
        ("format = 1\nmerge = 3", "an object was expected"),
        ("format = 1\nmerge.method = 3", "3 is not of type str"),
        ("format = 1\nmerge.params = 3", "3 is not of type dict"),
        ("format = 1\nmerge.params = {a = [1], b = nan}", "no text, boolean or finite number: a, b"),
    ],
)
def test_what_is_no_config_is_refused(text, words):
    with pytest.raises(BadInput, match=words) as caught:
        read(text)
    assert str(caught.value).startswith(".wvc/config.toml: ")


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(BadInput, match="x: not valid TOML"):
        Config.from_bytes(b"\xff", "x")
