"""Unstage: staged changes that the next commit shall not carry out. Nothing that is committed changes."""

from collections.abc import Sequence
from dataclasses import dataclass

from weightvc.repo import stage
from weightvc.repo.repository import Handle, recipe_path, task_path
from weightvc.util.errors import NotFound
from weightvc.util.text import listed, meant, printable


@dataclass(frozen=True)
class Unstaged:
    """What unstage dropped, or, for a dry run, would drop: tracked paths, sorted."""

    dropped: tuple[str, ...]


def unstage(repo: Handle, names: Sequence[str] = (), *, dry_run: bool = False) -> Unstaged:
    """Drop what is staged for the tasks and recipes ``names``, or everything that is staged.

    A name that a task and a recipe share drops both.

    Raises:
        NotFound: nothing is staged under one of the names; then nothing is dropped.
    """
    staged = stage.changes(repo)
    wanted = set(staged)
    if names:
        known = dict.fromkeys(path.rpartition("/")[2].rpartition(".")[0] for path in staged)
        for name in names:
            if name not in known:
                raise NotFound(
                    f"nothing is staged for {printable(name)!r}; staged are: {listed(list(known)) or 'none'}",
                    meant(name, known, "run `wvc status` to see what is staged"),
                )
        wanted &= {path for name in names for path in (task_path(name), recipe_path(name))}
    dropped = {path: staged[path] for path in sorted(wanted)}
    if not dry_run:
        stage.settle(repo, dropped)  # what is staged anew meanwhile stays
    return Unstaged(tuple(dropped))
