"""Plain git on wvc's commits: the tracked files stay the whole truth, whatever git word moved them."""

import json
import shutil
import subprocess
import sys

import pytest

import weightvc
from weightvc.util.errors import Conflict, Missing, NotFound

TASK_FILES = ".wvc/tasks"


@pytest.fixture
def wvc():
    """Run the command line in a directory; return exit code, JSON document and standard error."""

    def run(directory, *arguments):
        command = [sys.executable, "-m", "weightvc", "-C", str(directory), "--json", *arguments]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        return done.returncode, json.loads(done.stdout), done.stderr

    return run


def switch(branch, *options):
    return ["git", "switch", "-q", *options, branch]


def with_objects(repo, clone):
    """Open a clone after giving it the objects, as a fetch would."""
    shutil.copytree(repo.store.root, clone / ".git" / "wvc" / "objects")
    return weightvc.open(clone)


def test_merge_orders_tasks_by_their_own_records_whichever_way_round(lab, adding):
    steps = [["git", "branch", "side"], *adding("dance"), switch("side"), *adding("chess", "amber")]
    repo = lab.repo(*steps, ["git", "merge", "-q", "--no-edit", "main"])
    ours = lab.order(repo), lab.digest(repo)
    lab.take(repo, switch("main"), ["git", "merge", "-q", "--no-ff", "--no-edit", "side~1"])
    assert lab.order(repo) == ["dance", "chess", "amber"]
    assert (lab.order(repo), lab.digest(repo)) == ours
    assert lab.digest(repo, tasks=["dance", "chess", "amber"]) == ours[1]
    assert repo.fsck(full=True).ok


def test_merge_of_two_versions_of_a_task_is_a_conflict_in_its_one_file(lab, adding):
    steps = [*adding("amber", "bonsai"), ["git", "branch", "side"], *adding("bonsai=bonsai2"), switch("side")]
    repo = lab.repo(*steps, *adding("bonsai=chess"))
    theirs = repo.show("bonsai").version
    lab.take(repo, switch("main"))
    with pytest.raises(AssertionError, match=r"CONFLICT .* \.wvc/tasks/bonsai\.json"):
        lab.git(repo, "merge", "--no-edit", "side")
    assert lab.git(repo, "diff", "--name-only", "--diff-filter=U") == f"{TASK_FILES}/bonsai.json"
    assert lab.order(repo) == ["amber", "bonsai"]  # HEAD still stands

    repo.add(lab.models / "dance", "dance", jobs=1)
    with pytest.raises(Conflict, match="a git merge is under way") as refused:
        repo.commit("in the middle")
    assert "git merge --continue" in refused.value.hint
    lab.git(repo, "checkout", "--theirs", TASK_FILES)
    lab.git(repo, "commit", "-q", "-a", "--no-edit")
    assert repo.show("bonsai").version == theirs
    repo.commit("afterwards")
    assert lab.order(repo) == ["amber", "bonsai", "dance"]


def test_merge_of_a_removal_with_a_recipe_of_the_task_is_found_by_name(lab, adding):
    steps = [*adding("amber", "bonsai"), ["git", "branch", "side"], ["revert", "bonsai"], switch("side")]
    repo = lab.repo(*steps, ["save", "prod", {"tasks": ["bonsai", "amber"]}], ["commit"])
    lab.take(repo, ["git", "merge", "-q", "--no-edit", "main"])
    assert lab.order(repo) == ["amber"]
    with pytest.raises(NotFound, match="recipe prod names what is no task here: bonsai"):
        lab.digest(repo, recipe="prod")
    (finding,) = repo.fsck().findings
    assert (finding.kind, finding.what, finding.costs) == ("recipe", "prod", ())


def test_merge_with_a_branch_that_never_had_the_removal_does_not_bring_the_task_back(lab, adding):
    steps = [*adding("amber", "bonsai"), ["git", "branch", "side"], ["revert", "bonsai"], switch("side")]
    repo = lab.repo(*steps, *adding("chess"), ["git", "merge", "-q", "--no-edit", "main"])
    assert lab.order(repo) == ["amber", "chess"]


def test_rebase_keeps_records_and_so_the_order_and_every_byte(lab, adding):
    steps = [["git", "branch", "side"], *adding("amber"), switch("side"), *adding("bonsai"), *adding("chess")]
    repo = lab.repo(*steps, ["git", "branch", "before"], ["git", "merge", "-q", "--no-edit", "main"])
    merged = lab.order(repo), lab.digest(repo)
    lab.take(repo, ["git", "reset", "-q", "--hard", "before"], ["git", "rebase", "-q", "main"])
    assert len(repo.git.parents("HEAD")) == 1
    assert (lab.order(repo), lab.digest(repo)) == merged
    assert merged[0] == ["amber", "bonsai", "chess"]


def test_rebase_that_drops_a_commit_is_a_removal(lab, adding):
    repo = lab.repo(*adding("amber"), *adding("bonsai"), *adding("chess"))
    never = lab.digest(repo, tasks=["amber", "chess"])
    lab.git(repo, "rebase", "-q", "--onto", "HEAD~2", "HEAD~1")
    assert lab.order(repo) == ["amber", "chess"]
    assert lab.digest(repo) == never
    assert repo.fsck(full=True).ok


def test_cherry_pick_brings_a_task_version_with_its_own_record(lab, adding):
    steps = [["git", "branch", "side"], *adding("amber"), *adding("bonsai"), switch("side"), *adding("chess")]
    repo = lab.repo(*steps, ["git", "cherry-pick", "main"])
    assert lab.order(repo) == ["bonsai", "chess"]
    here = repo.show("bonsai")
    lab.take(repo, switch("main"))
    assert repo.show("bonsai") == here
    assert lab.digest(repo, rev="side", tasks=["bonsai"]) == here.version


def test_git_revert_of_a_removal_brings_the_same_task_back_in_its_place(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai", "chess"), ["save", "prod", {"tasks": ["bonsai=2.0"]}], ["commit"])
    before = repo.show("bonsai"), lab.digest(repo), repo.recipes()
    repo.revert("bonsai", jobs=1)
    assert len([*(repo.git.work_tree / ".wvc" / "removals").iterdir()]) == 1
    lab.git(repo, "revert", "--no-edit", "HEAD")
    assert (repo.show("bonsai"), lab.digest(repo), repo.recipes()) == before
    assert not (repo.git.work_tree / ".wvc" / "removals").exists()
    assert [(line.added, line.removed) for line in repo.log(limit=2)] == [(("bonsai",), ()), ((), ("bonsai",))]


def test_reset_moves_between_revisions_and_old_ones_still_check_out(lab, adding):
    repo = lab.repo(*adding("amber", "bonsai"))
    both = lab.digest(repo)
    repo.revert("bonsai", jobs=1)
    alone = lab.digest(repo)
    assert lab.digest(repo, rev="HEAD~") == both
    lab.git(repo, "reset", "-q", "--hard", "HEAD~")
    assert (lab.order(repo), lab.digest(repo)) == (["amber", "bonsai"], both)
    lab.git(repo, "reset", "-q", "--hard", "ORIG_HEAD")
    assert (lab.order(repo), lab.digest(repo)) == (["amber"], alone)


def test_detached_head_commits_and_checks_out(lab, adding):
    repo = lab.repo(*adding("amber"), *adding("bonsai"), ["git", "switch", "-q", "--detach", "HEAD~"], *adding("chess"))
    assert lab.order(repo) == ["amber", "chess"]
    lab.take(repo, switch("main"))
    assert lab.order(repo) == ["amber", "bonsai"]


def test_a_shallow_clone_has_the_same_order_and_the_same_bytes(lab, adding, tmp_path):
    repo = lab.repo(*adding("chess"), *adding("amber"), *adding("bonsai"), ["revert", "bonsai"], *adding("dance"))
    lab.git(repo, "clone", "-q", "--depth", "1", f"file://{repo.git.work_tree}", str(tmp_path / "clone"))
    clone = with_objects(repo, tmp_path / "clone")
    assert lab.git(clone, "rev-parse", "--is-shallow-repository") == "true"
    assert lab.order(clone) == ["chess", "amber", "dance"]
    assert lab.digest(clone) == lab.digest(repo)
    assert len([*clone.log()]) == 1
    assert clone.fsck(full=True).ok
    clone.revert("amber", jobs=1)
    assert lab.digest(clone) == lab.digest(repo, tasks=["chess", "dance"])


def test_a_task_added_in_a_shallow_clone_comes_after_all_that_are_there(lab, adding, tmp_path):
    repo = lab.repo(*adding("chess"), *adding("amber"))
    lab.git(repo, "clone", "-q", "--depth", "1", f"file://{repo.git.work_tree}", str(tmp_path / "clone"))
    clone = lab.take(with_objects(repo, tmp_path / "clone"), *adding("dance"))
    assert lab.order(clone) == ["chess", "amber", "dance"]
    lab.git(repo, "pull", "-q", str(tmp_path / "clone"), "main")
    assert lab.order(repo) == ["chess", "amber", "dance"]
    with pytest.raises(Missing, match=r"object [0-9a-f]{64} is not in the store"):
        lab.digest(repo)


def test_a_linked_worktree_shares_objects_and_has_its_own_stage_and_model(lab, adding, tmp_path):
    repo = lab.repo(*adding("amber"))
    lab.git(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    linked = weightvc.open(tmp_path / "linked")
    assert linked.store.root == repo.store.root
    linked.add(lab.models / "bonsai", "bonsai", jobs=1)
    repo.add(lab.models / "chess", "chess", jobs=1)
    assert (linked.status().staged, repo.status().staged) == (
        {f"{TASK_FILES}/bonsai.json": "new"},
        {f"{TASK_FILES}/chess.json": "new"},
    )
    linked.commit("Add bonsai")
    repo.commit("Add chess")
    assert (lab.order(linked), lab.order(repo)) == (["amber", "bonsai"], ["amber", "chess"])
    here, there = repo.checkout(jobs=1), linked.checkout(jobs=1)
    assert [here.output, there.output] == [str(r.git.work_tree / "model") for r in (repo, linked)]
    assert here.digest != there.digest
    assert lab.git(repo, "status", "--short") == lab.git(linked, "status", "--short") == ""
    lab.git(repo, "merge", "-q", "--no-edit", "side")
    assert lab.order(repo) == ["amber", "bonsai", "chess"]
    assert repo.fsck(full=True).ok


def test_a_removal_in_one_worktree_leaves_what_another_checked_out_to_its_branch(lab, adding, tmp_path):
    repo = lab.repo(*adding("amber", "bonsai", "chess"))
    lab.git(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    linked = weightvc.open(tmp_path / "linked")
    there = linked.checkout(jobs=1).output
    reverted = repo.revert("bonsai", jobs=1)
    assert [line.output for line in reverted.rebuilt] == [None]
    (warning,) = reverted.warnings
    assert warning.endswith(
        "bring the removal to its branch with `git merge main` or `git rebase main` there, "
        "then run `wvc revert bonsai` there, which rebuilds them"
    )
    assert lab.order(linked) == ["amber", "bonsai", "chess"]
    lab.git(linked, "merge", "-q", "main")
    assert [line.output for line in linked.revert("bonsai", jobs=1).rebuilt] == [there, None]
    assert linked.verify(there, jobs=1).digest == lab.digest(linked, tasks=["amber", "chess"])


def test_a_fresh_clone_says_that_it_has_no_objects_and_the_next_step(lab, adding, tmp_path, wvc):
    repo = lab.repo(*adding("amber"))
    clone = tmp_path / "clone"
    lab.git(repo, "clone", "-q", str(repo.git.work_tree), str(clone))
    assert lab.order(weightvc.open(clone)) == ["amber"]

    code, said, stderr = wvc(clone, "checkout")
    assert (code, said["error"]["kind"]) == (4, "Missing")
    what, hint = said["error"]["what"], said["error"]["hint"]
    assert what == "this clone has no objects yet: only git history was cloned"
    bring = "`wvc remote add NAME URL` and `wvc fetch` bring them, or copy another clone's to"
    assert hint == f"{bring} {clone / '.git/wvc/objects'}"
    assert stderr == f"wvc: {what}\nhint: {hint}\n"
    assert not (clone / "model").exists()

    code, said, _ = wvc(clone, "fsck")
    assert (code, {finding["kind"] for finding in said["findings"]}) == (1, {"missing"})
    assert {cost.partition(":")[0] for finding in said["findings"] for cost in finding["costs"]} == {"base", "amber"}
    assert {finding["what"] for finding in said["findings"]} == {*repo.store.ids()}


def test_staged_files_of_the_user_survive_and_their_next_commit_keeps_every_task(lab, adding):
    repo = lab.repo(*adding("amber"))
    top = repo.git.work_tree
    (top / "notes.txt").write_text("staged\n")
    lab.git(repo, "add", "notes.txt")
    (top / "notes.txt").write_text("staged\nand more\n")
    lab.take(repo, *adding("bonsai"), ["revert", "amber"], *adding("chess"))
    assert lab.git(repo, "status", "--short") == "AM notes.txt"
    assert lab.git(repo, "diff", "--cached", "--name-only") == "notes.txt"

    lab.git(repo, "commit", "-q", "-m", "notes")
    assert lab.git(repo, "show", "HEAD:notes.txt") == "staged"
    assert lab.git(repo, "diff", "--name-only", "HEAD~") == "notes.txt"
    assert lab.order(repo) == ["bonsai", "chess"]
    lab.git(repo, "commit", "-q", "-a", "-m", "more notes")
    assert lab.order(repo) == ["bonsai", "chess"]
    assert lab.git(repo, "status", "--short") == ""


def test_a_staged_task_waits_while_plain_git_moves_the_branch(lab, adding):
    repo = lab.repo(["git", "branch", "side"], *adding("amber"))
    repo.add(lab.models / "bonsai", "bonsai", jobs=1)
    lab.git(repo, "switch", "-q", "side")
    assert repo.status().staged == {f"{TASK_FILES}/bonsai.json": "new"}
    repo.commit("Add bonsai")
    assert lab.order(repo) == ["bonsai"]
    lab.git(repo, "merge", "-q", "--no-edit", "main")
    assert lab.order(repo) == ["amber", "bonsai"]


def test_dropped_commits_leave_unreferenced_objects_and_nothing_else(lab, adding):
    repo = lab.repo(*adding("amber"), *adding("bonsai"))
    assert repo.fsck().unreferenced == 0
    lab.git(repo, "reset", "-q", "--hard", "HEAD~")
    checked = repo.fsck(full=True)
    assert (checked.ok, checked.unreferenced > 0) == (True, True)
    lab.take(repo, *adding("bonsai"))
    assert repo.fsck().unreferenced == 0
