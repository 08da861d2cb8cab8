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


def test_what_is_only_staged_is_said_to_be_so(two, refused, templates):
    two.wvc("add", templates.alpha, "--task", "new")
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    for command in ("show", "log", "diff", "checkout"):
        refused(
            two, 3, command, "new", says="task new is staged but not committed",
            hint="run `wvc commit -m MESSAGE` first",
        )  # fmt: skip
    refused(two, 3, "show", "prod", says="recipe prod is staged but not committed")
    two.wvc("add", templates.beta, "--task", "alpha")
    assert two.json("show", "alpha")["version"] == two.manifest("alpha")["version"]


def test_a_recipe_is_shown_by_another_command(two, refused):
    two.wvc("recipe", "save", "prod", "--tasks", "alpha")
    two.wvc("commit", "-m", "Save it")

    says = "prod is a recipe, not a task or a revision"
    refused(two, 3, "show", "prod", says=says, hint="run `wvc recipe show prod`")
