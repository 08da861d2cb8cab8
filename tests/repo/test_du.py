"""What everything takes on disk, and whose it is."""

import pytest


def sizes(repo, oids):
    return sum(repo.object_file(oid).stat().st_size for oid in oids)


def objects_of(manifest):
    return {e["object"] for key in ("tensors", "files", "headers") for e in manifest[key] if "object" in e}


def usage(found):
    return {one["name"]: one for one in found["usage"]}


def test_the_parts_are_the_whole(two):
    found = two.json("du")

    assert list(usage(found)) == ["base", "alpha", "beta"]
    assert (found["objects"], found["objects_bytes"]) == (len(two.objects()), sizes(two, two.objects()))
    assert (found["unreferenced"], found["unreferenced_bytes"], found["scratch_bytes"]) == (0, 0, 0)
    for name in ("alpha", "beta"):
        one = usage(found)[name]
        mine = objects_of(two.manifest(name))
        others = objects_of(two.manifest("beta" if name == "alpha" else "alpha")) | objects_of(two.manifest("../base"))
        assert one["stored_bytes"] == sizes(two, mine)
        assert one["own_bytes"] == sizes(two, mine - others)
        assert one["shared_bytes"] == sizes(two, mine & others)
        assert (one["state"], one["older_bytes"], one["versions"], one["lossy"]) == ("current", 0, 1, [])
    owned = sum(one["own_bytes"] for one in found["usage"])
    assert owned <= found["objects_bytes"] <= owned + sum(one["shared_bytes"] for one in found["usage"])


def test_twins_share_all_of_it(two, templates):
    two.put("twin", templates.alpha)
    found = usage(two.json("du"))
    assert found["twin"]["own_bytes"] == found["alpha"]["own_bytes"] == 0
    assert found["twin"]["shared_bytes"] == found["alpha"]["shared_bytes"] == found["alpha"]["stored_bytes"] > 0


def test_earlier_versions_staged_and_removed_tasks(two, models, tmp_path):
    old = objects_of(two.manifest("alpha"))
    again = models.write(tmp_path / "again", models.tuned(models.base(), 77))
    two.put("alpha", again)
    two.wvc("revert", "beta")
    two.wvc(
        "add", models.write(tmp_path / "fresh", models.tuned(models.base(), 78)), "--task", "fresh", "--codec", "int4"
    )

    ran = two.json("du")
    found = usage(ran)

    assert found["alpha"]["versions"] == 2
    assert found["alpha"]["older_bytes"] == sizes(two, old) > 0
    assert found["alpha"]["own_bytes"] == sizes(two, old | objects_of(two.manifest("alpha")))
    assert (found["beta"]["state"], found["fresh"]["state"]) == ("past", "staged")
    assert list(found) == ["base", "alpha", "beta", "fresh"]
    lines = two.wvc("du").splitlines()
    assert lines[0].split() == ["STORED", "OWN", "SHARED", "OLDER"]
    assert lines[2].split("  ")[-1] == "2 versions"
    assert lines[4].split("  ")[-1] == "staged"


def test_what_nothing_refers_to_and_what_else_is_there(two, templates):
    two.wvc("add", templates.alpha, "--task", "extra", "--codec", "raw")
    two.wvc("unstage")
    for name, data in (("cache/x", b"12345"), ("tmp/y", b"123"), ("quarantine/z", b"1")):
        file = two.path / ".git/wvc" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)

    found = two.json("du")

    assert found["unreferenced"] > 0
    assert found["unreferenced_bytes"] == two.json("gc", "-n", "--grace", "0")["removed_bytes"]
    assert (found["cache_bytes"], found["scratch_bytes"], found["quarantine_bytes"]) == (5, 3, 1)
    said = two.wvc("du").splitlines()
    assert "that nothing refers to: `wvc gc` deletes them" in said[-4]
    aside = "damaged objects in .git/wvc/quarantine, which nothing reads: 1 B"
    assert said[-3:] == ["cached states: 5 B", "scratch files: 3 B", aside]


@pytest.mark.parametrize("task", ["alpha", "base"])
def test_missing_objects_take_nothing(two, task):
    for oid in objects_of(two.manifest("../base" if task == "base" else task)):
        two.object_file(oid).unlink()
    assert usage(two.json("du"))[task]["stored_bytes"] == 0
