"""The README.md of a merged model: front matter that model hubs read, and what went into the merge."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from weightvc.util import canon
from weightvc.util.text import printable

MAX_CARD = 2**20
"""Bytes of a card that are looked at; lists of evaluation results make some front matter long."""

MAX_KEYS = 1024
"""Bytes of front matter that are parsed: only the keys used here, since YAML parses slowly."""

LICENCES = (
    "cc0-1.0", "unlicense", "0bsd", "wtfpl", "pddl",
    "mit", "isc", "zlib", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "apache-2.0", "cc-by-3.0", "cc-by-4.0",
    "mpl-2.0", "epl-2.0", "eupl-1.2", "lgpl-2.1", "lgpl-3.0", "lgpl", "cc-by-sa-3.0", "cc-by-sa-4.0", "odbl",
    "gpl-2.0", "gpl-3.0", "gpl", "agpl-3.0",
    "openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "gemma", "llama4", "llama3.3", "llama3.2", "llama3.1", "llama3", "llama2",
    "cc-by-nd-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
)  # fmt: skip
"""Licence names of the Hugging Face hub, from the freest to the strictest: public domain, attribution, weak and
strong copyleft, restricted use, no derivatives or no commerce. One that is not here counts as stricter still."""

_FRONT = re.compile(rb"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_KEYS = re.compile(rb"^(?:license|base_model|library_name|pipeline_tag):[^\n]*(?:\n(?:[ \t-][^\n]*)?)*", re.MULTILINE)
_TITLE = re.compile(r"^# +([^\W_][\w .,:+/()-]{0,95})\r?$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class CardTask:
    """One task of a merge: its name, coefficient, version digest and its own README.md, if it has one.

    ``lossy`` says that what was merged is near the fine-tune that was added, and not its bits.
    """

    name: str
    coefficient: float
    version: str
    card: bytes | None
    lossy: bool = False


def merge_card(
    *,
    base: str,
    base_card: bytes | None,
    tasks: Sequence[CardTask],
    method: str,
    params: Mapping[str, canon.Json],
    rules: Sequence[tuple[str, str, Mapping[str, canon.Json]]] = (),
    projected: int | None = None,
) -> bytes:
    """Write the card of a merged model, a function of its arguments only.

    Args:
        base: What to call the base.
        base_card: The base's own README.md, if it has one.
        tasks: The tasks, in the order of the recipe.
        method: The merge method's name.
        params: Its parameters, as they are in the recipe.
        rules: Pattern, method and parameters of each rule for tensors by name.
        projected: How many tensors the method treated as matrices, if it makes that difference.

    Returns:
        UTF-8 Markdown with YAML front matter. Front matter of others that is damaged or absurdly large is taken
        as absent.
    """
    front = front_matter(base_card)
    declared = {f"base {base}": _words(front.get("license"))}
    declared |= {task.name: _words(front_matter(task.card).get("license")) for task in tasks}
    names = sorted({name for found in declared.values() for name in found})
    head = _head(front, names)
    lines = ["---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), "---", "# Merged model", ""]
    lines += [f"Made by weightvc from {_cell(base)} with the method `{_cell(method)}`.", ""]
    lines += ["| task | coefficient | version |", "|---|---|---|"]
    lines += [f"| {_cell(task.name)} | {task.coefficient!r} | `{_cell(task.version[:12])}` |" for task in tasks]
    if lossy := [_cell(task.name) for task in tasks if task.lossy]:
        lines += ["", f"Stored lossily, so that what was merged is near what was trained: {', '.join(lossy)}."]
    lines += ["", "| parameter | value |", "|---|---|"] if params or projected is not None else []
    lines += [f"| {_cell(key)} | {_cell(canon.dumps(params[key]).decode())} |" for key in sorted(params)]
    lines += [f"| tensors projected | {projected} |"] if projected is not None else []
    lines += ["", "| tensors named | method | parameters |", "|---|---|---|"] if rules else []
    lines += [f"| {_cell(name)} | {_cell(how)} | {_cell(_listing(given))} |" for name, how, given in rules]
    lines += [
        "",
        "## Licences",
        "",
        "The strictest one is named above; whether all may be combined is for you to check.",
    ]
    lines += ["", *(f"- {_cell(who)}: {_cell(', '.join(found) or 'none declared')}" for who, found in declared.items())]
    return ("\n".join(lines) + "\n").encode()


def front_matter(card: bytes | None) -> dict[str, Any]:
    """Return the licence, base model, library and pipeline of a card's front matter, every scalar as text.

    The loader is the one that builds text, lists and dicts only: the usual safe one also expands merge keys,
    and a few hundred bytes of those keep it busy for ever.

    Returns:
        The keys that are there; empty when the front matter is missing, damaged or absurdly large.
    """
    found = _FRONT.match(card[:MAX_CARD]) if card else None
    keys = b"\n".join(_KEYS.findall(found[1])) if found else b""
    if len(keys) > MAX_KEYS:
        return {}
    try:
        value = yaml.load(keys.decode(), Loader=yaml.BaseLoader)  # noqa: S506 - stricter than the safe loader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def title(card: bytes | None) -> str | None:
    """Return a card's first heading, by custom the name of its model; ``None`` if there is none of plain text."""
    found = _TITLE.search(_FRONT.sub(b"", card[:MAX_CARD], 1).decode(errors="replace")) if card else None
    return found[1].strip() if found else None


def strictest(licences: Iterable[str]) -> str:
    """Return the strictest of some licence names; ``"other"`` when there is one that :data:`LICENCES` lacks."""
    names = set(licences)
    return max(names, key=LICENCES.index) if names <= set(LICENCES) else "other"


def _head(front: Mapping[str, Any], licences: Sequence[str]) -> dict[str, Any]:
    models = [name for name in _listed(front.get("base_model")) if _MODEL.fullmatch(name)]
    head: dict[str, Any] = {"base_model": models} if models else {}
    head |= {"base_model_relation": "merge", "tags": ["weightvc", "merge"]}
    head |= {key: found[0] for key in ("library_name", "pipeline_tag") if (found := _words(front.get(key)))}
    if licences:
        head["license"] = strictest(licences)
        unknown = [name for name in licences if name not in LICENCES]
        head |= {"license_name": ", ".join(unknown)} if unknown else {}
    return head


def _listed(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _words(value: object) -> list[str]:
    return [item.lower() for item in _listed(value) if _WORD.fullmatch(item)]


def _listing(params: Mapping[str, canon.Json]) -> str:
    return ", ".join(f"{key} = {canon.dumps(params[key]).decode()}" for key in sorted(params))


def _cell(text: str) -> str:
    return html.escape(printable(text), quote=False).replace("|", "\\|").replace("`", "'")
