"""Taking tasks out: the record, the recipes, lineage, what is rebuilt and what is refused."""

import json
import os
from datetime import UTC, datetime

import pytest

from weightvc.objects.removal import Removal
from weightvc.repo.revert import Reverted


def test_a_removal_record_says_what_was_removed_and_why(family):
    before, head, uuid = datetime.now(UTC), family.git("rev-parse", "HEAD"), family.manifest("alpha")["uuid"]
    version = family.manifest("alpha")["version"]

    done = family.json(
        "revert", "alpha", "--keep-derived", "--reason", "licence\nended", "--requester", "ticket 7", "-m", "Bye"
    )

    path = f".wvc/removals/{uuid}.json"
    record = Removal.from_bytes((family.path / path).read_bytes(), path)
    assert before <= datetime.fromisoformat(record.removed) <= datetime.now(UTC)
    assert record == Removal(
        task="alpha", uuid=uuid, version=version, removed=record.removed, parent=head, recipes=("prod",),
        dependants=("child", "grand"), reason="licence\nended", requester="ticket 7",
    )  # fmt: skip
    assert done["audit"] == path
    assert (done["task"], done["recipes"], done["dependants"]) == ("alpha", ["prod"], ["child", "grand"])
    assert done["commit"] == family.git("rev-parse", "HEAD")
    assert family.git("show", "--name-status", "--format=%s", "HEAD").splitlines() == [
        "Bye",
        "",
        "M\t.wvc/recipes/prod.toml",
        f"A\t{path}",
        "D\t.wvc/tasks/alpha.json",
    ]


def test_recipes_lose_the_task_and_nothing_else(family):
    rest = (family.path / ".wvc/recipes/rest.toml").read_bytes()

    family.wvc("revert", "alpha", "--keep-derived", "--no-rebuild")

    shown = family.json("recipe", "show", "prod")
    assert (shown["tasks"], shown["method"], shown["params"]) == (["beta"], "task_arithmetic", {"scaling": 1.0})
    assert (family.path / ".wvc/recipes/rest.toml").read_bytes() == rest


@pytest.mark.parametrize("option", ["--message", "--reason", "--requester"])
def test_text_that_is_not_utf_8_is_refused_and_nothing_is_taken_out(two, refused, option):
    refused(
        two, 2, "revert", "alpha", option, os.fsdecode(b"caf\xe9"),
        says=f"the {option[2:]} is not valid UTF-8: 'caf\\udce9'", hint="write it in UTF-8",
    )  # fmt: skip


def test_dependants_must_be_decided_on(family, refused):
    refused(
        family, 3, "revert", "alpha", says="other tasks derive from alpha: child, grand",
        hint="pass --cascade to take them out too, or --keep-derived to leave them, on record",
    )  # fmt: skip
    refused(family, 3, "revert", "child", "--dry-run", says="other tasks derive from child: grand")


def test_dependants_are_not_both_taken_and_kept(family, refused):
    refused(
        family, 2, "revert", "alpha", "--cascade", "--keep-derived",
        says="--cascade and --keep-derived exclude each other", hint="give one of them",
    )  # fmt: skip


def test_a_cascade_takes_dependants_along(family):
    done = family.json("revert", "alpha", "--cascade", "--no-rebuild")

    assert (done["tasks"], done["dependants"], done["rebuilt"]) == (["alpha", "child", "grand"], [], [])
    assert (done["audits"][0], len(set(done["audits"]))) == (done["audit"], 3)
    assert all((family.path / path).is_file() for path in done["audits"])
    assert [task["task"] for task in family.json("status")["tasks"]] == ["beta"]
    records = [Removal.from_bytes(path.read_bytes(), "") for path in (family.path / ".wvc/removals").iterdir()]
    assert {(record.task, record.recipes, record.dependants) for record in records} == {
        ("alpha", ("prod",), ()),
        ("child", (), ()),
        ("grand", (), ()),
    }


def test_lineage_goes_by_identity_not_by_name(family, models, tmp_path):
    family.wvc("revert", "alpha", "--keep-derived", "--no-rebuild")
    family.put("alpha", models.write(tmp_path / "x", models.tuned(models.base(), 7)))

    done = family.json("revert", "alpha", "--no-rebuild")

    assert done["tasks"] == ["alpha"]
    assert len(list((family.path / ".wvc/removals").iterdir())) == 2


def test_directories_are_rebuilt_in_place_and_proved(two, models, templates, tmp_path):
    for name, options in {"merged": [], "exact": ["--tasks", "alpha"], "other": ["--tasks", "beta"]}.items():
        two.wvc("checkout", *options, "-o", tmp_path / name)
    before = {
        name: json.loads((tmp_path / name / "wvc.lock.json").read_text())["digest"] for name in ("merged", "exact")
    }
    other = (tmp_path / "other/wvc.lock.json").read_bytes()

    done = two.json("revert", "alpha")

    beta, base = two.manifest("beta")["version"], two.json("status")["base"]
    assert [tuple(rebuilt.values()) for rebuilt in done["rebuilt"]] == [
        (None, ["beta"], before["merged"], beta, str(tmp_path / "merged"), True),
        (None, [], before["exact"], base, str(tmp_path / "exact"), True),
        (None, ["beta"], None, beta, None, True),
    ]
    assert [*done["rebuilt"][0]] == ["recipe", "tasks", "before", "after", "output", "proved"]
    assert models.contents(tmp_path / "merged") == models.contents(templates.beta)
    assert models.contents(tmp_path / "exact") == models.contents(templates.base)
    assert (tmp_path / "other/wvc.lock.json").read_bytes() == other
    assert two.json("verify", tmp_path / "merged", "--replay")["ok"]
    assert not list((two.path / ".git/wvc/tmp").iterdir())


def test_a_directory_that_somebody_changed_is_left_with_a_warning(two, models, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "mine")
    (tmp_path / "mine/config.json").write_text("{}")
    before = models.contents(tmp_path / "mine")

    ran = two.run("revert", "alpha")

    assert ran.code == 1
    assert ran.err == (
        f"warning: {tmp_path / 'mine'} still holds the task: it holds files that were added or changed since the "
        "checkout: config.json; move them away and run `wvc revert alpha` again, or replace it with "
        f"`wvc checkout -o {tmp_path / 'mine'} --force`\n"
        "hint: run `wvc revert alpha` again once that is repaired\n"
    )
    assert models.contents(tmp_path / "mine") == before

    (tmp_path / "mine/config.json").unlink()
    again = two.run("revert", "alpha")

    assert (again.code, again.err) == (0, "")
    assert "alpha was taken out already; rebuilt what still contained it\n" in again.out
    assert two.json("verify", tmp_path / "mine", "--replay")["ok"]


def test_a_dry_run_names_a_directory_that_somebody_changed(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "mine")
    two.wvc("checkout", "-o", tmp_path / "other")
    (tmp_path / "mine/notes.txt").write_text("mine")

    ran = two.run("revert", "alpha", "-n")

    says = "it holds files that were added or changed since the checkout: notes.txt"
    assert (ran.code, ran.err) == (1, f"warning: {tmp_path / 'mine'} would not be rebuilt: {says}\n")
    assert [line for line in ran.out.splitlines() if line.startswith("would rebuild")] == [
        f"would rebuild {tmp_path / 'other'}"
    ]
    done = two.run("--json", "revert", "alpha")
    assert (done.code, done.json["unproved"]) == (1, [str(tmp_path / "mine")])


def test_a_recipe_that_has_no_task_left_is_named(two, tmp_path):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")
    assert "\nrecipe prod: no task would be left\n" in two.wvc("revert", "alpha", "-n")
    assert "\nrecipe prod: no task is left\n" in two.wvc("revert", "alpha")
    assert "\nrecipe prod: no task is left\n" in two.wvc("revert", "alpha")
    assert two.json("revert", "alpha")["emptied"] == two.json("status")["empty"] == ["prod"]
    assert "\nrecipe prod: no task is left; it makes the base\n" in two.wvc("status")
    assert two.wvc("recipe", "list") == "prod  opcm-s  no task is left: the base\n"

    says = "warning: recipe prod: no task is left; it makes the base\n"
    assert two.run("checkout", "--recipe", "prod", "-o", tmp_path / "out", "-n").err == says
    assert two.run("checkout", "--recipe", "prod", "-o", tmp_path / "out").err == says
    assert two.json("checkout", "--recipe", "prod", "-o", tmp_path / "out")["warnings"] == [says[9:-1]]


def test_a_directory_whose_lock_is_damaged_is_named(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "mine")
    (tmp_path / "mine/wvc.lock.json").write_text("{")

    ran = two.run("--json", "revert", "alpha")

    done = ran.json
    assert (ran.code, done["unproved"]) == (1, [str(tmp_path / "mine")])
    (warning,) = done["warnings"]
    assert warning.startswith(f"{tmp_path / 'mine'} may still hold the task: ")


def test_a_revision_that_added_tasks(two, templates):
    two.json("add", templates.alpha, "--task", "one")
    two.json("add", templates.beta, "--task", "two")
    two.wvc("commit", "-m", "Add both")

    done = two.json("revert", "HEAD", "--no-rebuild")

    assert done["tasks"] == ["one", "two"]
    assert two.git("log", "-1", "--format=%s") == "wvc revert: take out one, two"


def test_a_revision_that_added_nothing(family, refused, templates):
    added = family.git("log", "--format=%H", "--grep", "Add beta")
    family.wvc("revert", "beta", "--no-rebuild")
    family.put("beta", templates.beta)

    for rev in (added, "HEAD~2"):
        refused(
            family, 3, "revert", rev, says=f"{rev} added no task that is still here",
            hint="name a task, or undo other commits with `git revert`",
        )  # fmt: skip


def test_what_is_neither_a_task_nor_a_revision(two, refused):
    refused(two, 3, "revert", "nobody", says="no task 'nobody' at", hint="run `wvc status` to see the tasks")
    refused(two, 3, "revert", "HEAD~99", says="no revision 'HEAD~99'", hint="`git log --all --oneline`")


def test_a_device_that_is_not_there_is_refused_before_the_commit(two, refused):
    refused(two, 3, "revert", "alpha", "--device", "cuda:99", says="--device cuda:99: torch sees")
    refused(two, 2, "revert", "alpha", "--device", "tpu", says="--device tpu names no device")
    two.wvc("revert", "alpha", "--device", "tpu", "--no-rebuild")


def test_a_dry_run(family, tmp_path):
    family.wvc("checkout", "-o", tmp_path / "out")
    before = family.everything()

    done = family.json("revert", "alpha", "--cascade", "--dry-run")

    assert (done["commit"], done["audit"], done["rebuilt"]) == (None, None, [])
    assert done["tasks"] == ["alpha", "child", "grand"]
    out = str(tmp_path / "out")
    planned = [(None, out), ("prod", None), (None, None)]
    assert [(line["recipe"], line["output"]) for line in done["would_rebuild"]] == planned
    assert family.json("revert", "beta", "-n", "--no-rebuild")["would_rebuild"] == []
    lines = family.wvc("revert", "beta", "-n").splitlines()
    assert lines[0] == "would take out beta, and change the recipes: prod, rest"
    assert lines[1:3] == ["recipe rest: no task would be left", f"would rebuild {out}"]
    assert lines[3:5] == [f"would compute recipe {name} to compare, nothing on disk" for name in ("prod", "rest")]
    lines = family.wvc("revert", "grand", "-n").splitlines()
    assert lines[0] == "would take out grand, and change the recipes: none"
    assert family.everything() == before


def test_staged_versions_and_staged_recipes_lose_the_task(two, templates):
    two.json("add", templates.beta, "--task", "alpha")
    two.json("add", templates.beta, "--task", "other")
    two.wvc("recipe", "save", "draft", "--tasks", "alpha,beta=2")

    says = "warning: the staged version of task alpha is dropped too\n"
    assert two.run("revert", "alpha", "-n").err == says
    assert ".wvc/tasks/alpha.json" in two.json("status")["staged"]
    assert two.run("revert", "alpha", "--no-rebuild").err == says

    assert two.json("status")["staged"] == {".wvc/recipes/draft.toml": "new", ".wvc/tasks/other.json": "new"}
    assert two.json("recipe", "show", "draft")["tasks"] == ["beta=2.0"]


def test_a_task_added_again_is_another_one(two, templates):
    first = two.manifest("alpha")
    two.wvc("revert", "alpha", "--no-rebuild")

    two.put("alpha", templates.alpha)

    second = two.manifest("alpha")
    assert second["version"] == first["version"]
    assert second["uuid"] != first["uuid"]
    assert second["added"] > two.manifest("beta")["added"]
    assert [task["task"] for task in two.json("status")["tasks"]] == ["beta", "alpha"]


def test_plain_git_brings_the_same_task_back(family, models, templates, tmp_path):
    manifest = family.manifest("alpha")
    family.wvc("revert", "alpha", "--keep-derived", "--no-rebuild")

    family.git("revert", "--no-edit", "HEAD")

    assert family.manifest("alpha") == manifest
    assert [task["task"] for task in family.json("status")["tasks"]] == ["alpha", "beta", "child", "grand"]
    assert family.json("recipe", "show", "prod")["tasks"] == ["alpha=0.5", "beta"]
    assert not (family.path / ".wvc/removals").exists()
    family.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)


def test_older_revisions_still_have_the_task(two, models, templates, tmp_path):
    two.wvc("revert", "alpha", "--no-rebuild")

    two.wvc("checkout", "HEAD~1", "--tasks", "alpha", "-o", tmp_path / "out")

    assert models.contents(tmp_path / "out") == models.contents(templates.alpha)


def test_the_users_own_files_stay_as_they_are(two):
    (two.path / "mine").write_text("mine")
    two.git("add", "mine")

    two.wvc("revert", "alpha", "--no-rebuild")

    assert two.git("status", "--porcelain") == "A  mine"


def test_the_library_reverts_too(two, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")

    done = two.api().revert("alpha", reason="test", jobs=1, device="cpu")

    assert isinstance(done, Reverted)
    assert [rebuilt.recipe for rebuilt in done.rebuilt] == [None, None]


def test_a_task_that_is_only_staged_is_dropped(two, templates):
    head, status = two.git("rev-parse", "HEAD"), two.json("status")
    two.wvc("recipe", "save", "r", "--tasks", "beta")
    two.wvc("add", templates.alpha, "--task", "new")
    two.wvc("add", templates.beta, "--task", "other")

    assert two.json("revert", "new", "--dry-run")["tasks"] == ["new"]
    assert sorted(two.json("status")["staged"])[1:] == [".wvc/tasks/new.json", ".wvc/tasks/other.json"]
    done = two.json("revert", "new")

    assert (done["commit"], done["task"], done["tasks"], done["audit"]) == (None, "new", ["new"], None)
    assert (done["recipes"], done["dependants"], done["rebuilt"]) == ([], [], [])
    assert two.git("rev-parse", "HEAD") == head
    assert two.json("status") == status | {"staged": {".wvc/recipes/r.toml": "new", ".wvc/tasks/other.json": "new"}}


def test_a_committed_task_is_reverted_with_what_is_staged_of_it(two, templates):
    two.wvc("add", templates.beta, "--task", "alpha")

    done = two.json("revert", "alpha", "--no-rebuild")

    assert done["commit"] == two.git("rev-parse", "HEAD")
    assert two.json("status")["staged"] == {}
