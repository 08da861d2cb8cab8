"""Remotes: addresses of stores of objects, in the settings of a clone."""

import shutil

import pytest

from weightvc.objects.settings import Settings


def settings(repo):
    return (repo.path / ".git/wvc/config.toml").read_text()


def test_a_remote_is_added_listed_tested_and_forgotten(two, tmp_path):
    disk = tmp_path / "disk"
    assert two.wvc("remote", "list") == "none\n"
    assert two.wvc("remote", "add", "origin", disk) == f"added remote origin: file://{disk}\n"
    two.wvc("remote", "add", "cloud", "s3://bucket/team")
    assert two.json("remote", "list")["remotes"] == [
        {"name": "cloud", "url": "s3://bucket/team"},
        {"name": "origin", "url": f"file://{disk}"},
    ]
    disk.mkdir()
    needed = two.json("remote", "test", "origin")
    assert (needed["needed"], needed["present"], needed["bytes"]) == (len(two.objects()), 0, 0)
    shutil.copytree(two.path / ".git/wvc/objects", disk / "objects")
    found = two.json("remote", "test", "origin")
    assert (found["present"], found["url"]) == (found["needed"], f"file://{disk}")
    assert f"it has {found['needed']} of {found['needed']} objects that HEAD needs" in two.wvc(
        "remote", "test", "origin"
    )
    assert two.wvc("remote", "rm", "cloud") == "forgot remote cloud: s3://bucket/team\n"
    two.wvc("remote", "rm", "origin")
    assert two.wvc("remote", "list") == "none\n"
    assert "remotes" not in settings(two)


def test_dry_runs_change_nothing(two):
    assert two.wvc("remote", "add", "a", "s3://b", "-n") == "would add remote a: s3://b\n"
    assert two.wvc("remote", "list") == "none\n"
    two.wvc("remote", "add", "a", "s3://b")
    assert two.wvc("remote", "rm", "a", "-n") == "would forget remote a: s3://b\n"
    assert two.json("remote", "list")["remotes"]


def test_other_settings_and_comments_stay(two):
    file = two.path / ".git/wvc/config.toml"
    file.write_text("# mine\n[cache]\nmax_bytes = 0  # none\n")
    two.wvc("remote", "add", "a", "s3://b")
    assert file.read_text() == '# mine\n[cache]\nmax_bytes = 0  # none\n\n[remotes]\na = "s3://b"\n'
    two.wvc("remote", "rm", "a")
    assert file.read_text().strip() == "# mine\n[cache]\nmax_bytes = 0  # none"


def test_nothing_of_it_is_tracked(two):
    before = two.git("status", "--porcelain")
    two.wvc("remote", "add", "a", "s3://b")
    assert two.git("status", "--porcelain") == before


def test_adding_the_same_again_is_no_matter(two, refused):
    two.wvc("remote", "add", "a", "s3://b")
    two.wvc("remote", "add", "a", "s3://b/")
    refused(two, 3, "remote", "add", "a", "s3://c", says="remote a is s3://b", hint="run `wvc remote rm a` first")


@pytest.mark.parametrize("name", ["-x", "", "a/b", "a b", "x" * 65, "\x1b"])
def test_names(two, refused, name):
    refused(two, 2, "remote", "add", "--", name, "s3://b", says="is no name of a remote", hint="use letters")


def test_addresses_that_are_none(two, refused):
    refused(two, 3, "remote", "add", "a", "s3://k:s@b", says="is no address of a remote", hint="write SCHEME://PATH")
    refused(two, 3, "remote", "add", "a", "ext::sh -c x", says="is no address of a remote", hint="write SCHEME://PATH")
    assert two.wvc("remote", "list") == "none\n"


def test_one_that_is_not_known(two, refused):
    two.wvc("remote", "add", "origin", "s3://b")
    hint = "did you mean origin? add one with `wvc remote add orign URL`"
    for command in ("rm", "test"):
        refused(two, 3, "remote", command, "orign", says="no remote 'orign'; the remotes are: origin", hint=hint)


def test_a_disk_that_is_not_there(two, refused, tmp_path):
    two.wvc("remote", "add", "disk", tmp_path / "nowhere")
    words = {"says": f"remote disk: {tmp_path}/nowhere is no directory", "hint": "mount the disk, or `mkdir` it"}
    refused(two, 5, "remote", "test", "disk", **words)


@pytest.mark.parametrize("text", ["[remotes]\na = 1\n", '[remotes]\n"a/b" = "s3://b"\n', "remotes = 1\n", "[remote]\n"])
def test_settings_that_are_none(two, refused, text):
    (two.path / ".git/wvc/config.toml").write_text(text)
    refused(two, 3, "remote", "list", says="config.toml", hint="correct the file, or delete it")


def test_settings_are_parsed_as_they_are_written():
    assert Settings.from_bytes(b'[remotes]\na = "s3://b"\n', "x") == Settings(None, {"a": "s3://b"})
