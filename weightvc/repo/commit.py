"""Commit: what is staged → one git commit of wvc's own files."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

from weightvc.history import commit as commits
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import Recipe
from weightvc.repo import anew, stage
from weightvc.repo.guard import guarded
from weightvc.repo.repository import BASE, Handle, removal_path, task_path
from weightvc.repo.state import refuse_overfull
from weightvc.util.errors import Conflict, Corrupt, NotARepository, RequestError
from weightvc.util.text import printable


@dataclass(frozen=True)
class Committed:
    """What a commit did; ``tasks`` are the names of tasks that it added or changed.

    ``versions`` are those of them that got a new version, ``stored`` those that are only stored in another way.
    """

    commit: str | None
    tasks: tuple[str, ...]
    recipes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()


@guarded
def commit(repo: Handle, message: str, *, dry_run: bool = False) -> Committed:
    """Commit everything that is staged. The user's own staged files and work tree are left alone.

    Raises:
        RequestError: nothing is staged that is not committed already, or the message is empty.
        Conflict: a staged task was taken from a base that the branch no longer has, or was taken out since it was
            staged; or git is in the middle of a merge or rebase.
    """
    if not message.strip():
        raise RequestError("the commit message is empty", "pass -m MESSAGE")
    changes = stage.changes(repo)
    if not changes:
        raise RequestError("nothing is staged", "stage a fine-tune with `wvc add PATH --task NAME`")
    staged = _pending(repo, changes)
    if not dry_run and staged != changes:
        stage.settle(repo, {path: data for path, data in changes.items() if path not in staged})
    if not staged:
        raise RequestError("nothing to commit", "`wvc log` shows the commit that has what was staged")

    def plan(tip: str | None) -> dict[str, bytes | None]:
        tree = repo.git.read_tree(tip) if tip else {}
        _check(repo, tip, tree, staged)
        refuse_overfull(repo, tree, staged)
        return {path: data for path, data in staged.items() if data is not None or path in tree}

    named = _names(staged, "tasks"), _names(staged, "recipes")
    versions, stored = _changed(repo, staged)
    if dry_run:
        plan(repo.git.head())
        return Committed(None, *named, versions=versions, stored=stored)
    done = commits.commit(repo.git, plan, message)
    stage.settle(repo, staged)
    return Committed(done.commit, *named, warnings=tuple(done.warnings), versions=versions, stored=stored)


def _pending(repo: Handle, staged: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Leave out what ``HEAD`` has: a commit that was interrupted could not drop it from the stage any more."""
    tip = repo.git.head()
    tree = repo.git.read_tree(tip) if tip and staged else {}
    blobs = repo.git.read_blobs(sorted({tree[path] for path in staged if path in tree}))
    head = {path: blobs[tree[path]] for path in staged if path in tree}
    return {path: data for path, data in staged.items() if head.get(path) != data}


def _changed(repo: Handle, staged: Mapping[str, bytes | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the committed tasks that get a new version, and of those that are only stored anew."""
    tip = repo.git.head()
    tree = repo.git.read_tree(tip) if tip else {}
    tasks = {path: data for path, data in staged.items() if data is not None and "/tasks/" in path and path in tree}
    blobs = repo.git.read_blobs(sorted({tree[path] for path in tasks}))
    stored = {path: data for path, data in tasks.items() if anew.only_stored(blobs[tree[path]], data)}
    return _names({path: data for path, data in tasks.items() if path not in stored}, "tasks"), _names(stored, "tasks")


def _check(repo: Handle, tip: str | None, tree: Container[str], staged: dict[str, bytes | None]) -> None:
    data = repo.git.read(tip, BASE) if tip else None
    if data is None:
        raise NotARepository("the current branch has no weightvc base", "switch to a branch that has one")
    base = Manifest.from_bytes(data, BASE)
    for path, contents in staged.items():
        if contents is not None and "/recipes/" in path:
            _check_recipe(path, contents)
        if contents is None or "/tasks/" not in path:
            continue
        task = _staged_task(path, contents)
        if path != task_path(str(task.task)):
            what = f"the manifest staged as {path} says that it is {printable(str(task.task))}"
            raise Corrupt(what, "run `wvc unstage`, and stage anew what that drops")
        if task.base != base.version:
            raise Conflict(
                f"task {task.task} was added against another base than the one of this branch",
                f"add it again on this branch, or take it back with `wvc unstage {task.task}`",
            )
        if removal_path(str(task.uuid)) in tree:
            raise Conflict(
                f"task {task.task} was taken out since this version of it was staged",
                f"take it back with `wvc unstage {task.task}`; added again after that, it is a task anew",
            )


def _staged_task(path: str, contents: bytes) -> Manifest:
    name = path.rpartition("/")[2].removesuffix(".json")
    try:
        return Manifest.from_bytes(contents, path)
    except Corrupt as error:
        what = f"the staged manifest of task {name} is damaged: {error.what}"
        raise Corrupt(what, f"run `wvc unstage {name}`, and add it again") from None


def _check_recipe(path: str, contents: bytes) -> None:
    name = path.rpartition("/")[2].removesuffix(".toml")
    try:
        Recipe.from_bytes(contents, path)
    except RequestError as error:
        raise Corrupt(f"the staged recipe {name} cannot be read: {error.what}", f"run `wvc unstage {name}`") from None


def _names(staged: Mapping[str, bytes | None], kind: str) -> tuple[str, ...]:
    return tuple(path.rsplit("/", 1)[1].rsplit(".", 1)[0] for path in staged if f"/{kind}/" in path)
