"""What `wvc status` prints."""

import re
import subprocess


def test_status_of_nothing(empty, masked):
    assert masked(empty.wvc("status"), repo=empty.path) == (
        "REPO on main at ID, base ID, method opcm-s\nno tasks yet; add one with `wvc add PATH --task NAME`\n"
    )


def test_status(family, told, templates):
    family.json("add", templates.alpha, "--task", "new")
    family.wvc("recipe", "save", "prod", "--tasks", "alpha")
    family.wvc("recipe", "save", "same", "--tasks", "alpha")
    family.wvc("recipe", "rm", "same")
    family.wvc("checkout", "--tasks", "alpha")

    assert told("status") == (
        "REPO on main at ID, base ID, method opcm-s\n"
        "\n"
        "TASK   VERSION       FIRST ADDED              SIZE   STORED\n"
        "alpha  ID  TIME SIZE SIZE N %\n"
        "beta   ID  TIME SIZE SIZE N %\n"
        "child  ID  TIME SIZE SIZE N %\n"
        "recipes: prod\n"
        "\n"
        "staged for the next `wvc commit`:\n"
        "  changed recipe:  prod\n"
        "  new task:        new\n"
        "take back with `wvc unstage NAME`\n"
        "\n"
        "checked out:\n"
        "  REPO/model: alpha bit for bit, up to date\n"
    )


def test_status_of_staged_changes_to_what_is_committed(family, told, templates):
    family.json("add", templates.beta, "--task", "alpha")
    family.wvc("recipe", "rm", "prod")

    assert told("status").partition("recipes: prod\n")[2] == (
        "\nstaged for the next `wvc commit`:\n  removed recipe:  prod\n  new version:     alpha\n"
        "take back with `wvc unstage NAME`\n"
    )


def test_status_before_the_first_commit_of_a_task(empty, masked, templates):
    empty.wvc("recipe", "save", "none", "--tasks", "")
    assert "\nno tasks yet; add one with `wvc add PATH --task NAME`\n" in empty.wvc("status")
    empty.json("add", templates.alpha, "--task", "x")

    assert masked(empty.wvc("status"), repo=empty.path) == (
        "REPO on main at ID, base ID, method opcm-s\nno tasks committed yet\n\nstaged for the next `wvc commit`:\n"
        "  new recipe:  none\n  new task:    x\ntake back with `wvc unstage NAME`\n"
    )


def test_status_of_what_is_checked_out(family, told, templates, tmp_path):
    out, bad = tmp_path / "out", tmp_path / "repo/bad"
    family.wvc("checkout", "--recipe", "prod", "-o", out)
    family.wvc("checkout", "--tasks", "", "-o", bad)

    assert told("status").partition("checked out:\n")[2] == (
        "  OUT: alpha + beta=0.5 by opcm-s, up to date\n  REPO/bad: the base bit for bit, up to date\n"
    )
    family.put("beta", templates.alpha)
    (bad / "wvc.lock.json").write_text("{}")
    assert told("status").partition("checked out:\n")[2] == (
        "  OUT: alpha + beta=0.5 by opcm-s, behind: new version of beta\n"
        "    run `wvc checkout --recipe prod -o OUT`\n"
        "  REPO/bad/wvc.lock.json: not in canonical form; it was changed by something other than wvc\n"
    )


def test_files_edited_by_hand_are_named(family, told):
    assert family.json("status")["edited"] == []
    prod, beta = family.path / ".wvc/recipes/prod.toml", family.path / ".wvc/tasks/beta.json"
    prod.write_text(prod.read_text().replace("beta=0.5", "beta=0.9"))
    beta.unlink()
    (family.path / ".wvc/recipes/mine.toml").write_text("x")

    assert told("status").partition("recipes: prod\n")[2] == (
        "\nedited in the work tree, and not used until committed:\n"
        "  .wvc/recipes/mine.toml\n  .wvc/recipes/prod.toml\n  .wvc/tasks/beta.json\n"
        "record it with `git commit`, or undo it with `git restore`\n"
    )
    ran = family.run("checkout", "--recipe", "prod", "-n")
    assert "alpha + beta=0.5" in ran.out
    says = (
        "note: edited in the work tree, and not used until committed: .wvc/recipes/mine.toml, .wvc/recipes/prod.toml, "
    )
    assert ran.err == f"{says}.wvc/tasks/beta.json\n"
    assert "edited" not in family.run("checkout", "HEAD~1", "-n").err
    (family.path / ".wvc/recipes/mine.toml").unlink()
    family.git("restore", ".")
    assert family.json("status")["edited"] == []
    family.git("sparse-checkout", "set", "--no-cone", "/nothing")
    assert family.json("status")["edited"] == []


def test_files_in_conflict_are_named_with_how_to_choose(family, templates, told):
    family.git("switch", "-q", "-c", "side")
    family.put("beta", templates.alpha)
    family.put("theirs", templates.alpha)
    family.wvc("recipe", "save", "prod", "--tasks", "beta")
    family.wvc("commit", "-m", "Change prod")
    family.git("switch", "-q", "main")
    family.put("beta", templates.base)
    family.wvc("revert", "alpha", "--keep-derived", "--no-rebuild")
    subprocess.run(["git", "-C", family.path, "merge", "-q", "side"], check=False, capture_output=True)

    assert family.json("status")["conflicts"] == [".wvc/recipes/prod.toml", ".wvc/tasks/beta.json"]
    assert told("status").partition("recipes: prod\n")[2] == (
        "\nin conflict: .wvc/recipes/prod.toml, .wvc/tasks/beta.json\n"
        "choose with `git checkout --ours FILE` or `--theirs` (`git rm FILE` for a side that deleted it), "
        "then `git add FILE` and `git merge --continue`\n"
        "\nmerged or edited in the work tree, and not used until committed:\n  .wvc/tasks/theirs.json\n"
    )
    ran = family.run("checkout", "--tasks", "child", "-n")
    says = "in conflict, and as HEAD has it until that is resolved: .wvc/recipes/prod.toml, .wvc/tasks/beta.json; "
    assert f"note: {says}`wvc status` tells how\n" in ran.err
    assert "note: merged or edited in the work tree, and not used until committed: .wvc/tasks/theirs.json\n" in ran.err
    family.git("checkout", "--ours", ".wvc/recipes/prod.toml")
    family.git("checkout", "--theirs", ".wvc/tasks/beta.json")
    family.git("add", ".wvc/recipes/prod.toml", ".wvc/tasks/beta.json")
    assert family.json("status")["conflicts"] == []
    both = "record it with `git merge --continue`, or undo it with `git merge --abort`\n"
    assert both in family.wvc("status")
    assert "note: merged or edited in the work tree" in family.run("checkout", "-n").err
    family.git("-c", "core.editor=true", "merge", "--continue")
    status = family.json("status")
    assert (status["edited"], status["under_way"]) == ([], "")
    assert [task["task"] for task in status["tasks"]] == ["beta", "child", "theirs"]


def test_a_conflict_outside_a_merge_has_nothing_to_continue(family):
    prod = family.path / ".wvc/recipes/prod.toml"
    prod.write_text(prod.read_text().replace("beta=0.5", "beta=0.9"))
    family.git("stash")
    family.wvc("recipe", "save", "prod", "--tasks", "alpha")
    family.wvc("commit", "-m", "Change prod")
    subprocess.run(["git", "-C", family.path, "stash", "pop"], check=False, capture_output=True)

    said = family.wvc("status")
    assert "\nin conflict: .wvc/recipes/prod.toml\n" in said
    assert said.endswith("for a side that deleted it), then `git add FILE`\n")


def test_staging_what_is_committed_already_is_no_change(family):
    family.wvc("recipe", "save", "prod", "--tasks", "alpha")
    again = ("recipe", "save", "prod", "--tasks", "alpha,beta=0.5")

    assert family.wvc(*again, "-n") == "would drop the staged change of recipe prod\n"
    assert family.json(*again, "-n")["dropped"] is True
    said = family.wvc(*again)

    assert said == "dropped the staged change of recipe prod; nothing is staged for it now\n"
    assert family.wvc(*again) == "nothing changed: recipe prod: alpha + beta=0.5 by opcm-s\n"
    assert family.json("status")["staged"] == {}


def test_a_detached_head_is_said(family, templates, told):
    assert family.json("status")["branch"] == "main"
    family.git("switch", "-q", "--detach")

    assert family.json("status")["branch"] is None
    assert told("status").startswith("REPO on no branch (HEAD is detached), at ID, base ID, method opcm-s\n")
    family.wvc("add", templates.base, "--task", "more")
    says = "warning: HEAD is detached, so that no branch has the commit: `git switch -c NAME` makes one that has it\n"
    assert family.run("commit", "-m", "More").err == says
    assert family.run("revert", "more", "--no-rebuild").err.endswith(says)


def test_times_say_that_they_are_utc(family):
    assert re.search(r"^alpha +[0-9a-f]{12} +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ", family.wvc("status"), re.MULTILINE)
    assert re.match(r"[0-9a-f]{12}  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ", family.wvc("log"))
