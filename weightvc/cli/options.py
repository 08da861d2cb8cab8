"""Options that several commands share, and how their values are read."""

import os
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DTYPES = ("F64", "F32", "F16", "BF16", "base")
"""What a result can be cast to: :data:`weightvc.objects.tensors.MERGED`, without importing it."""

LOSSLESS = ("intdelta", "full", "raw")
CODECS = (*LOSSLESS, "int8", "int4", "int2", "bitdelta", "t-switch", "skillpack")
"""The built-in codecs, those of :data:`weightvc.delta.codec.CODECS`, without importing it."""

LEVELS = ("fast", "default", "best")
"""The values of :data:`weightvc.delta.codec.Level`, without importing it."""

_STORED = "How tensors are stored: intdelta (differences from the base), full (no base) or raw."
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


class Size(click.ParamType[int]):
    """A number of bytes such as ``5GB``, ``512MiB`` or ``1000``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the number and its unit: decimal, or binary with an ``i``."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is not a size; write for example 5GB or 512MiB", param, ctx)
        step = 1024 if found[3] else 1000
        if len(found[1]) > 18:
            self.fail(f"{value[:40]!r} is more than any file can have", param, ctx)
        nbytes = int(float(found[1]) * step ** " KMGT".index(found[2].upper() or " "))
        if nbytes < 1:
            self.fail(f"{value!r} is less than one byte", param, ctx)
        return nbytes


class TaskName(click.ParamType[str]):
    """A task's name; the shell completes those in the work tree."""

    name = "task"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Return the tasks whose manifests lie in the work tree; git is not asked, completion must be quick."""
        listed = incomplete.rpartition(",")
        done = {item.partition("=")[0] for item in listed[0].split(",")}
        completion = import_module("click.shell_completion")
        return [
            completion.CompletionItem(f"{listed[0]}{listed[1]}{name}")
            for name in _tracked("tasks")
            if name.startswith(listed[2]) and name not in done
        ]


def recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the recipes in the work tree."""
    return _starting(_tracked("recipes"), incomplete)


def recipes_or_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the recipes in the work tree, or files if none matches."""
    return recipes(ctx, param, incomplete) or paths(ctx, param, incomplete)


def tasks_and_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the tasks and recipes in the work tree."""
    return _starting(_tracked("tasks") + _tracked("recipes"), incomplete)


def staged(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the tasks and recipes that are staged; git is not asked."""
    here = Path.cwd()
    git = next((found for place in [here, *here.parents] if (found := place / ".git").exists()), here)
    if git.is_file():  # a linked work tree: the file says where its git directory is
        git = git.parent / git.read_text().removeprefix("gitdir:").strip()
    files = (git / "wvc" / "stage").glob("*/*")
    names = {file.name.removesuffix(".removed").rpartition(".")[0] for file in files}
    return _starting(sorted(names - {""}), incomplete)


def methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the built-in merge methods."""
    return _starting(import_module("weightvc.merge.table").METHODS, incomplete)


def codecs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the built-in codecs."""
    return _starting(CODECS, incomplete)


def base_codecs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the names of the built-in codecs that lose nothing."""
    return _starting(LOSSLESS, incomplete)


def paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Let the shell complete files and directories."""
    return [import_module("click.shell_completion").CompletionItem(incomplete, type="file")]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _tracked(kind: str) -> list[str]:
    """Return the names of the ``tasks`` or ``recipes`` in the work tree, and none that a shell would run."""
    here = Path.cwd()
    roots = (directory / ".wvc" for directory in [here, *here.parents])
    root = next((root for root in roots if root.is_dir()), None)
    stems = [path.stem for path in (root / kind).iterdir()] if root and (root / kind).is_dir() else []
    return sorted(filter(_NAME.fullmatch, stems))


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, sep, text = value.partition("=")
        if not sep or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", ctx, param)
        if key in pairs:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        pairs[key] = text
    return pairs


def _split(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    if not values:
        return None
    items = [item.strip() for value in values for item in value.split(",")]
    if not all(items):
        if any(items):
            raise click.BadParameter(f"{','.join(values)!r} has an empty name", ctx, param)
        return []
    import_module("weightvc.objects.recipe").parse_tasks(items)
    return items


def _rules(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...] | None:
    parse = import_module("weightvc.objects.recipe").NameRule.parse
    return tuple(map(parse, values)) if values else None


def _alias(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return "int4" if value == "lossy" else value


def jobs(function: F) -> F:
    """Add ``--jobs``."""
    default = len(os.sched_getaffinity(0))
    return click.option(
        "-j", "--jobs", type=click.IntRange(1, 256), default=default, show_default="all cores", help="Threads."
    )(function)


def codec(function: F) -> F:
    """Add ``--codec``."""
    return click.option(
        "--codec", default="intdelta", show_default=True, shell_complete=codecs, callback=_alias,
        help=f"{_STORED} Lossy: int8, int4 (or lossy), int2, bitdelta, t-switch, skillpack, svd:RANK.",
    )(function)  # fmt: skip


def base_codec(function: F) -> F:
    """Add ``--codec`` for a base, which is never stored lossily."""
    return click.option(
        "--codec", default="intdelta", show_default=True, shell_complete=base_codecs, callback=_alias, help=_STORED
    )(function)


def level(function: F) -> F:
    """Add ``--level``."""
    return click.option(
        "--level", type=click.Choice(LEVELS), default="default", show_default=True,
        help="How hard to try for small size: fast takes differences as they are, default predicts them first, best "
        "codes what is left as well as it can, several times slower.",
    )(function)  # fmt: skip


def device(function: F) -> F:
    """Add ``--device``."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where matrices are computed."
    )(function)


def dry_run(function: F) -> F:
    """Add ``--dry-run``."""
    return click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(function)


def recipe(function: F) -> F:
    """Add all that decides a merged model."""
    for option in reversed(
        (
            click.option(
                "--tasks",
                type=TaskName(),
                multiple=True,
                callback=_split,
                metavar="a,b=0.7",
                help="Tasks with coefficients, in order; all by default.",
            ),
            click.option(
                "--recipe",
                "recipe_name",
                metavar="NAME|FILE",
                shell_complete=recipes_or_files,
                help="A named recipe, or a recipe file.",
            ),
            click.option("--method", shell_complete=methods, help="Merge method; `wvc checkout --help` lists them."),
            click.option("-p", "params", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="Method parameter."),
            click.option(
                "--rule",
                "rules",
                multiple=True,
                callback=_rules,
                metavar="REGEX=METHOD[:KEY=VALUE,…]",
                help="Another method for tensors whose whole names match, or `base` to keep the base's; the first that "
                "matches decides.",
            ),
            click.option(
                "--dtype",
                type=click.Choice(DTYPES, case_sensitive=False),
                help="Cast the result; `base` casts nothing, but merges a task that is alone into the base.",
            ),
            click.option(
                "--on-int-mismatch",
                type=click.Choice(["error", "base"]),
                help="Integer tensors that tasks changed in different ways.",
            ),
        )
    ):
        function = option(function)
    return function
