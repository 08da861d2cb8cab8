import pytest

from weightvc.objects.paths import clashing


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("a", "a"),
        ("A/b", "a/B"),
        ("README.md/x/y", "readme.MD"),
        ("heads", "heads/x.safetensors"),
        ("a/b", "a/b/c/d"),
        ("STRASSE", "straße"),
    ],
)
def test_what_cannot_stand_in_one_directory(path, taken):
    assert clashing(["other", path], ["x", taken]) == [path]


@pytest.mark.parametrize(
    ("path", "taken"), [("a", "ab"), ("a/b", "a/c"), ("heads/config.json", "heads/x"), ("a/b", "b")]
)
def test_what_can(path, taken):
    assert clashing([path], [taken]) == []
