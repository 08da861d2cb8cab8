"""Bringing back what was lost, from other copies and from the checkpoints themselves."""

import errno
import shutil
from unittest.mock import Mock

import pytest
import torch

from weightvc.repo import fsck
from weightvc.store.local import LocalStore


@pytest.fixture
def rich(repository, models, tmp_path):
    """A repository with large and small tensors, lossless, lossy and raw tasks; and where each came from."""
    start = {**models.base(), "big": torch.randn(300, 200, generator=torch.Generator().manual_seed(5))}
    sources = {"base": models.write(tmp_path / "base", start)}
    repo = repository(sources["base"])
    ways = {"plain": (), "best": ("--level", "best"), "small": ("--codec", "int4"), "whole": ("--codec", "raw")}
    for seed, (name, options) in enumerate(ways.items()):
        sources[name] = models.write(tmp_path / name, models.tuned(start, seed))
        repo.put(name, sources[name], *options)
    return repo, sources


def failing(repo, *arguments):
    """Run a command that must find something, and return its document."""
    ran = repo.run("--json", *arguments)
    assert ran.code == 1, ran.err
    return ran.json


def objects_of(repo, name):
    manifest = repo.manifest("../base" if name == "base" else name)
    return {e["object"] for key in ("tensors", "files", "headers") for e in manifest[key] if "object" in e}


def lose(repo, oids, how="missing"):
    for oid in oids:
        file = repo.object_file(oid)
        data = file.read_bytes()
        file.unlink()
        if how == "damaged":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


HOW = ["missing", "damaged"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["clone", "objects"])
def test_copies_from_another_store(two, tmp_path, how, kind):
    shutil.copytree(two.path, tmp_path / "clone")
    source = tmp_path / "clone" if kind == "clone" else tmp_path / "clone/.git/wvc/objects"
    lost = sorted(two.objects())
    lose(two, lost, how)
    before = two.everything()

    planned = failing(two, "fsck", "--from", source)
    assert two.everything() == before
    assert sorted(one["id"] for one in planned["restored"]) == lost
    assert sorted(planned["quarantined"]) == (lost if how == "damaged" else [])
    done = two.json("fsck", "--repair", "--from", source)

    assert (done["ok"], done["findings"]) == (True, [])
    assert done["restored"] == planned["restored"] == [{"id": oid, "source": str(source)} for oid in lost]
    quarantine = two.path / ".git/wvc/quarantine"
    kept = {file.name.partition("-")[0]: file.read_bytes() for file in quarantine.glob("*")}
    assert kept == ({oid: before[f".git/wvc/objects/{oid[:2]}/{oid[2:]}"] for oid in lost} if how == "damaged" else {})
    assert two.json("fsck", "--full")["ok"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["base", "plain", "best", "small", "whole"])
def test_objects_from_the_checkpoint_that_they_came_from(rich, how, name):
    repo, sources = rich
    lost = objects_of(repo, name)
    lose(repo, lost, how)

    done = repo.json("fsck", "--repair", "--from", sources[name])

    assert done["ok"], done["findings"]
    assert {one["id"] for one in done["restored"]} == lost


def test_the_base_first_and_then_what_needs_it(rich):
    repo, sources = rich
    lose(repo, repo.objects())
    froms = [word for source in sources.values() for word in ("--from", source)]

    ran = repo.run("fsck", "--repair", *froms)

    assert ran.code == 0, ran.out
    assert "no problems found" in ran.out


def test_sources_are_looked_at_again_once_the_base_is_back(rich):
    repo, sources = rich
    lose(repo, objects_of(repo, "base") | objects_of(repo, "plain"))

    done = repo.json("fsck", "--repair", "--from", sources["plain"], "--from", sources["base"])

    assert done["ok"], done["findings"]


ANEW = [(), ("--level", "best"), ("--level", "fast"), ("--codec", "raw"), ("--codec", "full")]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("options", ANEW, ids=" ".join)
def test_what_repack_made_is_made_again(rich, how, options):
    repo, sources = rich
    added = objects_of(repo, "whole")
    repo.wvc("repack", "whole", *options)
    if options != ("--codec", "raw"):
        repo.wvc("commit", "-m", "Anew")
        assert objects_of(repo, "whole") != added
    lost = objects_of(repo, "whole")
    lose(repo, lost, how)

    done = repo.json("fsck", "--repair", "--from", sources["whole"])

    assert done["ok"], done["findings"]
    assert {one["id"] for one in done["restored"]} == lost


def test_a_bundle_of_what_became_smaller_is_put_together(repository, models, tmp_path):
    made = torch.Generator().manual_seed(3)
    start = {f"layer.{at}.weight": torch.randn(40, 40, generator=made) for at in range(8)}
    tuned = {name: tensor * 1.001 for name, tensor in start.items()}
    noise = torch.randint(0, 255, (2, 6400), generator=made, dtype=torch.uint8)  # whose difference has no pattern
    repo = repository(models.write(tmp_path / "base", {**start, "noise": noise[0]}))
    source = models.write(tmp_path / "tuned", {**tuned, "noise": noise[1]})
    repo.put("tuned", source, "--codec", "raw")
    repo.wvc("repack", "tuned")
    repo.wvc("commit", "-m", "Smaller where it can be")
    lost = objects_of(repo, "tuned") - objects_of(repo, "base")
    added = set()
    for way in ("--codec=raw", "--level=best"):
        other = repository(tmp_path / "base", name=way)
        other.put("tuned", source, way)
        added |= objects_of(other, "tuned")
    assert len(lost - added) == 1, "wvc add stores no such object"
    lose(repo, lost)

    done = repo.json("fsck", "--repair", "--from", source)

    assert done["ok"], done["findings"]
    assert {one["id"] for one in done["restored"]} == lost


def test_another_checkpoint_has_nothing_of_it(rich):
    repo, sources = rich
    lost = objects_of(repo, "plain") - objects_of(repo, "base")
    lose(repo, lost)

    found = failing(repo, "fsck", "--repair", "--from", sources["best"])

    assert {finding["what"] for finding in found["findings"]} == lost - {one["id"] for one in found["restored"]}
    assert not found["ok"]


def test_a_checkpoint_of_something_else_is_not_encoded(two, templates, monkeypatch):
    lose(two, objects_of(two, "alpha") - objects_of(two, "beta") - objects_of(two, "base"))
    monkeypatch.setattr("weightvc.repo.snapshot.take", lambda *_, **__: pytest.fail("it was encoded"))

    found = failing(two, "fsck", "--repair", "--from", templates.beta)

    assert found["restored"] == []
    assert f"{templates.beta} has nothing that is missing here" in found["hints"]


def test_a_dry_run_says_how_to_do_it(two, templates):
    lose(two, objects_of(two, "alpha") - objects_of(two, "base"))

    found = failing(two, "fsck", "--from", templates.alpha)

    assert found["hints"] == ["nothing was changed: run it with --repair, and without --dry-run"]


def test_damage_is_put_aside_even_if_nothing_is_known_of_a_copy(two):
    (oid, *_) = sorted(two.objects())
    lose(two, [oid], "damaged")
    ran = two.run("fsck", "--repair")
    assert ran.code == 1
    assert ran.out.startswith(f"moved damaged object {oid} to .git/wvc/quarantine\n")
    assert "or restore them from another clone, or from the checkpoints" in ran.err
    assert oid not in two.objects()


def test_a_link_in_place_of_an_object_is_put_aside(two, tmp_path):
    shutil.copytree(two.path, tmp_path / "clone")
    (oid, *_) = sorted(two.objects())
    two.object_file(oid).unlink()
    two.object_file(oid).symlink_to("/etc/passwd")
    done = two.json("fsck", "--repair", "--from", tmp_path / "clone")
    assert (done["ok"], done["quarantined"]) == (True, [oid])
    (aside,) = (two.path / ".git/wvc/quarantine").iterdir()
    assert aside.is_symlink()


def test_a_source_with_damage_of_its_own_gives_nothing_wrong(two, tmp_path):
    shutil.copytree(two.path, tmp_path / "clone")
    clone = type(two)(tmp_path / "clone")
    (oid, other, *_) = sorted(two.objects())
    lose(two, [oid, other])
    lose(clone, [oid], "damaged")
    found = failing(two, "fsck", "--repair", "--from", clone.path)
    assert [one["id"] for one in found["restored"]] == [other]
    assert [finding["what"] for finding in found["findings"]] == [oid]


@pytest.mark.parametrize("at", range(6))
def test_a_repair_that_is_cut_off_is_taken_up_again(two, tmp_path, monkeypatch, at):
    shutil.copytree(two.path, tmp_path / "clone")
    lost = sorted(two.objects())
    lose(two, lost, "damaged")
    steps = iter(range(100))
    with monkeypatch.context() as patch:
        for name in ("put", "put_aside"):
            real = getattr(LocalStore, name)

            def step(*arguments, real=real):
                if next(steps) == at * len(lost) // 3:
                    raise KeyboardInterrupt
                return real(*arguments)

            patch.setattr(LocalStore, name, step)
        assert two.run("fsck", "--repair", "--from", tmp_path / "clone").code == 130
    assert two.json("fsck", "--repair", "--from", tmp_path / "clone")["ok"]


def test_what_is_no_source_is_refused(two, tmp_path):
    lose(two, sorted(two.objects())[:1])
    (tmp_path / "empty").mkdir()
    ran = two.run("fsck", "--repair", "--from", tmp_path / "empty")
    assert ran.code == 3
    assert str(tmp_path / "empty") in ran.err
    assert two.run("fsck", "--from", tmp_path / "none").code == 2


def test_from_python(two, tmp_path):
    shutil.copytree(two.path, tmp_path / "clone")
    lost = sorted(two.objects())
    lose(two, lost)
    repo = two.api()
    assert [one.id for one in repo.repair([tmp_path / "clone"], dry_run=True).restored] == lost
    assert repo.repair([tmp_path / "clone"]).ok


def test_what_another_process_mended_meanwhile_stays(two, tmp_path, monkeypatch):
    shutil.copytree(two.path, tmp_path / "clone")
    lost = sorted(objects_of(two, "alpha"))
    lose(two, lost, "damaged")
    real = fsck.fsck

    def mended(*args, **options):
        found = real(*args, **options)
        for oid in lost:
            shutil.copyfile(tmp_path / f"clone/.git/wvc/objects/{oid[:2]}/{oid[2:]}", two.object_file(oid))
        return found

    monkeypatch.setattr(fsck, "fsck", mended)

    done = two.json("fsck", "--repair")

    assert (done["ok"], done["quarantined"]) == (True, [])
    assert two.json("fsck", "--full")["ok"]


def test_a_source_with_a_bad_sector_gives_the_rest(two, tmp_path, monkeypatch):
    shutil.copytree(two.path, tmp_path / "clone")
    lost = sorted(two.objects())
    lose(two, lost)
    real = LocalStore.verify

    def broken(store, oid):
        if oid == lost[0] and tmp_path / "clone" in store.root.parents:
            raise OSError(errno.EIO, "Input/output error")
        real(store, oid)

    monkeypatch.setattr(LocalStore, "verify", broken)

    done = failing(two, "fsck", "--repair", "--from", tmp_path / "clone")

    assert [one["id"] for one in done["restored"]] == lost[1:]


def test_a_checkpoint_that_a_hub_keeps_in_git_is_one(rich):
    repo, sources = rich
    repo.git("init", "-q", sources["base"])
    lost = objects_of(repo, "base")
    lose(repo, lost)
    assert {one["id"] for one in repo.json("fsck", "--repair", "--from", sources["base"])["restored"]} == lost


def test_nothing_is_moved_before_all_sources_are_known(two, tmp_path, refused):
    lose(two, objects_of(two, "alpha"), "damaged")
    (tmp_path / "empty").mkdir()
    refused(
        two, 3, "fsck", "--repair", "--from", tmp_path / "empty", "--from", two.path,
        says="no .safetensors", hint="give the directory that holds the model's weights",
    )  # fmt: skip


def test_nothing_of_another_store_is_moved_through_a_link(two, tmp_path):
    """A clone whose objects are a link to those of the one beside it, which are whole."""
    two.git("clone", "-q", str(two.path), str(tmp_path / "clone"))
    clone = type(two)(tmp_path / "clone")
    (clone.path / ".git/wvc").mkdir()
    link = clone.path / ".git/wvc/objects"
    link.symlink_to(two.path / ".git/wvc/objects")
    before = two.objects()
    ran = clone.run("fsck", "--repair", "--from", two.path)
    says = f"wvc: {link} is not a plain directory; wvc writes nothing through it\nhint: move it away\n"
    assert (ran.code, ran.err) == (3, says)
    assert two.objects() == before
    link.unlink()
    assert clone.json("fsck", "--repair", "--from", two.path)["ok"]


def test_what_this_user_may_not_read_stays(two, monkeypatch):
    (oid, *_) = sorted(two.objects())
    real = LocalStore.verify

    def verify(self, asked):
        if asked == oid:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(self, asked)

    monkeypatch.setattr(LocalStore, "verify", verify)
    done = two.api().repair([])
    assert [(found.kind, found.what) for found in done.findings if found.what == oid] == [("unreadable", oid)]
    assert done.quarantined == ()
    assert "whoever owns the files that cannot be read can let you: `chmod a+r`" in done.hints
    assert oid in two.objects()


def test_a_machine_that_lacks_room_is_no_damage(two, monkeypatch):
    monkeypatch.setattr(LocalStore, "verify", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
    with pytest.raises(OSError, match="Too many open files"):
        two.api().repair([])
    assert not (two.path / ".git/wvc/quarantine").exists()
