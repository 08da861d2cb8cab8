"""What programs read: one document on standard output, with a versioned schema and the pinned keys."""

import json
import shutil

import pytest

from weightvc.cli.group import COMMANDS


def keys(value):
    return set(value) - {"schema"}


@pytest.fixture(scope="module")
def story(sandbox, templates, tmp_path_factory):
    """A repository that a module's tests do not change any further."""
    made = sandbox(tmp_path_factory.mktemp("story") / "repo")
    shutil.copytree(templates.root / "two", made.path, symlinks=True)
    return made


@pytest.fixture(scope="module")
def documents(story, templates, wvc):
    """The document of every command, as it is run in a story."""
    found, tmp_path = {}, story.path.parent

    def tell(name, *arguments):
        ran = story.run(*arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.count("\n") == 1
        found[name] = json.loads(ran.out)

    found["init"] = wvc("init", tmp_path / "new", "--base", templates.base, "--json").json
    tell("add", "add", templates.alpha, "--task", "more")
    tell("estimate", "add", templates.beta, "--task", "alpha", "--estimate")
    tell("recipe-save", "recipe", "save", "prod", "--tasks", "alpha,beta")
    tell("status", "status")
    tell("unstage", "unstage", "prod", "-n")
    tell("commit", "commit", "-m", "More")
    tell("log", "log", "--graph")
    tell("show", "show", "alpha")
    tell("show-revision", "show", "HEAD")
    tell("diff", "diff", "alpha", "beta", "--layers", "--md")
    tell("checkout", "checkout", "-o", tmp_path / "out")
    tell("verify", "verify", tmp_path / "out")
    tell("fsck", "fsck")
    tell("gc", "gc", "-n")
    tell("du", "du")
    tell("repack", "repack", "-n")
    tell("recipe-list", "recipe", "list")
    tell("recipe-show", "recipe", "show", "prod")
    tell("revert", "revert", "more")
    tell("recipe-rm", "recipe", "rm", "prod")
    (tmp_path / "disk").mkdir()
    tell("remote-add", "remote", "add", "disk", tmp_path / "disk")
    tell("remote-list", "remote", "list")
    tell("remote-test", "remote", "test", "disk")
    tell("push", "push", "--objects-only")
    tell("fetch", "fetch", "--objects-only")
    tell("remote-rm", "remote", "rm", "disk")
    tell("env", "env")
    tell("completion", "completion", "bash")
    story.wvc("commit", "-m", "The end")
    return found


PINNED = {
    "init": {"base"},
    "add": {"task", "manifest", "tensors", "bytes", "stored_bytes", "codec"},
    "commit": {"commit", "tasks"},
    "checkout": {"output", "recipe", "method", "tensors", "bytes", "seconds", "digest", "lock"},
    "revert": {"commit", "task", "recipes", "dependants", "rebuilt", "audit"},
}
NAMED = {"name", "tasks", "method", "params", "digest", "staged"}
ALL = {
    "init": {"repository", "base", "commit", "warnings"},
    "add": {*PINNED["add"], "relative_norm", "notes", "staged", "peak_bytes", "change", "retyped"},
    "commit": {"commit", "tasks", "recipes", "warnings", "versions", "stored"},
    "status": {
        "repository", "commit", "base", "method", "tasks", "recipes", "staged", "outputs", "directories", "edited",
        "conflicts", "under_way", "empty", "branch",
    },
    "unstage": {"dropped"},
    "log": {"commits", "lineage"},
    "show": {
        "task", "uuid", "version", "added", "base", "source", "lineage", "tensors", "dtypes", "codecs", "files",
        "renamed", "new", "nonfinite", "bytes", "stored_bytes",
    },
    "show-revision": {"commit", "base", "method", "tasks", "recipes"},
    "diff": {"a", "b", "total", "layers"},
    "checkout": {
        *PINNED["checkout"], "params", "exact", "rules", "read_bytes", "scratch_bytes", "peak_bytes", "notes",
    },
    "verify": {"path", "digest", "ok", "checks"},
    "fsck": {"ok", "full", "manifests", "objects", "bytes", "unreferenced", "findings"},
    "gc": {"removed", "removed_bytes", "young", "young_bytes", "used", "grace_days", "objects"},
    "du": {
        "usage", "objects", "objects_bytes", "unreferenced", "unreferenced_bytes", "cache_bytes", "scratch_bytes",
        "quarantine_bytes",
    },
    "estimate": {"task", "bytes", "sampled_bytes", "estimates"},
    "repack": {"tasks", "staged"},
    "recipe-save": NAMED,
    "recipe-list": {"recipes"},
    "recipe-show": NAMED,
    "recipe-rm": NAMED,
    "revert": {
        *PINNED["revert"], "tasks", "same", "kept_bytes", "would_rebuild", "unproved", "warnings", "audits", "emptied",
        "dropped", "notes",
    },
    "remote-add": {"name", "url"},
    "remote-list": {"remotes"},
    "remote-test": {"name", "url", "needed", "present", "bytes"},
    "remote-rm": {"name", "url"},
    "push": {"remote", "url", "objects", "bytes", "present", "branch"},
    "fetch": {"remote", "url", "objects", "bytes", "present", "absent"},
    "env": {"wvc", "python", "platform", "cores", "git", "packages"},
    "completion": {"shell", "script"},
}  # fmt: skip


def test_every_command_prints_one_document_with_its_keys(documents):
    for name, wanted in ALL.items():
        assert keys(documents[name]) >= wanted, name
        assert documents[name]["schema"] == f"weightvc/{name.removesuffix('-revision')}/1"
    for name, wanted in PINNED.items():
        assert keys(documents[name]) >= wanted
    assert {name.partition("-")[0] for name in documents if name != "estimate"} == set(COMMANDS)


def test_members_of_members(documents):
    assert keys(documents["init"]["base"]) >= {"digest", "tensors", "bytes", "stored_bytes"}
    assert keys(documents["add"]["tensors"]) >= {"same", "delta", "added", "removed"}
    assert keys(documents["revert"]["rebuilt"][0]) >= {"recipe", "before", "after"}
    line = {"task", "version", "added", "bytes", "stored_bytes", "lossy"}
    assert keys(documents["status"]["tasks"][0]) == keys(documents["show-revision"]["tasks"][0]) == line
    commit = {"commit", "time", "author", "subject", "parents", "added", "changed", "removed", "recipes", "stored"}
    assert keys(documents["log"]["commits"][0]) == keys(documents["show-revision"]["commit"]) == commit
    assert documents["log"]["lineage"] == {"alpha": [], "beta": [], "more": []}
    figures = {"name", "tensors", "changed_a", "norm_a", "changed_b", "norm_b", "cosine", "sign_conflict", "differing"}
    assert keys(documents["diff"]["total"]) == keys(documents["diff"]["layers"][0]) == figures
    figures = {"codec", "level", "stored_bytes", "ratio", "encode_mb_s", "lossy"}
    assert keys(documents["estimate"]["estimates"][0]) == figures
    assert keys(documents["repack"]["tasks"][0]) == {"task", "bytes", "before_bytes", "after_bytes"}
    assert keys(documents["verify"]["checks"][0]) == {"name", "ok", "detail"}


def test_the_document_is_that_of_the_library(story, documents):
    import dataclasses

    shown = dataclasses.asdict(story.api().show("alpha"))

    assert {**json.loads(json.dumps(shown)), "schema": "weightvc/show/1"} == documents["show"]


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_may_stand_before_or_after_the_command(story, place):
    arguments = ["--json", "status"] if place == "before" else ["status", "--json"]

    assert story.run(*arguments).json["schema"] == "weightvc/status/1"


FAILURES = [
    (("show", "nobody"), 3, "NotFound"),
    (("add", "/no/such", "--task", "x"), 3, "NotFound"),
    (("add", "/dev/null", "--task", "x"), 3, "BadInput"),
    (("checkout", "--method", "magic"), 2, "UsageError"),
    (("checkout", "--bogus"), 2, "UsageError"),
    (("bogus",), 2, "UsageError"),
    (("add",), 2, "UsageError"),
    (("commit", "-m", "x"), 3, "RequestError"),
    (("recipe", "save"), 2, "UsageError"),
]


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(("arguments", "code", "kind"), FAILURES)
def test_errors_are_documents_too(story, place, arguments, code, kind):
    ran = story.run("--json", *arguments) if place == "before" else story.run(*arguments, "--json")

    assert ran.code == code
    assert ran.json["schema"] == "weightvc/error/1"
    assert keys(ran.json["error"]) == {"kind", "what", "hint"}
    assert ran.json["error"]["kind"] == kind
    assert ran.err == f"wvc: {ran.json['error']['what']}\n" + (
        f"hint: {ran.json['error']['hint']}\n" if ran.json["error"]["hint"] else ""
    )


def test_a_message_that_looks_like_the_option_is_a_message(two, templates):
    two.json("add", templates.alpha, "--task", "x")

    ran = two.run("commit", "-m", "--json")

    assert ran.out.startswith("commit ")
    assert two.git("log", "-1", "--format=%s") == "--json"
