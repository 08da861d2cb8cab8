"""From what a user names to what will be built: revision, recipe, pinned tasks, method."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from weightvc.objects.ids import is_task_name
from weightvc.objects.lock import Lock
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import OWN, Mismatch, NameRule, Recipe, Scalar, parse_tasks
from weightvc.objects.tensors import MERGED
from weightvc.repo import rules, stage
from weightvc.repo.repository import Handle, recipe_path, task_path
from weightvc.repo.rules import Methods
from weightvc.repo.state import State, load, load_commit
from weightvc.util import toml
from weightvc.util.errors import NotFound, UsageError, WeightvcError
from weightvc.util.text import listed, meant, printable


@dataclass(frozen=True)
class Request:
    """What to materialize. ``tasks`` (``name[=coefficient]``) and ``recipe`` (a name or a file) exclude each other."""

    rev: str = "HEAD"
    tasks: Sequence[str] | None = None
    recipe: str | None = None
    method: str | None = None
    params: Mapping[str, Scalar] | None = None
    dtype: str | None = None
    on_int_mismatch: Mismatch | None = None
    rules: Sequence[NameRule] | None = None

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for tasks and a recipe at once, and for text, which would be taken by letters."""
        if self.tasks is not None and self.recipe is not None:
            raise UsageError("--tasks and --recipe exclude each other", "give one of them")
        if isinstance(self.tasks, str):
            raise UsageError(f"tasks is a list of names, not {printable(self.tasks)!r}", "write tasks=['a', 'b=0.7']")


@dataclass(frozen=True)
class Resolved:
    """A recipe with its methods made, its tasks pinned, and the state that they come from."""

    state: State
    recipe: Recipe
    methods: Methods
    tasks: tuple[Manifest, ...]

    @property
    def exact(self) -> Manifest | None:
        """The manifest that this recipe gives back as it is: its only task's, or the base's if it names none."""
        if self.recipe.exact_task is not None and self.methods.neutral:
            return self.tasks[0]
        return self.state.base if not self.tasks and self.recipe.cast is None else None


def resolve(repo: Handle, request: Request) -> Resolved:
    """Resolve a request against the repository.

    Raises:
        NotFound: an unknown revision, recipe or task; a task that is only staged is said to be so.
        UsageError: an unknown method, parameter, rule or dtype, or tasks and a recipe at once.
    """
    state = _state(repo, request.rev)
    recipe = wanted(repo, state, request)
    return pin(repo, state, recipe)


def _state(repo: Handle, rev: str) -> State:
    try:
        return load(repo, rev)
    except NotFound as error:
        head = load(repo)
        for kind, known in (("task", head.tasks), ("recipe", head.recipes)):
            if rev in known:
                option = "--tasks" if kind == "task" else "--recipe"
                raise NotFound(f"{rev} is a {kind}, not a revision", f"pass {option} {rev}") from None
        stage.refuse(repo, rev)
        raise NotFound(error.what, meant(rev, [*head.tasks, *head.recipes], error.hint)) from None


def pin(repo: Handle, state: State, recipe: Recipe) -> Resolved:
    """Complete a recipe with its methods' defaults and look its tasks up."""
    if recipe.cast is not None and recipe.cast not in MERGED:
        raise UsageError(
            f"--dtype {printable(recipe.cast)} is no dtype for a merge", f"use one of {listed([*sorted(MERGED), OWN])}"
        )
    if recipe.on_int_mismatch not in get_args(Mismatch):
        raise UsageError(
            f"--on-int-mismatch {printable(recipe.on_int_mismatch)}", f"use one of {listed(get_args(Mismatch))}"
        )
    recipe = rules.complete(recipe)
    methods = rules.create(recipe)
    rules.refuse_idle(recipe, methods, state.base.by_name.keys())
    staged = stage.changes(repo)
    for weighted in recipe.tasks:
        if weighted.task not in state.tasks and staged.get(task_path(weighted.task)):
            raise NotFound(f"task {weighted.task} is staged but not committed", "run `wvc commit -m MESSAGE` first")
    return Resolved(state, recipe, methods, tuple(state.task(weighted.task) for weighted in recipe.tasks))


def pinned(
    repo: Handle, lock: Lock, without: Collection[str] = (), revs: Sequence[str | None] = ("HEAD", None)
) -> Resolved:
    """Return a lock's recipe, less the tasks ``without``, on the very task versions that it pins.

    What was a model stays one: :meth:`weightvc.repo.state.State.model`.

    They come from the first of ``revs`` that has them all; ``None`` stands for the commit that the lock names.

    Raises:
        NotFound: neither has them.
    """
    recipe = lock.recipe.without(without)
    wanted = {task.task: task.version for task in lock.tasks if task.task not in without}
    for rev in revs:
        try:
            state = load(repo, rev) if rev else load_commit(repo, repo.git.resolve(lock.commit))
        except WeightvcError:
            continue
        held = {name: state.tasks[name].version for name in wanted if name in state.tasks}
        if held == wanted and state.base.version == lock.base:
            if lock.recipe.exact_task is None:
                recipe = state.model(recipe)
            tasks = tuple(state.tasks[weighted.task] for weighted in recipe.tasks)
            return Resolved(state, recipe, rules.create(recipe), tasks)
    names = ", ".join(printable(name) for name in wanted) or "the base"
    raise NotFound(
        f"this repository does not have the versions that the lock pins ({names}) at HEAD or at {lock.commit[:12]}",
        "fetch the commit with git, or run it in the repository that wrote the directory",
    )


def wanted(repo: Handle, state: State, request: Request) -> Recipe:
    """Return the recipe that a request stands for at ``state``. Its tasks are not looked up there.

    Raises:
        NotFound: no such recipe, or a named one with tasks that are not there.
        BadInput: the recipe cannot be read.
        UsageError: a malformed list of tasks.
    """
    if request.recipe is not None:
        recipe = _named(repo, state, request.recipe)
        if recipe in state.recipes.values() and request.recipe in (unusable := state.unusable()):
            anew = f"write it anew with `wvc recipe save {request.recipe} --tasks a,b`, or add the tasks again"
            raise NotFound(f"recipe {request.recipe} {unusable[request.recipe]}", anew)
    else:
        recipe = state.default_recipe()
        if request.tasks is not None:
            recipe = replace(recipe, tasks=parse_tasks(request.tasks))
    if request.method is not None and request.method != recipe.method:
        recipe = replace(recipe, method=request.method, params={})
    recipe = replace(
        recipe,
        params={**recipe.params, **(request.params or {})},
        dtype=request.dtype or recipe.dtype,
        on_int_mismatch=request.on_int_mismatch or recipe.on_int_mismatch,
        rules=recipe.rules if request.rules is None else tuple(request.rules),
    )
    return recipe if request.tasks is not None else state.model(recipe)


def dropped(repo: Handle, state: State, request: Request) -> Recipe | None:
    """Return the recipe that a request names if it asks for another method, which gets none of its parameters."""
    recipe = None if request.recipe is None or request.method is None else _named(repo, state, request.recipe)
    return recipe if recipe is not None and recipe.params and recipe.method != request.method else None


def _named(repo: Handle, state: State, name: str) -> Recipe:
    if (recipe := state.recipe(name)) is not None:
        return recipe
    if is_task_name(name) and (staged := stage.changes(repo).get(recipe_path(name))):
        return Recipe.from_bytes(staged, name)
    path = Path(name)
    if path.is_file():
        with path.open("rb") as file:
            return Recipe.from_bytes(file.read(toml.MAX_BYTES + 1), name)
    known = listed(sorted(state.recipes)) or "none"
    raise NotFound(
        f"no recipe {printable(name)!r}, and no file of that name; the recipes are: {known}",
        meant(name, state.recipes, "run `wvc recipe list`, or `wvc recipe save NAME --tasks a,b`"),
    )
