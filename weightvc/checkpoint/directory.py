"""Model directories: which files hold the weights, and what else travels along."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from weightvc.checkpoint import adapter
from weightvc.checkpoint.files import label, map_file, parse_json, regular_size
from weightvc.checkpoint.header import MAX_HEADER, refuse_pointer
from weightvc.objects.paths import LOCK, is_plain
from weightvc.objects.tensors import MAX_NAME
from weightvc.util.errors import BadInput
from weightvc.util.text import listed, printable

Kind: TypeAlias = Literal["safetensors", "torch"]

MAX_FILES = 10_000
"""Files and directories beside the weights."""

_SKIPPED = frozenset({".wvc", ".cache/huggingface", LOCK})
_FILES: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "safetensors": ("model.safetensors", (".safetensors",)),
    "torch": ("pytorch_model.bin", (".bin", ".pt", ".pth")),
}
_TRAINING = re.compile(r"(training_args|scheduler|optimizer|scaler|rng_state|trainer_state)[^/]*")
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|h5|keras|msgpack|onnx|onnx_data(_\d+)?|onnx\.data|gguf|ggml|ckpt|npz|ot|pb|tflite"
    r"|mlmodel|pdparams|data-\d+-of-\d+)(\.index(\.\w+)?\.json)?|openvino_model.*\.xml",
    re.IGNORECASE | re.DOTALL,
)
_NO_WEIGHTS = re.compile(
    r"(.*[._-])?(tokenizer|vocab|merges|spiece|sentencepiece|spm|bpe|(pre)?processor|feature_extractor|mel_filters)s?"
    r"([._-].*)?",
    re.IGNORECASE | re.DOTALL,
)
_EXPORTS = re.compile(
    r"(.*/)?(onnx|openvino|coreml|tflite|gguf|ggml|mlx|original|saved_model|[^/]*\.ml(package|modelc))/.*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that hold a directory's tensors.

    Attributes:
        kind: How to read them.
        files: Their names, sorted.
        index: Name of the index file; empty when there is a single file without one.
        places: Tensor name to file name, from the index.
    """

    kind: Kind
    files: tuple[str, ...]
    index: str = ""
    places: Mapping[str, str] = field(default_factory=dict)


def is_stale(path: str) -> bool:
    """Tell whether a file beside the weights holds them too, so that a merged model must not carry it along.

    That is a copy or an export of the model in any framework's format, an index of one, or a state of its training, by
    its name. Safetensors and PyTorch files in subdirectories, with their indexes, are modules of their own, such as a
    Dense head, unless the directory is named as one of exports.
    """
    directory, _, name = path.rpartition("/")
    if _WEIGHTS.fullmatch(name) is None or _NO_WEIGHTS.fullmatch(name) is not None:
        return False
    module = (
        directory
        and name.removesuffix(".index.json").endswith((".safetensors", ".bin"))
        and not name.startswith("openvino_model")
    )
    return not module or _EXPORTS.fullmatch(path) is not None


def is_odd(path: str) -> bool:
    """Tell whether a file beside the weights may not be meant to travel with them.

    By its name it is hidden, holds weights, or is a state of training.
    """
    parts = path.split("/")
    hidden = any(part.startswith(".") for part in parts) and path != ".gitattributes"
    return hidden or _TRAINING.fullmatch(parts[-1]) is not None or is_stale(path)


def kind_of(path: Path) -> Kind:
    """Return how to read a weight file, judged by its name.

    Raises:
        BadInput: the name ends in none of ``.safetensors``, ``.bin``, ``.pt``, ``.pth``.
    """
    for kind, (_, endings) in _FILES.items():
        if path.suffix in endings:
            return kind
    raise BadInput(
        f"{label(path)}: not a .safetensors, .bin, .pt or .pth file", "give one of those, or the model's directory"
    )


def choose(root: Path) -> Weights:
    """Choose the files of ``root`` that hold its tensors: safetensors before PyTorch, an index before a file.

    Raises:
        BadInput: no weights, several candidates, an adapter beside a model, or an index that is not well formed.
    """
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    if adapter.CONFIG in names:
        return _adapter(root, names)
    chosen = _choose(root, names, "safetensors") or _choose(root, names, "torch")
    if chosen is None:
        raise BadInput(
            f"{label(root)}: no .safetensors, .bin, .pt or .pth weights in this directory",
            "give the directory that holds the model's weights",
        )
    return chosen


def refuse_adapters_file(path: Path) -> None:
    """Raise :class:`BadInput` for the weight file of a PEFT adapter, which means nothing without its settings."""
    if path.name.startswith(adapter.WEIGHTS) and os.path.lexists(path.parent / adapter.CONFIG):
        raise BadInput(f"{label(path)}: the weights of a PEFT adapter", f"give its directory, {label(path.parent)}")


def _adapter(root: Path, names: list[str]) -> Weights:
    """Choose the weight file of a PEFT adapter."""
    own = [name for name in names if name.startswith(adapter.WEIGHTS)]
    others = [name for name in names if name not in own]
    kinds: tuple[Kind, ...] = ("safetensors", "torch")
    if model := next((chosen for kind in kinds if (chosen := _choose(root, others, kind))), None):
        raise BadInput(
            f"{label(root)}: both an adapter ({adapter.CONFIG}) and a model ({model.files[0]}) are here",
            "give a directory that holds one of them",
        )
    for kind in kinds:
        name = adapter.WEIGHTS + _FILES[kind][1][0]
        if name in own:
            return Weights(kind, (name,))
    raise BadInput(f"{label(root)}: {adapter.CONFIG} without {adapter.WEIGHTS}.safetensors", "download it again")


def _choose(root: Path, names: list[str], kind: Kind) -> Weights | None:
    plain, endings = _FILES[kind]
    indexes = [name for name in names if name.endswith(f"{endings[0]}.index.json")]
    files = [name for name in names if name.endswith(endings) and _TRAINING.fullmatch(name) is None]
    if indexes:
        chosen = _from_index(root, _only(root, indexes, f"{plain}.index.json"), kind)
        if plain in names and plain not in chosen.files:
            raise BadInput(
                f"{label(root)}: both {plain} and {chosen.index} are here, and loaders differ on which is the model",
                "remove the one that is stale, or give the file itself",
            )
        return chosen
    return Weights(kind, (_only(root, files, plain),)) if files else None


def _only(root: Path, names: list[str], preferred: str) -> str:
    if preferred in names or len(names) == 1:
        return preferred if preferred in names else names[0]
    raise BadInput(f"{label(root)}: any of these could be the model: {listed(names)}", "give the file itself")


def _from_index(root: Path, index: str, kind: Kind) -> Weights:
    where = label(root / index)
    data = map_file(root / index)
    refuse_pointer(data, where)
    if len(data) > MAX_HEADER:
        raise BadInput(f"{where}: {len(data)} bytes, more than the limit of {MAX_HEADER}", "give a smaller index")
    value = parse_json(bytes(data), where, "download the index again")
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise BadInput(f"{where}: no weight_map of tensor names to file names", "download the index again")
    files = tuple(sorted(set(places.values())))
    for name in files:
        if not name.endswith(_FILES[kind][1]) or not is_plain(name):
            raise BadInput(
                f"{where}: {printable(name)[:80]!r} is not the name of a {kind} file beside it", "download both again"
            )
        if not os.path.lexists(root / name):
            raise BadInput(f"{where}: its shard {name} is missing", "download it, or run git lfs pull")
    return Weights(kind, files, index, places)


def check_places(root: Path, weights: Weights, found: Mapping[str, Iterable[str]]) -> None:
    """Compare the index with what its shards hold.

    Args:
        root: The directory.
        weights: Its weights, with an index.
        found: Shard name to the names of the tensors in it.

    Raises:
        BadInput: a tensor is not where the index places it, or a shard holds one that the index does not place
            there, such as one that another shard holds too.
    """
    for shard, names in found.items():
        held = set(names)
        placed = {name for name, place in weights.places.items() if place == shard}
        if placed - held:
            lost = listed(sorted(placed - held))
            raise BadInput(f"{label(root / weights.index)}: not in {shard}, as it says: {lost}", "download both again")
        if held - placed:
            extra = listed(sorted(held - placed))
            raise BadInput(
                f"{label(root / shard)}: holds tensors that {weights.index} does not place there: {extra}",
                "download both again",
            )


def other_files(root: Path, weights: Weights) -> dict[str, int]:
    """Return the size in bytes of every other file under ``root``, by path relative to it, sorted.

    What is not the model's stays out: ``.wvc``, ``wvc.lock.json`` and the hub's ``.cache/huggingface`` at the top, and
    ``.git`` anywhere. So does the index of PyTorch shards, which names files that a checkout does not write. Links to
    files are followed, links to directories refused: skipping one would lose files silently, and following it can
    leave the model or never end.

    Raises:
        BadInput: more than 10,000 entries, one that is neither a file nor a directory, or one that :func:`check_name`
            refuses.
    """
    left_out = {*weights.files, *([weights.index] if weights.kind == "torch" else [])}
    sizes: dict[str, int] = {}
    seen = 0
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as found:
            entries = list(itertools.islice(found, MAX_FILES + 1))
        seen += len(entries)
        if seen > MAX_FILES:
            raise BadInput(f"{label(root)}: more than {MAX_FILES} files", "give the model's own directory")
        for entry in entries:
            path = prefix + entry.name
            if entry.name == ".git" or path in _SKIPPED or path in left_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path + "/")
            else:
                sizes[path] = _other_size(root, path)
    return dict(sorted(sizes.items()))


def check_name(root: Path, path: str) -> None:
    """Raise :class:`BadInput` if no manifest can name the file ``path`` of a model directory."""
    wrong = ""
    try:
        if len(path.encode()) > MAX_NAME:
            wrong = f"its path in the model directory has {len(path.encode())} bytes, more than the limit of {MAX_NAME}"
    except UnicodeEncodeError:
        wrong = "its name is not UTF-8"
    if "\\" in path:
        wrong = "its name holds a backslash"
    if any(unicodedata.category(char) == "Cc" for char in path):
        wrong = "its name holds a control character"
    if wrong:
        raise BadInput(f"{label(root / path)}: {wrong}", "rename or remove it")


def _other_size(root: Path, path: str) -> int:
    check_name(root, path)
    if (root / path).is_dir():
        raise BadInput(f"{label(root / path)}: a symbolic link to a directory", "copy the directory here, or remove it")
    return regular_size(root / path)
