"""What a revision holds: the tracked files are the whole truth."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from weightvc.objects.config import Config
from weightvc.objects.ids import is_task_name
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import OWN, Recipe, Weighted
from weightvc.objects.removal import Removal
from weightvc.repo.repository import BASE, CONFIG, TRACKED, Handle, recipe_path
from weightvc.util.errors import BadInput, Corrupt, Missing, NotARepository, NotFound, RequestError
from weightvc.util.text import listed, meant, printable

_RESTORE = "restore it with git"

MOST = 2**30
"""Bytes of all tracked files of one commit: those of thousands of tasks of the largest models have less."""

ROOM = 2**26
"""As many of them are left for removal records, recipes and what git itself merges: a commit fills up no more."""


@dataclass(frozen=True)
class State:
    """The parsed tracked files of one commit. ``tasks`` stand in the default order, by (``added``, name).

    People write recipes by hand and merge them with git, so one that cannot be read stops only those who ask for it:
    ``broken`` has the error of each.
    """

    commit: str
    config: Config
    base: Manifest
    tasks: Mapping[str, Manifest]
    recipes: Mapping[str, Recipe]
    removals: Mapping[str, Removal]
    broken: Mapping[str, BadInput] = field(default_factory=dict)

    def task(self, name: str) -> Manifest:
        """Return a task's manifest; an unknown task is a :class:`NotFound` that says what is known."""
        if name not in self.tasks:
            raise NotFound(self._unknown(name), meant(name, self.tasks, "run `wvc status` to see the tasks"))
        return self.tasks[name]

    def recipe(self, name: str) -> Recipe | None:
        """Return a named recipe, ``None`` if there is none; raise :class:`BadInput` if it cannot be read."""
        if name in self.broken:
            raise self.broken[name]
        return self.recipes.get(name)

    def unusable(self) -> dict[str, str]:
        """Return the named recipes that make no model, with what is wrong with each."""
        lacking = {
            name: [weighted.task for weighted in recipe.tasks if weighted.task not in self.tasks]
            for name, recipe in self.recipes.items()
        }
        wrong = {name: f"names what is no task here: {listed(tasks)}" for name, tasks in lacking.items() if tasks}
        return dict(sorted((wrong | {name: error.what for name, error in self.broken.items()}).items()))

    def _unknown(self, name: str) -> str:
        gone = any(removal.task == name for removal in self.removals.values())
        known = listed(list(self.tasks)) or "none"
        was = " (it was removed; `wvc log` shows when)" if gone else ""
        return f"no task {printable(name)!r} at {self.commit[:12]}{was}; the tasks are: {known}"

    def default_recipe(self) -> Recipe:
        """Return the recipe of all tasks in the default order, by the repository's default method."""
        return Recipe(tuple(Weighted(name) for name in self.tasks), self.config.method, self.config.params)

    def model(self, recipe: Recipe) -> Recipe:
        """Return a recipe that makes a model: an adapter that is all that is in it is merged into the base.

        Only a task that is asked for by name comes back as it was added. Else a directory would change from a model to
        an adapter when the last other task is taken out.
        """
        alone = self.tasks.get(recipe.exact_task or "")
        return replace(recipe, dtype=OWN) if alone is not None and alone.updates else recipe


def load(repo: Handle, rev: str = "HEAD") -> State:
    """Parse all tracked files of ``rev``.

    Raises:
        NotARepository: the revision has no `.wvc`.
        NotFound: no such revision.
        Corrupt: a file is not what it must be.
        Unsupported: a newer format.
    """
    if rev == "HEAD":
        head = repo.git.head()
        if head is None:
            raise _no_wvc(repo)
        return load_commit(repo, head)
    commit = repo.git.resolve(rev)
    if not has_wvc(repo, commit):
        raise NotFound(f"revision {printable(rev)} has no weightvc", "`wvc log` shows the revisions that have")
    return load_commit(repo, commit)


def has_wvc(repo: Handle, commit: str) -> bool:
    """Tell whether a commit has the tracked files at all."""
    return CONFIG in repo.git.read_tree(commit, CONFIG)


def load_commit(repo: Handle, commit: str) -> State:
    """Parse all tracked files of a full commit id."""
    tree = repo.git.read_tree(commit, f"{TRACKED}/")
    if CONFIG not in tree:
        raise _no_wvc(repo)
    blobs = repo.git.read_blobs(list(dict.fromkeys(tree.values())), most=MOST)
    files = {path: blobs[sha] for path, sha in tree.items()}
    config = Config.from_bytes(files[CONFIG], CONFIG)
    if BASE not in files:
        raise Missing(f"{BASE} is not in commit {commit[:12]}", "restore the file with git")
    base = Manifest.from_bytes(files[BASE], BASE)
    tasks = {name: _task(name, data, base) for name, data in _named(files, "tasks", ".json").items()}
    _refuse_twins(tasks)
    recipes, broken = _recipes(_named(files, "recipes", ".toml"))
    removals = {
        PurePosixPath(path).stem: Removal.from_bytes(data, path)
        for path, data in files.items()
        if path.startswith(f"{TRACKED}/removals/")
    }
    ordered = dict(sorted(tasks.items(), key=lambda item: (item[1].added, item[0])))
    return State(commit, config, base, ordered, recipes, removals, broken)


def refuse_overfull(repo: Handle, tree: Mapping[str, str], changes: Mapping[str, bytes | None]) -> None:
    """Raise :class:`RequestError` if a commit would have more bytes of tracked files than are read back.

    Args:
        repo: The repository.
        tree: Path → blob id of what is tracked before the commit.
        changes: Path → new contents, ``None`` where a file goes.
    """
    kept = repo.git.size([blob for path, blob in tree.items() if path not in changes])
    total = kept + sum(len(data) for data in changes.values() if data is not None)
    if total > MOST - ROOM:
        raise RequestError(
            f"the files of wvc would have {total} bytes in one commit, more than the limit of {MOST - ROOM}",
            "take out tasks with `wvc revert TASK`, or keep some in a repository of their own",
        )


def _named(files: Mapping[str, bytes], kind: str, suffix: str) -> dict[str, bytes]:
    found = {}
    for path, data in files.items():
        pure = PurePosixPath(path)
        if str(pure.parent) != f"{TRACKED}/{kind}":
            continue
        if pure.suffix != suffix or not is_task_name(pure.stem):
            raise Corrupt(f"{printable(path)} does not belong there", "remove the file with git")
        found[path.removeprefix(f"{TRACKED}/{kind}/").removesuffix(suffix)] = data
    return found


def _recipes(files: Mapping[str, bytes]) -> tuple[dict[str, Recipe], dict[str, BadInput]]:
    """Return the recipes by name, and the errors of those that cannot be read."""
    recipes, broken = {}, {}
    for name, data in files.items():
        path, anew = recipe_path(name), f"write it anew with `wvc recipe save {name} --tasks a,b`"
        try:
            recipes[name] = Recipe.from_bytes(data, path)
        except BadInput as error:
            broken[name] = BadInput(error.what, f"correct {path} and `git commit` it, or {anew}")
    return recipes, broken


def _task(name: str, data: bytes, base: Manifest) -> Manifest:
    manifest = Manifest.from_bytes(data, f"{TRACKED}/tasks/{name}.json")
    if manifest.task != name:
        raise Corrupt(f"the manifest of task {name} says it is {printable(str(manifest.task))}", _RESTORE)
    if manifest.base != base.version:
        raise Corrupt(f"task {name} was taken from another base than this repository's", _RESTORE)
    for update in manifest.updates:
        of = base.by_name.get(update.of)
        if of is None or not update.fits(of.spec, *(manifest.by_name[name].spec for name in (update.a, update.b))):
            raise Corrupt(f"task {name} updates {printable(update.of)}, which the base lacks in that shape", _RESTORE)
    return manifest


def _refuse_twins(tasks: Mapping[str, Manifest]) -> None:
    """Raise :class:`Corrupt` if two tasks have one UUID: a removal could not tell them apart."""
    names: dict[str | None, str] = {}
    for name, task in tasks.items():
        if (other := names.setdefault(task.uuid, name)) != name:
            raise Corrupt(f"tasks {other} and {name} have the same UUID", "remove the copy with git and add it anew")


def _no_wvc(repo: Handle) -> NotARepository:
    return NotARepository(
        f"{repo.git.work_tree} is a git repository without weightvc", "run `wvc init --base PATH` in it"
    )
