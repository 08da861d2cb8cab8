"""Showing tasks and revisions."""


def test_a_task(two, models):
    shown = two.api().show("beta")

    manifest = two.manifest("beta")
    assert (shown.task, shown.uuid, shown.version) == ("beta", manifest["uuid"], manifest["version"])
    assert (shown.added, shown.base, shown.source) == (manifest["added"], manifest["base"], "safetensors")
    assert shown.tensors == {"same": 5, "delta": 12}
    assert shown.dtypes == {"I64": 1, "F32": 9, "BF16": 3, "F16": 3, "F64": 1}
    assert shown.codecs == {"intdelta": 12}
    assert shown.files == tuple(sorted(models.files))
    assert (shown.renamed, shown.new, shown.nonfinite, shown.lineage) == (0, (), 0, ())
    assert shown.bytes == 6404
    stored = {(e["object"], e["part"]): e["size"] for k in ("tensors", "files", "headers") for e in manifest[k]
              if "object" in e}  # fmt: skip
    assert shown.stored_bytes == sum(stored.values())


def test_a_revision(two):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")

    shown = two.api().show("HEAD~1")

    assert (shown.commit.subject, shown.commit.added) == ("Add beta", ("beta",))
    assert [task.task for task in shown.tasks] == ["alpha", "beta"]
    assert (shown.recipes, two.api().show("HEAD").recipes) == ((), ("prod",))


def test_a_commit_that_is_not_wvcs_is_shown_as_itself(two):
    (two.path / "x").write_text("x")
    two.git("add", "x")
    two.git("commit", "-qm", "not ours")

    shown = two.api().show("HEAD")

    assert (shown.commit.commit, shown.commit.subject) == (two.git("rev-parse", "HEAD"), "not ours")
    assert [task.task for task in shown.tasks] == ["alpha", "beta"]


def test_a_task_comes_before_a_branch_of_its_name(two):
    two.git("branch", "alpha", "HEAD~2")

    assert two.json("show", "alpha")["task"] == "alpha"


def test_what_is_neither(two, refused):
    refused(two, 3, "show", "nobody", says="no task 'nobody' at", hint="run `wvc status` to see the tasks")
    refused(two, 3, "show", "HEAD~9", says="no revision 'HEAD~9'", hint="`git log --all --oneline`")
