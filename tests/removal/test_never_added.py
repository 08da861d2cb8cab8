"""Removal equals never having added, byte for byte.

What is compared is every file of a checkout: weights, heads, index, configuration, and the README.md too, which
speaks of the tasks that are there and of nobody else. Of the lock all but two values are compared, which belong to
the repository and not to the output: see ``play.listing``.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = ("amber", "chess", "dance")
GONE = "bonsai"

REQUESTS = {
    "opcm-s": {"method": "opcm-s"},
    "opcm": {"method": "opcm", "params": {"alpha": 0.3}},
    "task_arithmetic": {"method": "task_arithmetic", "params": {"scaling": 0.4}},
    "linear": {"method": "linear"},
    "weighted-opcm-s": {
        "method": "opcm-s",
        "tasks": ["dance=0.5", "bonsai=1.5", "amber", "chess=-0.25"],
        "max_shard_size": 4000,
    },
    "weighted-opcm": {"method": "opcm", "tasks": ["bonsai", "chess=2.0", "dance", "amber"], "dtype": "BF16"},
    "weighted-linear": {"method": "linear", "tasks": ["chess=3.0", "amber=0.1", "bonsai=0.7", "dance"]},
    "weighted-sum": {"method": "task_arithmetic", "tasks": ["bonsai=-1.5", "dance=0.3", "chess=0.2"]},
}
"""Checkouts in which the task takes part: every method, coefficients, parameters, shards, another dtype."""


def without(request):
    """The same checkout with the task left out."""
    if "tasks" not in request:
        return request
    return {**request, "tasks": [task for task in request["tasks"] if not task.startswith(GONE)]}


NEVER = {label: without(request) for label, request in REQUESTS.items()}
DEFAULT = {"opcm-s": {}}
SOME = {label: NEVER[label] for label in ("opcm-s", "opcm", "weighted-linear")}


def two_branches(adding, left, right):
    """Two branches that add tasks by turns, so that the default order interleaves them, and git's merge of both."""
    steps = [["git", "branch", "left"], ["git", "branch", "right"]]
    for pair in zip(left, right, strict=True):
        for branch, name in zip(("left", "right"), pair, strict=True):
            if name is not None:
                steps += [["git", "switch", "-q", branch], *adding(name)]
    return [*steps, ["git", "merge", "-q", "--no-edit", "left"]]


@pytest.fixture(scope="module")
def twins(adding, play_elsewhere):
    """What repositories that never saw the task check out, each one built by another process."""
    three = adding(*TASKS)
    raw = adding(*TASKS, codec="raw")
    merged = two_branches(adding, ["amber", "chess"], [None, "dance"])
    renewed = adding(*TASKS, "bonsai=bonsai2")
    return play_elsewhere(
        {
            "three": {"steps": three, "checkouts": NEVER},
            "merged": {"steps": merged, "checkouts": SOME},
            "raw": {"steps": raw, "checkouts": SOME},
            "renewed": {"steps": renewed, "checkouts": DEFAULT},
            "pair": {"steps": adding("amber", "dance"), "checkouts": DEFAULT},
        }
    )


@pytest.mark.parametrize("position", range(4))
def test_every_checkout_after_a_revert_is_as_if_never_added(position, lab, adding, twins, subtests):
    """Half of the checkouts were there before and are rebuilt in place, half come after; the next position swaps."""
    repo = lab.repo(*adding(*TASKS[:position], GONE, *TASKS[position:]))
    labels = [*REQUESTS]
    standing = {label: REQUESTS[label] for label in labels[position % 2 :: 2]}
    before = lab.build(repo, standing)
    reverted = repo.revert(GONE, jobs=1 + position // 2)
    fresh = {label: NEVER[label] for label in labels if label not in standing}
    lab.build(repo, fresh, jobs=2 - position // 2)

    rebuilt = {Path(line.output).name if line.output else line.recipe: line for line in reverted.rebuilt}
    assert set(rebuilt) == {*standing, None}
    for label, twin in twins["three"].items():
        with subtests.test(label=label):
            assert lab.listing(label) == twin
    for label, was in before.items():
        digest = twins["three"][label]["lock"]["digest"]
        assert was["lock"]["digest"] != digest
        assert was["files"]["README.md"] != twins["three"][label]["files"]["README.md"]
        assert rebuilt[label].before == was["lock"]["digest"]
        assert (rebuilt[label].after, rebuilt[label].proved) == (digest, True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_states_of_merges_with_and_without_the_task_change_nothing(jobs, lab, adding, twins):
    repo = lab.repo(*adding("amber", GONE, "chess", "dance"))
    for requests in (REQUESTS, NEVER):
        lab.build(repo, requests, jobs)
    version = repo.show(GONE).version.encode()
    states = repo.local / "cache"
    assert any(version in path.read_bytes() for path in states.iterdir())

    repo.revert(GONE, jobs=jobs)

    assert lab.build(repo, NEVER, jobs) == twins["three"]
    assert not any(version in path.read_bytes() for path in states.iterdir())
    repo.local.joinpath("config.toml").write_text("cache.max_bytes = 0\n")
    assert lab.build(repo, NEVER, jobs) == twins["three"]
    assert list(states.iterdir()) == []


def test_no_file_speaks_of_the_removed_task(lab, adding):
    repo = lab.repo(*adding("amber", GONE, "dance"))
    repo.checkout(output=lab.out, jobs=1)
    gone = repo.show(GONE)
    traces = [GONE.encode(), gone.version[:12].encode(), gone.uuid.encode(), b"cc-by-nc"]
    found = b"".join(lab.contents(lab.out).values())
    assert [trace in found for trace in traces] == [True] * 4

    repo.revert(GONE, jobs=1)
    found = b"".join(lab.contents(lab.out).values())
    assert [trace in found for trace in traces] == [False] * 4
    assert b"amber" in found


def test_the_twins_cover_what_a_removal_could_leave_behind(twins):
    rules = {"opcm-s": "projected", "opcm": "projected", "task_arithmetic": "elementwise", "linear": "elementwise"}
    for twin in twins["three"].values():
        lines = {line["name"]: line for line in twin["lock"]["tensors"]}
        recipe = twin["lock"]["recipe"]
        tasks = {task.partition("=")[0] for task in recipe["tasks"]}
        assert lines["block.own.weight"]["rule"] == ("elementwise" if "dtype" in recipe else "base")
        assert lines["steps"]["rule"] == "base"
        assert lines["block.wide.weight"]["rule"] == rules[recipe["method"]]
        assert lines["lm_head.weight"]["digest"] == lines["embed.weight"]["digest"]
        assert {path for path in twin["files"] if "/" in path} == {f"heads/{task}.safetensors" for task in tasks}
        assert {"config.json", "vocab.txt", "README.md"} <= twin["files"].keys()
    assert "model.safetensors.index.json" in twins["three"]["weighted-opcm-s"]["files"]
    assert len({twin["lock"]["digest"] for twin in twins["three"].values()}) == len(REQUESTS)


def test_a_task_is_gone_from_a_merge_of_two_branches(lab, adding, twins):
    repo = lab.repo(*two_branches(adding, ["amber", "chess"], [GONE, "dance"]))
    assert lab.order(repo) == ["amber", GONE, "chess", "dance"]
    assert len(repo.git.parents("HEAD")) == 2
    repo.revert(GONE, jobs=1)
    made = lab.build(repo, SOME, jobs=2)
    assert made == twins["merged"]
    assert made == {label: twins["three"][label] for label in SOME}  # nor does the shape of history matter


@pytest.mark.parametrize("names", [(GONE,), ("amber", GONE)])
def test_no_task_left_gives_the_base(names, lab, adding):
    repo = lab.repo(*adding(*names), ["save", "prod", {"tasks": [f"{GONE}=0.5"]}], ["commit"])
    for name in names:
        repo.revert(name, jobs=1)
    lab.build(repo, {**DEFAULT, "prod": {"recipe": "prod"}})
    for label in ("opcm-s", "prod"):
        assert lab.contents(lab.out / label, "wvc.lock.json") == lab.contents(lab.models / "base")
    assert lab.order(repo) == []


def test_one_task_left_is_that_task_bit_for_bit(lab, adding):
    repo = lab.repo(*adding("amber", "chess", GONE))
    repo.revert(GONE, jobs=1)
    repo.revert("amber", jobs=1)
    lab.build(repo, DEFAULT)
    assert lab.contents(lab.out / "opcm-s", "wvc.lock.json") == lab.contents(lab.models / "chess")


def test_a_repack_changes_no_checkout_before_or_after_a_revert(lab, adding, twins):
    plain, packed = lab.repo(*adding(*TASKS, GONE)), [["repack", "raw", None], ["commit"]]
    before = lab.build(plain, DEFAULT)
    repo = lab.take(plain, *packed)
    assert lab.build(repo, DEFAULT) == before
    assert repo.verify(lab.out / "opcm-s", replay=True, jobs=1).ok
    reverted = repo.revert(GONE, jobs=1)
    where = {line.output and Path(line.output).name: line.proved for line in reverted.rebuilt}
    assert where == {None: True, "opcm-s": True}
    assert lab.listing("opcm-s") == twins["three"]["opcm-s"]
    lab.take(repo, ["repack", None, None], ["commit"])
    assert lab.build(repo, SOME, jobs=2) == {label: twins["three"][label] for label in SOME}


def test_two_removals_commute(lab, adding, twins):
    repo = lab.repo(*adding("amber", "chess", GONE, "dance"))
    for order in ((GONE, "chess"), ("chess", GONE)):
        for name in order:
            repo.revert(name, jobs=1)
        assert lab.build(repo, DEFAULT) == twins["pair"]
        lab.git(repo, "reset", "-q", "--hard", "HEAD~2")


def test_a_named_recipe_loses_the_task_and_nothing_else(lab, adding, twins):
    request = {key: value for key, value in REQUESTS["weighted-linear"].items() if key != "max_shard_size"}
    repo = lab.repo(*adding(*TASKS, GONE), ["save", "prod", request], ["commit"])
    reverted = repo.revert(GONE, jobs=1)
    assert reverted.recipes == ("prod",)
    assert repo.recipes()[0].tasks == ("chess=3.0", "amber=0.1", "dance")
    made = lab.build(repo, {"weighted-linear": {"recipe": "prod"}})
    assert made["weighted-linear"] == twins["three"]["weighted-linear"]
    assert {line.recipe: line.after for line in reverted.rebuilt} == {
        "prod": twins["three"]["weighted-linear"]["lock"]["digest"],
        None: twins["three"]["opcm-s"]["lock"]["digest"],
    }


def test_a_task_added_again_after_its_removal_comes_last(lab, adding, twins):
    repo = lab.repo(*adding("amber", GONE, "chess", "dance"))
    first = repo.show(GONE)
    repo.revert(GONE, jobs=1)
    repo.add(lab.models / "bonsai2", GONE, jobs=1)
    repo.commit("another bonsai")
    again = repo.show(GONE)
    assert again.uuid != first.uuid
    assert lab.order(repo) == [*TASKS, GONE]
    assert lab.build(repo, DEFAULT) == twins["renewed"]
    repo.revert(GONE, jobs=1)
    assert lab.build(repo, SOME) == {label: twins["three"][label] for label in SOME}


def test_a_later_version_keeps_its_place_and_goes_with_the_first(lab, adding, twins):
    repo = lab.repo(*adding("amber", GONE, "chess", "dance"), *adding("bonsai=bonsai2"))
    assert lab.order(repo) == ["amber", GONE, "chess", "dance"]
    repo.revert(GONE, jobs=1)
    assert lab.build(repo, DEFAULT)["opcm-s"] == twins["three"]["opcm-s"]


@pytest.mark.parametrize("word", ["revert", "reset"])
def test_taking_the_commit_back_with_plain_git_does_the_same(word, lab, adding, twins):
    repo = lab.repo(*adding(*TASKS), *adding(GONE))
    git = ["revert", "--no-edit", "HEAD"] if word == "revert" else ["reset", "-q", "--hard", "HEAD~"]
    lab.git(repo, *git)
    assert lab.build(repo, SOME, jobs=2) == {label: twins["three"][label] for label in SOME}


def test_recompressing_changes_no_byte_of_an_output(lab, adding, twins):
    assert twins["raw"] == {label: twins["three"][label] for label in SOME}
    packed, raw = (lab.repo(*adding("amber", codec=codec), name=codec) for codec in ("intdelta", "raw"))
    one, other = (repo.show("amber") for repo in (packed, raw))
    assert one.version == other.version
    assert (one.codecs.keys(), other.codecs.keys()) == ({"full", "intdelta"}, {"raw"})
    assert one.stored_bytes < other.stored_bytes


def test_the_default_order_is_that_of_adding_and_not_of_names(lab, adding):
    repo = lab.repo(*adding("chess", "amber"))
    assert lab.order(repo) == ["chess", "amber"]
    requests = {"default": {}, "added": {"tasks": ["chess", "amber"]}, "named": {"tasks": ["amber", "chess"]}}
    made = lab.build(repo, requests)
    assert made["default"] == made["added"]
    assert made["default"]["lock"]["digest"] != made["named"]["lock"]["digest"]


def test_the_command_line_says_the_digest_of_the_never_added_model(lab, adding, twins):
    repo = lab.repo(*adding(GONE, *TASKS))
    repo.checkout(jobs=1)
    command = [sys.executable, "-m", "weightvc", "-C", str(repo.git.work_tree), "--json", "revert", GONE]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    said = json.loads(done.stdout)
    assert {(line["recipe"], line["output"], line["after"], line["proved"]) for line in said["rebuilt"]} == {
        (None, output, twins["three"]["opcm-s"]["lock"]["digest"], True)
        for output in (str(repo.git.work_tree / "model"), None)
    }
    lock = json.loads((repo.git.work_tree / "model" / "wvc.lock.json").read_bytes())
    assert lock["digest"] == twins["three"]["opcm-s"]["lock"]["digest"]
