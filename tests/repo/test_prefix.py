"""Cached prefix states: they save steps, and nothing else about a checkout tells whether they are there."""

import errno
import json
import os

import pytest
import torch

from weightvc.merge import fingerprint as fingerprints
from weightvc.merge.opcm import Opcm, OpcmS
from weightvc.objects.ids import Digest
from weightvc.objects.manifest import Entry
from weightvc.objects.tensors import TensorSpec
from weightvc.repo import prefix
from weightvc.repo.build import Builder
from weightvc.repo.folding import Folding
from weightvc.repo.plan import TensorPlan
from weightvc.util import fsio
from weightvc.util.errors import Conflict

NAMES = "abcde"
SHAPES = {"one.weight": (9, 6), "two.weight": (6, 8), "norm.weight": (6,)}
METHODS = pytest.mark.parametrize("method", ["opcm", "opcm-s"])
STATES = 8 * (9 * 6 + 6 * 8)
"""Bytes of the numbers of one state of each matrix."""


@pytest.fixture(scope="module")
def made(models, sandbox, wvc, tmp_path_factory):
    root = tmp_path_factory.mktemp("prefix")
    random = torch.Generator().manual_seed(3)
    base = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    assert wvc("init", root / "repo", "--base", models.write(root / "base", base)).code == 0
    repo = sandbox(root / "repo")
    for at, name in enumerate(NAMES):
        repo.put(name, models.write(root / name, models.tuned(base, at)))
    return repo.path


@pytest.fixture
def repo(made, copied):
    return copied(made)


@pytest.fixture
def steps(monkeypatch):
    """Count the projections that are computed: those of the two matrices, without each one's first task."""
    counted = []
    for kind in (Opcm, OpcmS):
        add = kind._add

        def counting(self, state, vector, add=add):
            counted.append(tuple(state.shape))
            return add(self, state, vector)

        monkeypatch.setattr(kind, "_add", counting)

    def count(of):
        counted.clear()
        of()
        return len(counted)

    return count


@pytest.fixture
def build(repo, tmp_path):
    """Check tasks out, and return every byte that was written, the lock's too."""

    def run(tasks, *options, cached=True, method="opcm-s", jobs=1):
        settings = repo.path / ".git/wvc/config.toml"
        settings.write_text("" if cached else "cache.max_bytes = 0\n")
        listed = ",".join(tasks)
        repo.wvc("checkout", "--tasks", listed, "--method", method, *options, "-j", jobs, "-o", tmp_path / "out")
        return {path.name: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}

    return run


@pytest.fixture
def states(repo):
    """Return the cached files, by name."""
    return lambda: {path.name: path for path in (repo.path / ".git/wvc/cache").glob("*")}


def tags(path):
    """Return what a cached file says that it contains."""
    data = path.read_bytes()
    return set(json.loads(data[20 : 20 + int.from_bytes(data[16:20], "little")])["tags"])


@METHODS
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_warm_cache_changes_no_byte(build, steps, states, method, jobs):
    cold = {tasks: build(tasks, cached=False, method=method) for tasks in ("abc", "abcd", "abde", "acde", "b", "ba")}
    assert states() == {}
    for tasks in ("abc", "abcd", "abde", "acde", "b", "ba", "abcd"):
        assert build(tasks, method=method, jobs=jobs) == cold[tasks], tasks
    assert steps(lambda: build("abcd", method=method, jobs=jobs)) == 0
    assert "ranks" in cold["abcd"]["wvc.lock.json"].decode()


@METHODS
def test_appending_computes_one_step_a_matrix(build, steps, method):
    wanted = build("abcde", cached=False, method=method)
    assert steps(lambda: build("abcd", method=method)) == 2 * 3
    assert steps(lambda: build("abcde", method=method)) == 2
    assert build("abcde", method=method) == wanted
    assert steps(lambda: build("abcde", "-p", "norm=rss", method=method)) == 0  # the scale is no part of a state


def test_the_tasks_of_the_prefix_are_not_even_decoded(build, monkeypatch):
    build("abcd")
    decoded, whole = [], Folding._whole

    def noting(self, plan, at):
        decoded.append((plan.names, at))
        return whole(self, plan, at)

    monkeypatch.setattr(Folding, "_whole", noting)
    build("abcde")
    assert decoded == [(("one.weight",), 4), (("two.weight",), 4)]


@METHODS
def test_removing_a_late_task_goes_on_from_before_it(build, steps, method):
    build("abcde", method=method)
    assert steps(lambda: build("abcd", method=method)) == 0  # the state before the last
    assert steps(lambda: build("abce", method=method)) == 2  # from a, b and c, as every third is kept
    assert steps(lambda: build("abde", method=method)) == 2 * 3
    assert build("abde", method=method) == build("abde", method=method, cached=False)


def test_content_alone_makes_the_key(build, repo, steps, made):
    build("abcd")
    repo.wvc("repack", "b", "--codec", "raw")
    repo.wvc("commit", "-m", "Raw")
    repo.put("z", made.parent / "c")
    assert steps(lambda: build("abcd")) == 0
    assert steps(lambda: build(["a", "b", "z", "d"])) == 0
    assert steps(lambda: build(["a", "b=0.5", "c", "d"])) == 2 * 3
    assert steps(lambda: build(["a", "b", "c=0.5", "d"])) == 2 * 2  # from a and b


def test_what_decides_a_step_makes_the_key_too(build, steps, monkeypatch):
    build("abc")
    assert steps(lambda: build("abc")) == 0
    assert steps(lambda: build("abc", "-p", "alpha=0.25")) == 2 * 2
    assert steps(lambda: build("abc", "-p", "other=two.*")) == 0
    assert steps(lambda: build("abc", method="opcm")) == 2 * 2
    assert steps(lambda: build("abc", "--dtype", "BF16")) == 0
    for change in ("torch", "cpu", "linalg", "blas", "device"):
        with monkeypatch.context() as patch:
            made = {**fingerprints.fingerprint("cpu"), change: "another"}
            patch.setattr(prefix, "fingerprint", lambda _, made=made: made)
            assert steps(lambda: build("abc")) == 2 * 2
    for name in ("_processor", "RULES"):
        with monkeypatch.context() as patch:
            patch.setattr(prefix, name, (lambda: "another") if name == "_processor" else "another")
            assert steps(lambda: build("abc")) == 2 * 2
    assert steps(lambda: build("abc")) == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "exchanged", "unreadable"])
def test_damage_is_computed_again(build, steps, states, damage, monkeypatch):
    wanted = build("abcd")
    held = {name: path.read_bytes() for name, path in states().items()}
    names = sorted(held)
    for at, (name, path) in enumerate(sorted(states().items())):
        if damage == "cut":
            path.write_bytes(held[name][:-1])
        elif damage == "flipped":
            path.write_bytes(held[name][:-9] + bytes([held[name][-9] ^ 128]) + held[name][-8:])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "exchanged":
            path.write_bytes(held[names[at - 1]])
    with monkeypatch.context() as patch:
        if damage == "unreadable":
            patch.setattr(os, "readv", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        assert build("abcd") == wanted
    assert {name: path.read_bytes() for name, path in states().items()} == held
    assert steps(lambda: build("abcd")) == 0


class Stuck(fsio.Ops):
    """A disk on which nothing in the cache can be removed."""

    def unlink(self, path):
        if path.parent.name == "cache":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        super().unlink(path)


class Refusing(fsio.Ops):
    """A disk on which the cache cannot be written."""

    def __init__(self, code):
        self.code = code

    def rename(self, old, new):
        if new.parent.name == "cache":
            raise OSError(self.code, os.strerror(self.code), str(new))
        super().rename(old, new)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_cache_that_cannot_be_written_is_done_without(build, repo, states, monkeypatch, code):
    wanted = build("abcd", cached=False)
    monkeypatch.setattr(fsio, "ops", Refusing(code))
    assert build("abcd") == wanted
    assert states() == {}
    assert list((repo.path / ".git/wvc/tmp").iterdir()) == []


def test_what_is_switched_off_is_not_even_read(build, steps, states, monkeypatch):
    build("abc")
    held = states()
    monkeypatch.setattr(fsio, "ops", Stuck())
    assert steps(lambda: build("abc", cached=False)) == 2 * 2
    assert states() == held


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (79, []),
        (80, ["s5"]),
        (160, ["l5"]),
        (240, ["l5", "s5"]),
        (320, ["l5", "s4", "s5"]),
        (480, ["l4", "l5", "s4", "s5"]),
        (10**6, ["l3", "l4", "l5", "s3", "s4", "s5"]),
    ],
)
def test_the_most_useful_states_are_kept_first(limit, kept):
    keys = {}
    for name, elements in (("small", 10), ("large", 20)):
        spec = TensorSpec(name, "F32", (elements // 5, 5))
        entry = Entry(spec, Digest("0" * 64), "same")
        keys[TensorPlan((name,), spec, "projected", entry, ())] = [f"{name[0]}{count}" for count in range(1, 6)]
    assert sorted(prefix._chosen(keys, limit)) == kept


def test_a_limit_that_fits_nothing_removes_all(build, repo, states, tmp_path):
    build("abcde")
    assert len(states()) == 2 * 3  # of five tasks, of four, and of three
    (repo.path / ".git/wvc/config.toml").write_text(f"cache.max_bytes = {STATES}\n")
    repo.wvc("checkout", "--tasks", "a,b,c,d,e", "-j1", "-o", tmp_path / "out")
    assert sum(path.stat().st_size for path in states().values()) <= STATES
    build("ab", cached=False)
    assert states() == {}


def test_the_default_limit_leaves_most_of_the_disk_free(repo, monkeypatch):
    handle = repo.api()
    for free, limit in ((10**9, 10**8), (10**15, prefix.DEFAULT)):
        monkeypatch.setattr(prefix.shutil, "disk_usage", lambda _, free=free: type("usage", (), {"free": free}))
        assert prefix._limit(handle) == limit


def test_settings_that_cannot_be_read_stop_a_checkout(repo, tmp_path):
    (repo.path / ".git/wvc/config.toml").write_text("cache = 3\n")
    ran = repo.run("checkout", "-o", tmp_path / "out")
    assert (ran.code, "config.toml: an object was expected" in ran.err) == (3, True)
    assert "hint: correct the file, or delete it: all settings have defaults" in ran.err
    assert repo.run("checkout", "-n", "-o", tmp_path / "out").err == ran.err


def test_what_needs_no_states_makes_no_cache(build, states, repo, tmp_path):
    for tasks, method in (("a", "opcm-s"), ("abc", "task_arithmetic"), ("abc", "ties")):
        build(tasks, method=method)
    repo.wvc("checkout", "-n", "--tasks", "a,b,c", "-o", tmp_path / "x")
    repo.wvc("diff", "HEAD")
    repo.wvc("verify", tmp_path / "out", "--replay")
    assert not (repo.path / ".git/wvc/cache").exists()
    assert states() == {}


def test_a_replay_does_not_believe_the_cache(build, repo, steps, tmp_path):
    build("abcd")
    assert steps(lambda: repo.wvc("verify", tmp_path / "out", "--replay")) == 2 * 3


def test_tensors_in_memory_use_it_too(build, repo, steps):
    build("abcd")
    assert steps(lambda: dict(repo.api().materialize(["a", "b", "c", "d"], method="opcm-s"))) == 0


def test_forgetting_drops_what_contains_a_task_and_nothing_else(build, repo, states):
    build("abcd")
    build("abde")
    build("abcd", "-p", "alpha=0.25", method="opcm")
    versions = {name: repo.manifest(name)["version"] for name in NAMES}
    uuids = {name: repo.manifest(name)["uuid"] for name in NAMES}
    held = {name: tags(path) for name, path in states().items()}
    assert {versions["a"], uuids["a"], versions["b"], uuids["b"]} in held.values()

    for by in (versions, uuids):
        assert prefix.forget(repo.api(), [by["c"]]) == []
        held = {name: found for name, found in held.items() if by["c"] not in found}
        assert {name: tags(path) for name, path in states().items()} == held
    assert any(versions["d"] in found for found in held.values())
    assert prefix.forget(repo.api(), [versions["a"]]) == []
    assert states() == {}


@pytest.mark.parametrize("rebuild", [True, False])
def test_a_revert_leaves_no_state_of_the_task(build, repo, states, steps, rebuild):
    build("abcd")
    build("abde")
    version, uuid = (repo.manifest("c")[key] for key in ("version", "uuid"))
    before = {name for name, path in states().items() if version not in tags(path)}

    repo.wvc("revert", "c", *([] if rebuild else ["--no-rebuild"]))

    assert before <= states().keys()
    assert not [path for path in states().values() if {version, uuid} & tags(path)]
    build("abcd", "HEAD~1")
    assert [path for path in states().values() if version in tags(path)]
    repo.wvc("revert", "c", *([] if rebuild else ["--no-rebuild"]))  # which finishes what is left
    assert not [path for path in states().values() if {version, uuid} & tags(path)]
    if rebuild:
        assert steps(lambda: build("abd")) == 0


def test_an_earlier_version_of_a_removed_task_goes_too(build, repo, states, made):
    build("abcd")
    repo.put("c", made.parent / "e")
    build("abcd")
    uuid = repo.manifest("c")["uuid"]
    assert len([path for path in states().values() if uuid in tags(path)]) == 2 * 2 * 2  # versions, tensors, lengths

    repo.wvc("revert", "c", "--no-rebuild")

    assert not [path for path in states().values() if uuid in tags(path)]


def test_a_state_that_cannot_be_dropped_is_named(build, repo, states, monkeypatch):
    build("abc")
    stuck = [path for path in states().values() if repo.manifest("c")["version"] in tags(path)]

    monkeypatch.setattr(fsio, "ops", Stuck())
    done = repo.json("revert", "c", "--no-rebuild")
    assert sorted(done["warnings"]) == [f"{path} may hold the task; delete it" for path in sorted(stuck)]


def test_a_checkout_that_a_revert_overtakes_leaves_no_state(repo, states, monkeypatch, tmp_path):
    version, write = repo.manifest("c")["version"], Builder.write

    def overtaken(*given):
        monkeypatch.undo()
        repo.api().revert("c", rebuild=False)
        made = write(*given)
        assert [path for path in states().values() if version in tags(path)]
        return made

    monkeypatch.setattr(Builder, "write", overtaken)
    with pytest.raises(Conflict, match="c was taken out"):
        repo.api().checkout(["a", "b", "c"], method="opcm-s", output=tmp_path / "out", jobs=1)
    assert not [path for path in states().values() if version in tags(path)]


def test_the_proof_of_a_removal_reads_no_state(build, repo, steps):
    build("abde")
    build("abcde")
    count = steps(lambda: repo.wvc("revert", "c", "-j1", "--device", "cpu"))
    assert count == 2 * 3  # of a, b, d and e, once: the rebuild is warm, the proof is not


@pytest.mark.parametrize(
    ("tasks", "kept"), [(2, [2]), (3, [3, 2]), (4, [4, 3, 2]), (5, [5, 4, 3]), (9, [9, 8, 6, 3]), (10, [10, 9, 8, 4])]
)
def test_which_states_are_worth_keeping(tasks, kept):
    assert prefix._worth([*range(1, tasks + 1)]) == kept


def test_a_system_without_a_list_of_processors_has_a_key_too(monkeypatch):
    assert prefix._processor() == prefix._processor()
    for text in ("", "model name\t: Fast One\nflags: x\nmodel name\t: Other\n"):
        monkeypatch.setattr(prefix.Path, "read_text", lambda _, text=text: text)
        assert prefix._processor() == ("Fast One" if text else "")
    monkeypatch.setattr(prefix.Path, "read_text", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    assert prefix._processor() == ""


@pytest.mark.parametrize("about", [
    None, [], [1, 2, 3], "xx", {"a": 1, "b": 2}, [["0x1p0"], []], [["x", "y"], []], [["0x1p0", "0x1p0"], "r"],
    [["0x1p0", "0x1p0"], [1.5]], [["0x1p0", "0x1p0"], [1, 1]], [[1, 2], []],
])  # fmt: skip
def test_what_stands_beside_a_sum_must_be_its_own(about):
    assert prefix._parsed(about, 2) is None
    assert prefix._parsed([["0x1p0", "0x1p1"], [3]], 2) == ([1.0, 2.0], [3])


def test_a_dry_run_says_what_the_cache_saves(repo, states, tmp_path):
    def dry(tasks):
        return repo.json("checkout", "-n", "--tasks", tasks, "--method", "opcm-s", "-o", tmp_path / "dry")

    says = "2 tensors can begin from cached states, which the time accounts for"
    cold = dry("a,b,c")
    repo.wvc("checkout", "--tasks", "a,b", "--method", "opcm-s", "-o", tmp_path / "out")
    cached = states()
    warm = dry("a,b,c")
    assert says not in cold["notes"]
    assert says in warm["notes"]
    assert says not in dry("b,a,c")["notes"]
    (repo.path / ".git/wvc/config.toml").write_text("cache.max_bytes = 0\n")
    assert says not in dry("a,b,c")["notes"]
    assert states() == cached != {}
