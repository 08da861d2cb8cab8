"""Named recipes: compositions that a team gives a name, for example `prod`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from weightvc.objects.ids import task_name
from weightvc.objects.recipe import Recipe
from weightvc.repo import resolve, stage
from weightvc.repo.repository import TRACKED, Handle, recipe_path
from weightvc.repo.resolve import Request
from weightvc.repo.state import load
from weightvc.util.errors import NotFound
from weightvc.util.text import listed, meant, printable


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe under its name; ``staged`` until the next commit.

    ``dropped`` says that saving what is committed dropped, or would drop, another recipe or a removal that was staged;
    and that a removed recipe was only staged, so that there is nothing to commit.
    """

    name: str
    tasks: tuple[str, ...]
    method: str
    params: dict[str, object]
    digest: str
    staged: bool
    dropped: bool = False
    rules: tuple[str, ...] = ()


def save(repo: Handle, name: str, request: Request, *, dry_run: bool = False) -> NamedRecipe:
    """Stage a recipe under ``name``, replacing one of that name; nothing is staged if HEAD has the same there.

    Its tasks and parameters are checked first.
    """
    task_name(name, "recipe")
    recipe = resolve.resolve(repo, request).recipe
    path, same = recipe_path(name), load(repo).recipes.get(name) == recipe
    dropped = same and (path in stage.changes(repo) if dry_run else stage.forget(repo, path))
    if not (same or dry_run):
        stage.put(repo, path, recipe.to_bytes())
    return replace(_named(name, recipe, staged=not (same or dry_run)), dropped=dropped)


def listing(repo: Handle) -> tuple[NamedRecipe, ...]:
    """Return all recipes, those of HEAD with what is staged over them, by name."""
    return tuple(_named(name, *found) for name, found in sorted(_recipes(repo).items()))


def show(repo: Handle, name: str) -> NamedRecipe:
    """Return one recipe; :class:`NotFound` if there is none of that name."""
    return _named(name, *_find(repo, name))


def remove(repo: Handle, name: str, *, dry_run: bool = False) -> NamedRecipe:
    """Stage the removal of a recipe, or drop one that is only staged."""
    recipe, staged = _find(repo, name)
    state = load(repo)
    committed = name in state.recipes or name in state.broken
    if not dry_run:
        stage.forget(repo, recipe_path(name))
        if committed:
            stage.delete(repo, recipe_path(name))
    return replace(_named(name, recipe, staged), dropped=not committed)


def _recipes(repo: Handle) -> dict[str, tuple[Recipe, bool]]:
    found = {name: (recipe, False) for name, recipe in load(repo).recipes.items()}
    for path, data in stage.changes(repo).items():
        if not path.startswith(f"{TRACKED}/recipes/"):
            continue
        name = path.removeprefix(f"{TRACKED}/recipes/").removesuffix(".toml")
        found.pop(name, None)
        if data is not None:
            found[name] = (Recipe.from_bytes(data, name), True)
    return found


def _find(repo: Handle, name: str) -> tuple[Recipe, bool]:
    recipes = _recipes(repo)
    if name not in recipes:
        load(repo).recipe(name)  # which says what is wrong with one that cannot be read
        raise NotFound(
            f"no recipe {printable(name)!r}; the recipes are: {_or_none(sorted(recipes))}",
            meant(name, recipes, "make one with `wvc recipe save NAME --tasks a,b`"),
        )
    return recipes[name]


def _or_none(names: Iterable[str]) -> str:
    return listed(list(names)) or "none"


def _named(name: str, recipe: Recipe, staged: bool) -> NamedRecipe:
    tasks = tuple(str(weighted) for weighted in recipe.tasks)
    rules = tuple(map(str, recipe.rules))
    return NamedRecipe(name, tasks, recipe.method, dict(recipe.params), recipe.digest, staged, rules=rules)
