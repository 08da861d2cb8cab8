"""Tables of tokens or positions that a task has in another size: no merge knows which row is which."""

import re
from collections.abc import Mapping

from weightvc.checkpoint.adapter import PREFIX
from weightvc.merge.params import named
from weightvc.merge.table import OTHER
from weightvc.objects.manifest import Entry, Manifest
from weightvc.repo.rules import Methods
from weightvc.util.errors import Conflict
from weightvc.util.text import printable


def tables(base: Manifest, task: Manifest) -> dict[str, Entry]:
    """Return the task's matrices that are a table of the base with another number of rows, by the base's names.

    A table is known by its name, see :data:`weightvc.merge.table.OTHER`.
    """
    found: dict[str, Entry] = {}
    for entry in task.heads:
        names = (_renamed(task, entry.spec.name), entry.spec.name)
        mine = next((base.by_name[name] for name in names if name in base.by_name), None)
        if mine is not None and named(mine.spec.name, OTHER) and _differ(mine.spec.shape, entry.spec.shape):
            found[mine.spec.name] = entry
    return found


def refuse(base: Manifest, task: Manifest, methods: Methods) -> None:
    """Raise :class:`Conflict` if a task has such a table, and no rule says what to do about the base's."""
    found = tables(base, task)
    names = [name for name in found if methods.rule([name]) is None]
    if not names:
        return
    entry, has = found[names[0]], base.by_name[names[0]].spec.shape[0]
    pattern = "|".join(re.sub(r"([^\w-])", r"\\\1", name, flags=re.ASCII) for name in names)
    raise Conflict(
        f"task {task.task}: {printable(entry.spec.name)} has {entry.spec.shape[0]} rows and the base's {has}, "
        "and nothing says which row is which token",
        f"pass --rule '{printable(pattern)}=base' to keep the base's, or =METHOD to merge those of its size; the other "
        f"goes to heads/{task.task}.safetensors",
    )


def _renamed(task: Manifest, name: str) -> str:
    """Return what a task's tensor would be called in the base, where one side's names carry a prefix."""
    if task.updates:
        return name.removeprefix(PREFIX)
    pairs: Mapping[str, str] = {entry.spec.name: entry.of for entry in task.tensors if entry.of is not None}
    own, of = next(((own, of) for own, of in pairs.items() if own != of), ("", ""))
    return of.removesuffix(own) + name if of.endswith(own) else name.removeprefix(own.removesuffix(of))


def _differ(base: tuple[int, ...], task: tuple[int, ...]) -> bool:
    """Tell whether two shapes are of matrices that differ in the number of rows only."""
    return len(base) == len(task) == 2 and base[1] == task[1] and base[0] != task[0]
