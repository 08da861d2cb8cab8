"""Finding what is missing and damaged."""

import errno
import json
import re

import pytest
import torch

from weightvc.store.local import LocalStore
from weightvc.util.text import counted

COPY = "`wvc fetch --all` brings what was pushed; or restore them from another clone, or from the checkpoints"
COPY += ": `wvc fsck --repair --from PATH`"


def object_of(repo, task="alpha", section="tensors"):
    return next(entry["object"] for entry in repo.manifest(task)[section] if "object" in entry)


def damage(repo, oid, change):
    file = repo.object_file(oid)
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(change(data))


def test_a_healthy_repository(two):
    for options in ((), ("--full",), ("--full", "--jobs", "2")):
        found = two.json("fsck", *options)
        assert (found["ok"], found["findings"], found["unreferenced"]) == (True, [], 0)
        assert found["full"] == ("--full" in options)
        assert (found["manifests"], found["objects"]) == (3, len(two.objects()))
        assert found["bytes"] == sum(two.object_file(oid).stat().st_size for oid in two.objects())


def test_a_missing_object_and_what_it_costs(two):
    oid = object_of(two)
    two.object_file(oid).unlink()

    found = two.run("--json", "fsck")

    assert found.code == 1
    (finding,) = found.json["findings"]
    assert (finding["kind"], finding["what"], finding["detail"]) == ("missing", oid, "not in the store")
    assert "alpha: pooler.weight" in finding["costs"]
    assert not any(cost.startswith("beta") for cost in finding["costs"])


def test_missing_objects_are_counted_for_the_base_and_each_task(two):
    for oid in two.objects():
        two.object_file(oid).unlink()

    found = two.run("fsck")

    assert found.code == 1
    needs = two.run("--json", "fsck").json["needs"]
    assert set(needs) == {"base", "alpha", "beta"}
    assert set(found.out.splitlines()[:3]) == {
        f"the base: {needs['base']} of {counted(needs['base'], 'object')} missing",
        f"task alpha: {needs['alpha']} of {counted(needs['alpha'], 'object')} missing",
        f"task beta: {needs['beta']} of {counted(needs['beta'], 'object')} missing",
    }
    assert len(found.out.splitlines()) == 5


@pytest.mark.parametrize("change", [None, lambda data: data[:-1] + bytes([data[-1] ^ 1])], ids=["missing", "damaged"])
def test_an_object_of_the_base_is_counted_once(two, change):
    oid = object_of(two, "../base")
    if change is None:
        two.object_file(oid).unlink()
    else:
        damage(two, oid, change)

    found = two.run("--json", "fsck", "--full").json

    (finding,) = found["findings"]
    assert (finding["kind"], finding["what"]) == ("missing" if change is None else "corrupt", oid)
    assert found["hints"] == [COPY]
    assert two.run("fsck", "--full").err == f"hint: {COPY}\n"


def test_what_can_be_done_about_a_tasks_object(two, templates):
    two.wvc("repack", "alpha", "--level", "best")
    two.wvc("commit", "-m", "Smaller")
    oid = object_of(two)
    damage(two, oid, lambda data: data[:-1] + bytes([data[-1] ^ 1]))

    assert two.run("--json", "fsck", "--full").json["hints"] == [COPY]
    other = two.run("--json", "fsck", "--from", templates.beta)
    assert other.json["hints"] == [f"{templates.beta} has nothing that is missing here", COPY]
    healed = two.json("fsck", "--repair", "--from", templates.alpha)
    assert (healed["ok"], healed["hints"]) == (True, [])
    for oid in two.objects():
        two.object_file(oid).unlink()
    first = "name the base's checkpoint, or a clone, first: tasks are encoded against the base"
    assert two.run("--json", "fsck").json["hints"] == [COPY, first]


@pytest.fixture
def large(two, models, tmp_path):
    """The repository with a task whose tensor is an object of its own."""
    import torch

    two.put("large", models.write(tmp_path / "large", {**models.base(), "big": torch.ones(200, 200)}))
    return two, next(e["object"] for e in two.manifest("large")["tensors"] if "part" not in e and "object" in e)


def test_a_truncated_object(large):
    repo, oid = large
    damage(repo, oid, lambda data: data[:-1])

    found = repo.run("--json", "fsck")

    assert found.code == 1
    (finding,) = found.json["findings"]
    assert (finding["kind"], finding["what"], finding["costs"]) == ("corrupt", oid, ["large: big"])
    assert finding["detail"].startswith("its bytes hash to ")


def test_a_flipped_bit_is_found_by_reading(large):
    repo, oid = large
    damage(repo, oid, lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:])

    assert repo.json("fsck")["ok"]
    found = repo.run("--json", "fsck", "--full")

    assert found.code == 1
    (finding,) = found.json["findings"]
    assert (finding["kind"], finding["what"]) == ("corrupt", oid)
    assert "its bytes hash to" in finding["detail"]


def test_an_object_that_is_a_link(two, tmp_path):
    file = two.object_file(object_of(two))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")

    found = two.run("--json", "fsck")

    assert found.code == 1
    assert [finding["kind"] for finding in found.json["findings"]] == ["corrupt"]


def test_damaged_manifests_anywhere_in_history(two):
    path = two.path / ".wvc/tasks/alpha.json"
    whole = path.read_text()
    path.write_text(whole[:-5])
    two.git("commit", "-qam", "broken")
    now = two.run("--json", "fsck")
    (hint,) = now.json["hints"]
    path.write_text(whole)
    two.git("commit", "-qam", "mended")
    later = two.run("--json", "fsck")

    assert (now.code, later.code) == (1, 0)
    assert [(f["kind"], f["what"]) for f in now.json["findings"]] == [
        ("manifest", ".wvc/tasks/alpha.json"),
        ("manifest", "HEAD"),
    ]
    assert "`git checkout COMMIT -- .wvc/tasks/alpha.json`, and `git commit`" in hint
    (note,) = later.json["notes"]
    assert note.startswith(".wvc/tasks/alpha.json: ")
    assert f"in commit {two.git('rev-parse', 'HEAD~1')[:12]}; no branch or tag has that any more" in note
    assert later.json["hints"] == []


def test_a_damaged_manifest_that_another_branch_has(two):
    path = two.path / ".wvc/tasks/alpha.json"
    two.git("switch", "-qc", "other")
    path.write_text("{}")
    two.git("commit", "-qam", "broken")
    two.git("switch", "-q", "main")

    found = two.run("--json", "fsck")

    assert (found.code, found.json["notes"]) == (1, [])
    assert [(f["kind"], f["what"]) for f in found.json["findings"]] == [("manifest", ".wvc/tasks/alpha.json")]


def test_a_task_of_a_base_that_nothing_has(two):
    path = two.path / ".wvc/tasks/alpha.json"
    text = path.read_text()
    base = json.loads(text)["base"]
    path.write_text(text.replace(base, "0" * 64))
    two.git("commit", "-qam", "Another base")

    found = two.run("--json", "fsck")

    assert found.code == 1
    wrong = [f for f in found.json["findings"] if f["what"] == "alpha"]
    assert [(f["kind"], f["detail"]) for f in wrong] == [
        ("manifest", "it needs the base 000000000000, which no commit has")
    ]


def test_a_damaged_staged_manifest(two, templates, refused):
    two.wvc("add", templates.alpha, "--task", "new")
    (two.path / ".git/wvc/stage/tasks/new.json").write_text("{}")

    found = two.run("--json", "fsck")

    assert found.code == 1
    assert [f["what"] for f in found.json["findings"]] == ["staged .wvc/tasks/new.json"]
    assert found.json["hints"] == ["drop the staged version: `wvc unstage new`, and add it again"]
    says = "the staged manifest of task new is damaged: .wvc/tasks/new.json: "
    refused(two, 4, "commit", "-m", "New", says=says, hint="run `wvc unstage new`, and add it again")


def test_a_recipe_of_a_task_that_is_gone(two, refused):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta")
    two.wvc("commit", "-m", "Save it")
    two.git("rm", "-q", ".wvc/tasks/alpha.json")
    two.git("commit", "-qm", "by hand")

    found = two.run("--json", "fsck")

    assert found.code == 1
    assert found.json["findings"] == [
        {"kind": "recipe", "what": "prod", "costs": [], "detail": "names what is no task here: alpha"}
    ]
    assert two.run("fsck").out.startswith("recipe prod: names what is no task here: alpha\n3 manifests; ")
    assert "recipe prod makes no model: names what is no task here: alpha\n" in two.wvc("status")
    refused(
        two, 3, "checkout", "--recipe", "prod", says="recipe prod names what is no task here: alpha",
        hint="write it anew with `wvc recipe save prod --tasks a,b`, or add the tasks again",
    )  # fmt: skip


def test_a_recipe_that_cannot_be_read_stops_only_those_who_ask_for_it(two, refused):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha,beta")
    two.wvc("commit", "-m", "Save it")
    path = two.path / ".wvc/recipes/prod.toml"
    path.write_text("<<<<<<< HEAD\n" + path.read_text())
    two.git("commit", "-qam", "in the middle of a conflict")
    says = ".wvc/recipes/prod.toml: not valid TOML ("
    hint = (
        "correct .wvc/recipes/prod.toml and `git commit` it, or write it anew with `wvc recipe save prod --tasks a,b`"
    )

    for command in (["checkout", "--recipe", "prod"], ["recipe", "show", "prod"], ["recipe", "rm", "prod"]):
        refused(two, 3, *command, says=says, hint=hint)
    assert two.run("--json", "fsck").json["findings"][0]["what"] == "prod"
    assert f"recipe prod makes no model: {says}" in two.wvc("status")
    for command in (["log"], ["show", "alpha"], ["recipe", "list"], ["checkout", "--tasks", "alpha"]):
        two.wvc(*command)
    (warning,) = two.json("revert", "beta")["warnings"]
    assert warning.startswith(f"recipe prod was left as it is: {says}")
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Mended")
    assert two.json("fsck")["ok"]


def test_objects_that_nothing_refers_to_are_counted_and_no_problem(two, models, tmp_path):
    two.json("add", models.write(tmp_path / "x", models.tuned(models.base(), 9)), "--task", "new")
    assert two.json("fsck")["unreferenced"] == 0
    (two.path / ".git/wvc/stage/tasks/new.json").unlink()

    found = two.json("fsck")

    assert (found["ok"], found["unreferenced"]) == (True, 1)


def test_tasks_of_other_branches_and_of_the_past_count(two):
    two.git("branch", "keep")
    two.wvc("revert", "alpha", "--no-rebuild")
    two.object_file(object_of(two, "beta")).unlink()
    two.git("checkout", "-q", "--orphan", "x", "HEAD~1")
    two.git("commit", "-qm", "again")

    found = two.run("--json", "fsck")

    assert found.json["manifests"] == 3
    assert [finding["kind"] for finding in found.json["findings"]] == ["missing"]


def test_the_library_checks_too(two):
    found = two.api().fsck(full=True, jobs=1)

    assert (found.ok, found.full) == (True, True)


def test_two_tensors_that_changed_places_in_a_manifest(repository, models, tmp_path):
    base = {"q": torch.full((3, 3), 1.0), "k": torch.full((3, 3), 2.0), "v": torch.zeros(3)}
    repo = repository(models.write(tmp_path / "base", base))
    repo.put("task", models.write(tmp_path / "task", {**base, "v": torch.ones(3)}))
    file = repo.path / ".wvc/base.json"
    lines = file.read_bytes().splitlines(keepends=True)
    place = re.compile(rb'"object":"\w+","part":\d+')
    (i, first), (j, second) = (
        (n, place.search(line)[0])
        for n, line in enumerate(lines)
        if b'"F32","name":"q"' in line or b'"F32","name":"k"' in line
    )
    lines[i], lines[j] = lines[i].replace(first, second), lines[j].replace(second, first)
    file.write_bytes(b"".join(lines))
    repo.git("commit", "-qam", "Swap them")

    found = repo.run("--json", "fsck", "--full")
    merged = repo.run("checkout", "--tasks", "task=0.5", "-o", tmp_path / "out")

    assert found.code == 1
    assert {(finding["kind"], finding["what"]) for finding in found.json["findings"]} == {
        ("corrupt", "base: q"),
        ("corrupt", "base: k"),
        ("corrupt", "task: q"),
        ("corrupt", "task: k"),
    }
    assert merged.code == 4
    assert "does not have the digest that its manifest states" in merged.err
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_wrong_of_a_good_object_costs_nothing(large):
    repo, oid = large
    file = repo.path / ".wvc/tasks/large.json"
    size = repo.object_file(oid).stat().st_size
    file.write_text(file.read_text().replace(f'"size":{size}', f'"size":{size + 1}'))
    repo.git("commit", "-qam", "Wrong")
    before = repo.objects()

    found = repo.run("--json", "fsck", "--repair")

    assert found.code == 1
    assert found.json["quarantined"] == []
    assert repo.objects() == before
    wrong = [one for one in found.json["findings"] if one["kind"] == "manifest"]
    assert [one["detail"] for one in wrong] == [f"it gives object {oid} {size + 1} bytes, which has {size}"]


@pytest.mark.parametrize("full", [(), ("--full",)])
def test_an_object_that_cannot_be_read_is_one_finding(large, monkeypatch, full):
    repo, oid = large
    real = LocalStore._opened

    def failing(store, wanted):
        if wanted == oid:
            raise OSError(errno.EIO, "Input/output error")
        return real(store, wanted)

    monkeypatch.setattr(LocalStore, "_opened", failing)

    found = repo.run("--json", "fsck", *full)

    assert found.code == 1
    (finding,) = found.json["findings"]
    assert (finding["kind"], finding["what"]) == ("corrupt", oid)
    assert finding["detail"] == "it cannot be read: Input/output error"


def test_a_recipe_of_an_earlier_commit_that_git_has_not_whole(two):
    for tasks in ("alpha", "beta"):
        two.wvc("recipe", "save", "prod", "--tasks", tasks)
        two.wvc("commit", "-m", tasks)
    old, new = (two.git("rev-parse", f"{rev}:.wvc/recipes/prod.toml") for rev in ("HEAD~1", "HEAD"))
    files = [two.path / ".git/objects" / oid[:2] / oid[2:] for oid in (old, new)]
    files[0].chmod(0o644)
    files[0].write_bytes(files[1].read_bytes())

    found = two.run("--json", "fsck", "--full")

    assert found.code == 1
    (finding,) = found.json["findings"]
    assert (finding["kind"], finding["what"]) == ("recipe", ".wvc/recipes/prod.toml")
    assert f"git's file {old} is damaged" in finding["detail"]
