"""Each kind of hostile input, through the command that meets it: refused by name, and nothing is written.

The numbers are those of the project's list of bad inputs. What comes in as a weight file is added; what a clone brings
along is committed, and then asked for. Numbers that are missing belong to what weightvc does not have: packs, chains of
deltas, remotes, certificates and a web page.
"""

import os
import re
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import save

HEADERS = {
    "1": ("empty", "seven bytes"),
    "2": ("length 2**63",),
    "3": ("length beyond the file", "short"),
    "4": ("length 0",),
    "5": ("overlap", "partial overlap", "empty in the middle"),
    "6": ("hole", "hole at the start"),
    "7": ("trailing bytes", "trailing bytes, no tensor"),
    "8": ("begin > end",),
    "9": ("negative", "negative dimension"),
    "10": ("overflow",),
    "11": ("huge empty", "rank 1000"),
    "12": ("twice", "inner twice"),
    "13": ("leading space",),
    "14": ("not UTF-8", "surrogate", "deep", "5000 digits"),
    "22": ("empty name", "long name"),
    "23": ("control name",),
    "25": ("pickle", "zip"),
    "26": ("pointer",),
}
"""Row to the names of headers in the tests of the parser, which have the bytes and the words."""


@pytest.fixture(scope="module")
def still(sandbox, templates, tmp_path_factory):
    """A repository that nothing changes, as long as all that is tried is refused."""
    return sandbox(shutil.copytree(templates.root / "two", tmp_path_factory.mktemp("still") / "repo", symlinks=True))


@pytest.fixture(scope="module")
def headers(builders):
    return builders("checkpoint/test_header")


@pytest.fixture(scope="module")
def objects(builders):
    return builders("delta/test_hostile")


@pytest.mark.parametrize("case", [f"{row} {case}" for row, cases in HEADERS.items() for case in cases])
def test_weight_files(still, refused, headers, tmp_path, case):
    data, says = headers.HOSTILE[case.partition(" ")[2]]
    (tmp_path / "m.safetensors").write_bytes(data)

    ran = refused(still, 3, "add", tmp_path / "m.safetensors", "--task", "x", says=says.replace("\\", "\\\\"))

    assert f"{tmp_path}/m.safetensors: " in ran.err
    assert "\nhint: " in ran.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace(b'"nonfinite":0', b'"nonfinite":NaN'), "NaN is not JSON"),
        (lambda text: text.replace(b'"nonfinite":0', b'"nonfinite":0,\n"nonfinite":1'), "duplicate name 'nonfinite'"),
        (lambda text: text.replace(b'"nonfinite":0', b'"nonfinite": 0'), "not in canonical form"),
    ],
    ids=["15 NaN", "15 twice", "15 spelling"],
)
def test_manifests(clone, change, says):
    path = clone.repo.path / ".wvc/tasks/alpha.json"
    path.write_bytes(change(path.read_bytes()))
    clone.repo.git("commit", "-qam", "Forged")
    says, hint = f".wvc/tasks/alpha.json: {says}", "run `wvc fsck`, or restore the file with git"

    clone.refuses(4, "status", says=says, hint=hint)
    clone.refuses_alpha(says, hint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["16 NaN", "16 infinity"])
def test_numbers_that_are_none(two, refused, models, tmp_path, value):
    tuned = models.tuned(models.base(), 7)
    tuned["pooler.weight"][0, 0] = value
    source = models.write(tmp_path / "source", tuned)

    refused(
        two, 3, "add", source, "--task", "x", says="tensor pooler.weight holds 1 non-finite values (NaN or infinity)",
        hint="pass --allow-nonfinite to store it all the same",
    )  # fmt: skip
    two.put("x", source, "--allow-nonfinite")

    assert two.manifest("x")["nonfinite"] == 1
    two.wvc("checkout", "--tasks", "x", "-o", tmp_path / "out")
    models.assert_same(models.read(tmp_path / "out"), tuned)


def test_row_17_booleans(repository, refused, headers, tmp_path):
    for name, byte in (("base", 1), ("bad", 7)):
        header = headers.one(dtype="BOOL", shape=[4])
        (tmp_path / f"{name}.safetensors").write_bytes(headers.mk(header, bytes([byte] * 4)))
    repo = repository(tmp_path / "base.safetensors")

    refused(
        repo, 3, "add", tmp_path / "bad.safetensors", "--task", "x", says="a is BOOL but holds bytes other than 0 and 1"
    )


def _retyped(tensors):
    return tensors | {"logit_scale": tensors["logit_scale"].half()}


def _reshaped(tensors):
    return tensors | {"pooler.weight": torch.ones(7, 12, dtype=torch.float64)}


def _others(tensors):
    extra = {f"new.{n:02}": torch.ones(2) for n in range(12)}
    return {name: tensor for name, tensor in tensors.items() if name != "pooler.weight"} | extra


@pytest.mark.parametrize(
    "case",
    [
        (_retyped, ["logit_scale"], {"reshaped": 1}),
        (_reshaped, ["pooler.weight"], {"reshaped": 1}),
        (_others, [f"new.{n:02}" for n in range(12)], {"added": 12, "removed": 1}),
    ],
    ids=["18 dtype", "19 shape", "20 missing and extra"],
)
def test_tensors_that_the_base_has_otherwise(two, models, tmp_path, case):
    change, names, counts = case
    tuned = change(models.tuned(models.base(), 5))

    ran = two.run("add", models.write(tmp_path / "m", tuned), "--task", "odd")
    two.wvc("commit", "-m", "Add odd")
    two.wvc("checkout", "--tasks", "odd=0.5", "-o", tmp_path / "merged")
    two.wvc("checkout", "--tasks", "odd", "-o", tmp_path / "odd")

    assert ran.code == 0
    states = {line["name"]: line["state"] for line in two.manifest("odd")["tensors"]}
    assert [name for name, state in states.items() if state == "whole"] == names
    assert all(name in ran.err for name in names[:3])
    assert sum(name in ran.err for name in names) <= 10
    assert {key: two.json("add", tmp_path / "m", "--task", "again")["tensors"][key] for key in counts} == counts
    merged, base = models.read(tmp_path / "merged"), models.base()
    assert {n: (t.dtype, t.shape) for n, t in merged.items()} == {n: (t.dtype, t.shape) for n, t in base.items()}
    assert all(torch.equal(merged[name], base[name]) for name in names if name in base)
    models.assert_same(models.read(tmp_path / "odd"), tuned)


def test_row_21_a_million_tensors(still, refused, headers, tmp_path):
    many = headers.mk(headers.many(1_000_000))
    (tmp_path / "m.safetensors").write_bytes(many)
    refused(
        still, 3, "add", tmp_path / "m.safetensors", "--task", "x",
        says=f"a header of {len(many) - 8} bytes, more than the limit of {headers.MAX_HEADER}",
    )  # fmt: skip
    (tmp_path / "m.safetensors").write_bytes(headers.mk(headers.many(headers.MAX_TENSORS + 1)))
    refused(still, 3, "add", tmp_path / "m.safetensors", "--task", "x", says="more than 100000 tensors")


def test_rows_22_and_23_names_are_no_paths_and_are_told_apart(repository, models, tmp_path):
    names = ["../../x", "/etc/passwd", "C:", "x" * 1024, "e\u0301", "\u00e9", "CASE", "case", "\u202egnp.exe"]
    base = {name: torch.full((3,), float(at)) for at, name in enumerate(names)}
    tuned = {name: tensor + 1 for name, tensor in base.items()} | {"\u202enew": torch.ones(1)}
    for where, tensors in (("base", base), ("tuned", tuned)):
        (tmp_path / where).mkdir()
        (tmp_path / where / "model.safetensors").write_bytes(save(tensors))
    repo = repository(tmp_path / "base")

    ran = repo.run("add", tmp_path / "tuned", "--task", "x")
    repo.wvc("commit", "-m", "Add x")
    before = sorted(tmp_path.iterdir())
    repo.wvc("checkout", "--tasks", "x", "-o", tmp_path / "out")
    shown = repo.wvc("diff", "x") + repo.wvc("show", "x")

    models.assert_same(models.read(tmp_path / "out"), tuned)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
    assert "\\u202enew" in ran.err
    assert "\u202e" not in ran.out + ran.err + shown


@pytest.mark.parametrize("name", ["../../x", "-D", "x.lock", "@{", "a\nb", "CON", "con"])
def test_row_24_names_of_tasks(still, refused, templates, name):
    shown = name.replace("\n", "\\\\u000a")
    refused(
        still, 3, "add", templates.alpha, f"--task={name}", says=f"'{shown}' cannot name a task",
        hint="use 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit",
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["bin", "pt", "pth"])
def test_row_25_pickles(still, refused, builders, tmp_path, ending):
    pickled = builders("checkpoint/test_pickled")
    file = tmp_path / f"m.{ending}"
    torch.save({"a": torch.ones(1), "b": pickled.Evil(str(tmp_path / "ran"))}, file)
    refused(
        still, 3, "add", file, "--task", "x", says=f"{file}: holds code or objects other than tensors, or is damaged",
        hint="load it in a place you trust and save its tensors with safetensors.torch.save_file",
    )  # fmt: skip
    file.rename(tmp_path / "renamed.safetensors")
    refused(
        still, 3, "add", tmp_path / "renamed.safetensors", "--task", "x", says="a zip archive, not safetensors",
        hint="if PyTorch saved it, rename it to end in .pt",
    )  # fmt: skip
    assert not (tmp_path / "ran").exists()


def test_row_25_other_pickles_travel_unopened(two, models, builders, tmp_path):
    pickled = builders("checkpoint/test_pickled")
    source = models.write(tmp_path / "m", models.tuned(models.base(), 5))
    torch.save(pickled.Evil(str(tmp_path / "ran")), source / "training_args.bin")

    two.put("x", source)
    two.wvc("checkout", "--tasks", "x", "-o", tmp_path / "out")

    assert (tmp_path / "out/training_args.bin").read_bytes() == (source / "training_args.bin").read_bytes()
    assert not (tmp_path / "ran").exists()


FRAMES = {
    "27 bomb": (lambda t: t.BOMB, "plane 0 is a zstd frame that does not declare 3000 bytes"),
    "28 claims 32 TiB": (lambda t: t.CLAIM, "plane 0 is a zstd frame that does not declare 3000 bytes"),
    "28 claims nothing": (lambda t: t.OPEN, "plane 0 is a zstd frame that does not declare 3000 bytes"),
    "30 two frames": (lambda t: t.zstd(t.ROW) * 2, "plane 0 is not one whole zstd frame"),
    "30 truncated frame": (lambda t: t.zstd(t.ROW)[:-1], "plane 0 is not one whole zstd frame"),
    "30 frame and junk": (lambda t: t.zstd(t.ROW) + b"x", "plane 0 is not one whole zstd frame"),
    "29 window of 128 MiB": (
        lambda t: b"\x28\xb5\x2f\xfd\x40\x88\xb8\x0a\xc1\x5d\x00" + t.ROW,
        "plane 0 is a zstd frame with a window of 134217728 bytes",
    ),
}


@pytest.mark.parametrize("row", FRAMES)
def test_frames(clone, objects, row):
    frame, says = FRAMES[row]
    oid = clone.plant(objects.framed(objects.ROW, (2, frame(objects))))
    clone.refuses_alpha(f"object {oid}: chunk 0: {says}", "run `wvc fsck --full` to see what is damaged")


def test_row_28_an_object_of_more_than_there_can_be(clone, objects):
    head = objects.head(b'{"codec":"raw","dtype":"U8","shape":[281474976710655],"side":false}')
    oid = clone.plant(head, "raw", 2**48 - 1)
    clone.refuses_alpha(f"object {oid}: 0 bytes cannot hold 536870912 chunks")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda whole: whole[:-1], "3016 bytes of chunks, 3017"),
        (lambda whole: whole + b"x", "3018 bytes of chunks, 3017"),
    ],
    ids=["30 cut", "30 appended"],
)
def test_objects_of_another_length(clone, objects, change, says):
    oid = clone.plant(change(objects.framed(objects.ROW, (0, objects.ROW))))
    clone.refuses_alpha(f"object {oid}: {says}")


def test_row_31_bytes_that_are_not_the_objects(two, tmp_path):
    oid = next(line["object"] for line in two.manifest("alpha")["tensors"] if "object" in line)
    data = bytearray(two.object_file(oid).read_bytes())
    data[-1] ^= 1
    two.object_file(oid).chmod(0o644)
    two.object_file(oid).write_bytes(data)
    before = two.everything()

    found = two.run("--json", "fsck", "--full")
    asked = two.run("checkout", "--tasks", "alpha", "-o", tmp_path / "out")

    assert found.code == 1
    (finding,) = found.json["findings"]
    assert (finding["kind"], finding["what"]) == ("corrupt", oid)
    assert finding["detail"].startswith("its bytes hash to ")
    assert (asked.code, asked.out) == (4, "")
    assert re.search(f"object {oid}: chunk 0( does not match its checksum|: )", asked.err)
    assert two.everything() == before


def test_row_31_one_kind_served_as_another(clone):
    line = next(line for line in clone.repo.manifest("alpha")["tensors"] if "part" in line)

    def whole(value):
        (found,) = (entry for entry in value["tensors"] if entry["name"] == line["name"])
        del found["part"]
        found["size"] = clone.repo.object_file(line["object"]).stat().st_size

    clone.forge(whole)
    clone.refuses_alpha(f"object {line['object']}: an object of kind 2, kind 1 (tensor) was expected")


def test_row_31_headers_that_list_other_tensors(clone):
    clone.forge(lambda value: value["tensors"].pop())
    clone.refuses_alpha("the manifest of task alpha does not list the tensors that its headers do", "run `wvc fsck")


def test_row_33_an_object_of_another_repository(clone, repository, templates):
    other = repository(templates.alpha, name="other")
    oid = next(iter(other.objects() - clone.repo.objects()))

    def refer(value):
        next(line for line in value["tensors"] if "part" in line)["object"] = oid

    clone.forge(refer)
    clone.refuses_alpha(f"object {oid} is not in the store", "`wvc fetch` brings")


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (-1, "-1 is negative"),
        (1.5, "1.5 is not of type int"),
        (True, "True is not of type int"),
        (2**63, "an integer beyond 64 bits"),
        (None, "None is not of type int"),
    ],
    ids=["35 negative", "35 fraction", "35 boolean", "35 too large", "35 none"],
)
def test_sizes_that_are_none(clone, size, says):
    def change(value):
        next(line for line in value["tensors"] if "size" in line)["size"] = size

    clone.forge(change)
    hint = "run `wvc fsck`, or restore the file with git"
    clone.refuses(4, "status", says=says, hint=hint)
    clone.refuses_alpha(says, hint)


def test_row_36_a_repository_of_a_newer_format(clone):
    path = clone.repo.path / ".wvc/config.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 999"))
    clone.repo.git("commit", "-qam", "Newer")
    clone.refuses_alpha("repository format 999; this wvc reads format 1", "upgrade weightvc", code=3)


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ({"schema": "weightvc/manifest/999"}, "schema 'weightvc/manifest/999'; this wvc reads weightvc/manifest/1"),
        ({"features": ["tomorrow"]}, "unknown features ['tomorrow']"),
    ],
    ids=["36 schema", "36 feature"],
)
def test_manifests_that_are_newer(clone, member, says):
    clone.forge(lambda value: value.update(member))
    clone.refuses_alpha(says, "upgrade weightvc", code=3)


def test_row_36_an_object_of_a_newer_format(clone, objects):
    oid = clone.plant(objects.head(b"{}", version=99))
    clone.refuses_alpha(f"object {oid}: object format version 99 is unknown", "upgrade weightvc", code=3)


@pytest.mark.parametrize("where", ["objects", "objects/{}", "tmp"], ids=lambda where: f"37 {where}")
def test_links_for_directories_of_the_store(two, models, tmp_path, where):
    shards = {oid[:2] for oid in two.objects()}
    for shard in [f"{n:02x}" for n in range(256)] if "{}" in where else [""]:
        place = two.path / ".git/wvc" / where.format(shard)
        elsewhere = tmp_path / f"elsewhere{shard}"
        place.rename(elsewhere) if shard in shards or (place.exists() and not shard) else elsewhere.mkdir()
        place.symlink_to(elsewhere)
    before, outside = two.everything(), _tree(tmp_path)
    source = models.write(tmp_path / "m", models.tuned(models.base(), 5))

    ran = two.run("add", source, "--task", "x")

    shutil.rmtree(source)
    assert ran.code in (3, 4)
    assert (
        "is not a plain directory; wvc writes nothing through it" in ran.err or "on the way to this object" in ran.err
    )
    assert "hint: move it away" in ran.err
    assert (two.everything(), _tree(tmp_path)) == (before, outside)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"], ids=lambda kind: f"37 {kind}")
def test_what_is_no_file_under_an_objects_name(clone, tmp_path, kind):
    file = clone.repo.object_file(clone.an_object())
    file.rename(tmp_path / "object")
    place = {"link": lambda: file.symlink_to(tmp_path / "object"), "fifo": lambda: os.mkfifo(file)}
    place.get(kind, file.mkdir)()

    wrong = "a symbolic link or special file on the way to this object" if kind == "link" else "not a regular file"
    clone.refuses_alpha(f"{file}: {wrong}", "move it away and run wvc fsck")


@pytest.mark.parametrize("kind", ["fifo", "device"], ids=lambda kind: f"37 {kind}")
def test_what_is_no_file_to_add(still, refused, tmp_path, kind):
    file = tmp_path / "m.safetensors"
    os.mkfifo(file) if kind == "fifo" else file.symlink_to("/dev/zero")
    refused(
        still, 3, "add", file, "--task", "x", says=f"{file}: not a regular file",
        hint="give a file or a model directory",
    )  # fmt: skip


def test_row_37_a_hard_link_is_not_written_through(two, templates, tmp_path):
    """Objects may be linked into another repository; one that is damaged gets a file of its own."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    oid = next(line["object"] for line in two.manifest("alpha")["tensors"] if "object" in line)
    two.object_file(oid).unlink()
    os.link(victim, two.object_file(oid))

    two.wvc("add", templates.alpha, "--task", "again")

    assert victim.read_bytes() == b"mine"
    assert two.object_file(oid).stat().st_nlink == 1
    assert two.json("fsck", "--full")["ok"]


@pytest.mark.parametrize("where", [".git/wvc", ".git/wvc/objects"], ids=lambda where: f"38 {where}")
def test_a_store_that_everybody_can_write(two, refused, templates, tmp_path, where):
    (two.path / where).chmod(0o777)
    accept = f"git config --global --add safe.directory {two.path}"
    for command in (("status",), ("add", templates.alpha, "--task", "x"), ("checkout", "-o", tmp_path / "out")):
        refused(
            two, 3, *command, says=f"{two.path / where} can be written to by every user of this machine",
            hint=f"`chmod -R o-w {two.path / where}`, or accept it with `{accept}`",
        )  # fmt: skip
    two.git("config", "safe.directory", str(two.path))
    refused(two, 3, "status", says="can be written to by every user")

    two.git(*accept.split()[1:])
    two.wvc("status")
    two.git("config", "--global", "--unset-all", "safe.directory")
    (two.path / where).chmod(0o770)
    two.wvc("status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("where", ["", ".git/wvc/objects"], ids=["38 repository", "38 store"])
def test_what_belongs_to_somebody_else(two, refused, where):
    for path in [two.path / where, *(two.path / where).rglob("*")]:
        os.chown(path, 4711, -1, follow_symlinks=False)
    says = f"{two.path / where} belongs to somebody else than its repository"
    says = says if where else f"{two.path} belongs to somebody else, and git does not trust it"
    accept = f"git config --global --add safe.directory {two.path}"

    ran = refused(two, 3, "status", says=says)

    assert f"`{accept}`" in ran.err
    subprocess.run(accept.split(), check=True)
    two.wvc("status")
    subprocess.run(["git", "config", "--global", "--unset-all", "safe.directory"], check=True)


def test_row_42_a_hostile_configuration_runs_nothing(two, templates, builders, tmp_path):
    marker, program = tmp_path / "ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho \"$0 $@\" >> '{marker}'\ncat\n")
    program.chmod(0o755)
    (two.path / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    builders("history/test_hostile").arm(two.path, program, tmp_path)
    os.utime(two.path / ".git/index", (1, 1))

    for command in (
        ("add", templates.beta, "--task", "more"), ("status",), ("commit", "-m", "More"), ("log",), ("show", "more"),
        ("diff", "more"), ("recipe", "save", "both", "--tasks", "alpha,beta"), ("commit", "-m", "Both"),
        ("checkout", "both", "-o", tmp_path / "out"), ("verify", tmp_path / "out"), ("revert", "more"),
        ("fsck", "--full"), ("checkout", "--tasks", "alpha", "-o", tmp_path / "one", "--dry-run"),
    ):  # fmt: skip
        ran = two.run(*command)
        assert ran.code in (0, 2, 3), (command, ran.err)
        assert not marker.exists(), (command, marker.read_text())
    subprocess.run(["git", "status"], cwd=two.path, check=False, capture_output=True)
    assert marker.exists(), "the trap is not live"


def _tree(path):
    return {file: file.read_bytes() if file.is_file() else b"" for file in path.rglob("*") if "repo" not in file.parts}
