"""What add says of a task that is there already, and of paths that are no checkpoints."""

import torch


def test_a_new_version_is_called_so(two, templates):
    assert two.wvc("add", templates.alpha, "--task", "beta", "-n").startswith(
        "would add a new version of task beta by intdelta: "
    )
    assert two.wvc("add", templates.alpha, "--task", "more", "-n").startswith("would add task more by intdelta: ")
    assert two.wvc("add", templates.alpha, "--task", "beta").startswith("staged a new version of task beta: 2 same, ")
    assert two.json("add", templates.alpha, "--task", "more")["change"] == "new"


def test_adding_the_same_again_changes_nothing(two, templates):
    before = two.everything()
    said = "nothing changed: task alpha has these weights already\n"

    assert two.wvc("add", templates.alpha, "--task", "alpha") == said
    done = two.json("add", templates.alpha, "--task", "alpha")
    assert (done["change"], done["staged"], done["tensors"]["delta"], done["bytes"]) == ("none", False, 15, 6404)
    assert done["manifest"] == two.manifest("alpha")["version"]
    assert {k for k, v in two.everything().items() if before.get(k) != v} <= {".git/wvc/stage.lock"}

    two.wvc("add", templates.beta, "--task", "alpha")
    assert two.json("add", templates.beta, "--task", "alpha")["change"] == "none"
    said_staged = "nothing changed: task alpha is staged with these weights already\n"
    assert two.wvc("add", templates.beta, "--task", "alpha") == said_staged
    assert two.json("status")["staged"] == {".wvc/tasks/alpha.json": "changed"}
    dropped = "dropped the staged version of task alpha; nothing is staged for it now\n"
    assert two.wvc("add", templates.alpha, "--task", "alpha") == dropped
    assert two.json("status")["staged"] == {}
    assert two.wvc("add", templates.alpha, "--task", "alpha") == said
    two.wvc("add", templates.beta, "--task", "alpha")
    done = two.json("add", templates.alpha, "--task", "alpha")
    assert (done["change"], done["staged"]) == ("dropped", False)


def test_the_same_weights_with_another_file_are_staged(two, models, templates, tmp_path):
    import shutil

    source = shutil.copytree(templates.alpha, tmp_path / "again")
    (source / "config.json").write_text("{}")

    done = two.wvc("add", source, "--task", "alpha")

    assert done.startswith(
        "staged task alpha with the same weights but other files, lineage, codec or scores: 2 same, 15 delta"
    )
    two.json("commit", "-m", "Another configuration")
    two.wvc("checkout", "--tasks", "alpha", "-o", tmp_path / "out")
    assert models.contents(tmp_path / "out") == models.contents(source)
    again = two.json("add", source, "--task", "alpha", "--codec", "raw")
    assert (again["change"], again["staged"]) == ("stored", True)


def test_an_adapters_own_file_is_called_an_adapter(two, refused, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors", "other.safetensors"):
        (tmp_path / name).write_text("{}")

    refused(
        two, 3, "add", tmp_path / "adapter_model.safetensors", "--task", "x",
        says="adapter_model.safetensors: the weights of a PEFT adapter", hint=f"give its directory, {tmp_path}",
    )  # fmt: skip
    refused(two, 3, "add", tmp_path / "other.safetensors", "--task", "x", says="too short for a safetensors file")


def test_names_of_models_on_a_hub(two, refused, wvc, tmp_path):
    refused(
        two, 3, "add", "Org/model-7B.v2", "--task", "x",
        says="Org/model-7B.v2: no such file or directory; it looks like the name of a model on a hub",
        hint="download it first, for example `hf download Org/model-7B.v2 --local-dir model-7B.v2`, and give that",
    )  # fmt: skip
    assert "`hf download org/base --local-dir base`" in wvc("init", tmp_path / "new", "--base", "org/base").err
    (two.path / "org").mkdir()
    for path in ("org/typo", "a/b/c", "/a/b", "a"):
        refused(two, 3, "add", path, "--task", "x", says="no such file or directory\n", hint="check the path")


def test_many_names_are_listed_on_request(two, models, tmp_path):
    names = [f"head.{n:03}" for n in range(120)]
    source = models.write(tmp_path / "x", {**models.base(), **{name: torch.ones(1) for name in names}})
    short = "head.000, head.001, head.002 and 117 more (-v lists them)"

    note = f"note: 120 tensors that the base does not have, stored whole: {short}\n"
    assert two.run("add", source, "--task", "x").err == note
    assert two.run("-v", "add", source, "--task", "x").err == note.replace(short, ", ".join(names))
    two.json("commit", "-m", "x")
    goes = "note: task x: 120 tensors that the base does not have in that shape and dtype go to heads/x.safetensors: "
    assert two.run("checkout", "-n").err == f"{goes}{short}\n"
    assert two.run("checkout", "-n", "-v").err == f"{goes}{', '.join(names)}\n"
    assert two.json("checkout", "-n")["notes"] == [f"{goes}{short}"[6:]]


def test_adding_a_task_again_brings_lost_objects_back_and_says_so(two, templates):
    (oid,) = {entry["object"] for entry in two.manifest("alpha")["tensors"] if "object" in entry}
    two.object_file(oid).unlink()

    ran = two.run("add", templates.alpha, "--task", "alpha")

    assert "note: brought back 1 lost object of task alpha\n" in ran.err
    assert two.json("fsck", "--full")["ok"]
