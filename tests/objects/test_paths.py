import pytest

from weightvc.objects.paths import check, clashing
from weightvc.util.errors import BadInput


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


@pytest.mark.parametrize("path", ["", "..", "/etc/x", "a/../b", "a//b", "a/", "./a", "a\\b", "a/" + "ü" * 128])
def test_paths_that_lead_elsewhere_are_refused(path):
    with pytest.raises(BadInput) as caught:
        check(["b", path], "x")
    assert caught.value.what.endswith("is not the path of a file in a model directory")
    assert caught.value.hint == "rename it"


@pytest.mark.parametrize("path", ["wvc.lock.json", "WVC.Lock.json", ".git", ".git/config", "sub/.GIT/config"])
def test_names_of_wvc_and_git_are_refused(path):
    with pytest.raises(BadInput) as caught:
        check([path], "x")
    assert caught.value.what == f"x: {path!r} is a name that wvc or git keeps for itself"


@pytest.mark.parametrize("paths", [("a.TXT", "b", "A.txt"), ("a", "a/b"), ("A/b/c", "a/B"), ("a", "a")])
def test_files_that_clash_are_refused(paths):
    with pytest.raises(BadInput, match="cannot both be files of one directory on every file system") as caught:
        check(paths, "x")
    assert all(repr(path) in caught.value.what for path in (paths[0], paths[-1]))
    assert caught.value.hint == "rename or remove one of them"


def test_other_paths_are_fine():
    check(["a", "ab", "b/a", "b/c/wvc.lock.json", ".gitattributes", "sub/.gitignore", "ü" * 127, "b/c/..."], "x")
