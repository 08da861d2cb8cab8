"""`wvc recipe`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.checkout import wanted
from weightvc.cli.context import Context, columns, pass_context
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.recipe import NamedRecipe


@dataclass(frozen=True)
class _List:
    recipes: "tuple[NamedRecipe, ...]"


@click.group("recipe")
def command() -> None:
    """Keep compositions of tasks under a name, for example `prod`."""


@command.command("save")
@click.argument("name", shell_complete=options.recipes)
@options.recipe
@options.dry_run
@pass_context
def save(ctx: Context, /, name: str, dry_run: bool, **request: Any) -> None:
    """Stage a recipe under NAME; `wvc commit` records it."""
    result = repo.recipe.save(ctx.repository(), name, wanted("HEAD", request), dry_run=dry_run)
    ctx.emit("recipe-save", result, [_saved(result, dry_run=dry_run)], done=not dry_run)


def _saved(recipe: "NamedRecipe", *, dry_run: bool) -> str:
    if recipe.dropped:
        done = "would drop" if dry_run else "dropped"
        left = "" if dry_run else "; nothing is staged for it now"
        return f"{done} the staged change of recipe {recipe.name}{left}"
    done = "would save" if dry_run else "staged" if recipe.staged else "nothing changed:"
    how = f" by {recipe.method}" if recipe.tasks else ""
    how += f" and {counted(len(recipe.rules), 'rule')}" if recipe.tasks and recipe.rules else ""
    return f"{done} recipe {recipe.name}: {_tasks(recipe)}{how}"


@command.command("list")
@pass_context
def list_(ctx: Context) -> None:
    """List the recipes."""
    result = _List(repo.recipe.listing(ctx.repository()))
    ctx.emit(
        "recipe-list", result, columns([_row(recipe) for recipe in result.recipes]) if result.recipes else ["none"]
    )


@command.command("show")
@click.argument("name", shell_complete=options.recipes)
@pass_context
def show(ctx: Context, name: str) -> None:
    """Show one recipe."""
    result = repo.recipe.show(ctx.repository(), name)
    rows: Iterable[tuple[str, object]] = (
        ("recipe", result.name + (" (staged)" if result.staged else "")),
        ("tasks", _tasks(result)),
        ("method", result.method),
        *((f"-p {key}", value) for key, value in result.params.items()),
        *(("rule", rule) for rule in result.rules),
        ("digest", result.digest),
    )
    ctx.emit("recipe-show", result, columns(list(rows)))


@command.command("rm")
@click.argument("name", shell_complete=options.recipes)
@options.dry_run
@pass_context
def remove(ctx: Context, name: str, dry_run: bool) -> None:
    """Stage the removal of a recipe; `wvc commit` records it."""
    result = repo.recipe.remove(ctx.repository(), name, dry_run=dry_run)
    if result.dropped:
        line = f"{'would drop' if dry_run else 'dropped'} the staged recipe {name}, which was never committed"
    else:
        line = f"{'would remove' if dry_run else 'staged the removal of'} recipe {name}"
    ctx.emit("recipe-rm", result, [line], done=not dry_run)


def _tasks(recipe: "NamedRecipe") -> str:
    return " + ".join(recipe.tasks) or "no tasks: the base"


def _row(recipe: "NamedRecipe") -> tuple[str, ...]:
    tasks = " + ".join(recipe.tasks) or "no task is left: the base"
    return recipe.name, recipe.method, tasks, "staged" if recipe.staged else ""
