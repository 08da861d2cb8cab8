"""PEFT LoRA adapters, read without peft: the settings, and which tensors of an adapter are what.

An adapter is a directory with ``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``). For a module M
of the base it holds factors A and B, and M's weight becomes W + scale·B·A. References: Hu et al., "LoRA: Low-Rank
Adaptation of Large Language Models", ICLR 2022; Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning
with LoRA", arXiv 2312.03732 (alpha over the root of the rank).
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from weightvc.checkpoint.files import label, map_file, parse_json
from weightvc.checkpoint.header import MAX_HEADER, refuse_pointer
from weightvc.util.canon import Json
from weightvc.util.errors import BadInput
from weightvc.util.text import listed, printable

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model"
"""What the names of an adapter's weight files begin with."""

Role: TypeAlias = Literal["a", "b"]

PREFIX = "base_model.model."
"""What PEFT puts before the names of a model."""

_FACTORS: Mapping[str, tuple[Role, bool]] = {
    ".lora_A.weight": ("a", False),
    ".lora_B.weight": ("b", False),
    ".lora_embedding_A": ("a", True),
    ".lora_embedding_B": ("b", True),
}
"""Ending of a factor's name to which of the two it is, and whether it belongs to an embedding."""

_KNOWN = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size",
    "r", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
})  # fmt: skip
"""Settings that say nothing of what the tensors mean, or are read here."""

_KINDS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "lora_bias": "LoRA with biases of its own",
    "alora_invocation_tokens": "aLoRA",
    "trainable_token_indices": "LoRA with trained tokens",
    "layer_replication": "LoRA with repeated layers",
    "target_parameters": "LoRA of bare parameters",
    "ensure_weight_tying": "LoRA with tied factors",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow",
    "megatron_config": "LoRA for Megatron",
}
"""Settings that, when they are on, make another kind of adapter of it."""

_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to initialize the factors that leave the base's weights alone."""

_LITERAL = re.compile(r"\^?(?:[\w-]|\\?\.)+\Z", re.ASCII)
_MOST = 10_000
"""Entries of a pattern."""

_LOOKED = 2**27
"""Characters of module names that are searched for what a pattern's keys may mean: a second of work."""

MERGE = "merge it into its base with peft's merge_and_unload, save that, and add it"
"""What to do with an adapter that is not read."""


@dataclass(frozen=True)
class Adapter:
    """The settings of a LoRA adapter that decide what its factors mean.

    Attributes:
        alpha: The numerator of the scale, for modules that ``alphas`` does not name.
        alphas: Module names, or their ends after a dot, to alphas; the first that matches counts. A key that begins
            with ``^`` is a whole name.
        rank: Of all factors, where no pattern says otherwise; ``None`` if one does, or nothing is said.
        rooted: Whether the scale is alpha over the root of the rank (rsLoRA).
        fan_in_fan_out: Whether the base's matrices have their inputs in rows, where their shape does not say.
    """

    alpha: float
    alphas: Mapping[str, float]
    rank: int | None
    rooted: bool
    fan_in_fan_out: bool

    def scale(self, module: str, rank: int) -> float:
        """Return the factor of B·A for a module, by its name in the base, and the rank of its factors."""
        found = [self._places[end] for end in _ends(module) if end in self._places]
        alpha = min(found)[1] if found else self.alpha
        return alpha / (math.sqrt(rank) if self.rooted else rank)

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, float]]:
        """The place of each key and its alpha, by the name that it spells."""
        places: dict[str, tuple[int, float]] = {}
        for at, (key, alpha) in enumerate(self.alphas.items()):
            places.setdefault(key.replace("\\.", "."), (at, alpha))
        return places

    def refuse_expressions(self, modules: Collection[str], where: str) -> None:
        """Raise :class:`BadInput` for a key that means a module only if its dots stand for any character.

        Also for more keys that might than can be looked at.
        """
        plain = {key: key.replace("\\.", ".") for key in self.alphas}
        wanted, known, lengths = frozenset(plain.values()), set(), set()
        for end in (end for module in modules if wanted for end in _ends(module)):
            lengths.add(len(end))
            if end in wanted:
                known.add(end)
        lines = "\n".join(modules)
        odd = [
            key
            for key, name in plain.items()
            if name not in known and len(name) in lengths and "." in key.replace("\\.", "")
        ]
        if len(odd) * len(lines) > _LOOKED:
            raise BadInput(
                f"{where}: alpha_pattern has {len(odd)} names that may stand for others, too many for "
                f"{len(modules)} modules: {listed(odd)}",
                "remove those that name no module, or write \\\\. for their dots",
            )
        for key in odd:
            if re.search(rf"^(?:.*\.)?{key.removeprefix('^')}$", lines, re.MULTILINE):
                raise _expressions(where, [key])


@dataclass(frozen=True)
class Factors:
    """The names of one module's factors, and whether it is an embedding."""

    a: str
    b: str
    embedding: bool


def read(root: Path) -> Adapter:
    """Read the settings of the adapter in the directory ``root``.

    Raises:
        BadInput: settings that cannot be read, or of another kind than plain LoRA.
    """
    where = label(root / CONFIG)
    data = map_file(root / CONFIG)
    refuse_pointer(data, where)
    if len(data) > MAX_HEADER:
        raise BadInput(f"{where}: {len(data)} bytes, more than the limit of {MAX_HEADER}", "download it again")
    config = parse_json(bytes(data), where, "download it again")
    if not isinstance(config, dict):
        raise BadInput(f"{where}: no JSON object", "download it again")
    _refuse_others(config, where)
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict):
        raise BadInput(f"{where}: alpha_pattern maps no module names to numbers", "correct it")
    if len(alphas) > _MOST:
        raise BadInput(f"{where}: alpha_pattern has {len(alphas)} entries, more than the limit of {_MOST}", MERGE)
    if odd := [key for key in alphas if not _LITERAL.match(key)]:
        raise _expressions(where, odd)
    rank = config.get("r")
    return Adapter(
        _number(config.get("lora_alpha", 8), "lora_alpha", where),
        {key: _number(value, f"alpha_pattern of {printable(key)[:80]}", where) for key, value in alphas.items()},
        rank=rank if type(rank) is int and not config.get("rank_pattern") else None,
        rooted=_flag(config, "use_rslora", where),
        fan_in_fan_out=_flag(config, "fan_in_fan_out", where),
    )


def _refuse_others(config: Mapping[str, Json], where: str) -> None:
    """Refuse what is no plain LoRA, by its name."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BadInput(f"{where}: an adapter of the kind {printable(str(kind))[:60]}; only LoRA is read", MERGE)
    for setting, name in _KINDS.items():
        if config.get(setting):
            raise BadInput(f"{where}: {name} ({setting}); only plain LoRA is read", MERGE)
    init = config.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise BadInput(
            f"{where}: its factors began as {printable(str(init))[:60]}, which may change the base's weights",
            "save it with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
        )
    if unknown := sorted(key for key, value in config.items() if value and key not in _KNOWN and key not in _KINDS):
        raise BadInput(
            f"{where}: settings that this version does not know, and that may change what the adapter means: "
            f"{listed(unknown)}",
            f"upgrade weightvc, or {MERGE}",
        )


def _number(value: Json, what: str, where: str) -> float:
    if type(value) not in {int, float} or not math.isfinite(value):
        raise BadInput(f"{where}: {what} is no finite number: {printable(str(value))[:60]}", "correct it")
    return float(value)


def _flag(config: Mapping[str, Json], key: str, where: str) -> bool:
    value = config.get(key) or False
    if not isinstance(value, bool):
        raise BadInput(f"{where}: {key} is neither true nor false", "correct it")
    return value


def _expressions(where: str, keys: list[str]) -> BadInput:
    return BadInput(
        f"{where}: alpha_pattern names modules by regular expressions: {listed(keys)}",
        "write the modules' names out, each with its alpha",
    )


def _ends(module: str) -> Iterator[str]:
    """Return the keys of a pattern that mean a module: its name after ``^``, and its ends after a dot."""
    yield f"^{module}"
    at = -1
    while True:
        yield module[at + 1 :]
        at = module.find(".", at + 1)
        if at < 0:
            return


def is_factor(name: str) -> bool:
    """Tell whether a tensor is a factor of a LoRA, by its name."""
    return name.endswith(tuple(_FACTORS))


def sort(names: Iterable[str], where: str) -> tuple[dict[str, Factors], dict[str, str]]:
    """Tell an adapter's factors from the tensors that replace one of the base.

    Args:
        names: Of the adapter's tensors.
        where: What the adapter is called, for messages.

    Returns:
        The factors by the module that they update, and for each other tensor the name of the one that it replaces;
        modules and names without the prefix that peft puts before them.

    Raises:
        BadInput: a factor without its other half, or a tensor of another kind of adapter.
    """
    found: dict[tuple[str, bool], dict[Role, str]] = {}
    others: dict[str, str] = {}
    for name in names:
        plain = name.removeprefix(PREFIX)
        ending = next((ending for ending in _FACTORS if plain.endswith(ending)), None)
        if ending is not None:
            role, embedding = _FACTORS[ending]
            module = plain.removesuffix(ending)
            pair = found.setdefault((module, embedding), {})
            if role in pair or (module, not embedding) in found:
                raise BadInput(f"{where}: several factors of {printable(module)}", "save the adapter again")
            pair[role] = name
        elif ".lora_" in plain:
            raise BadInput(f"{where}: {printable(name)} is no factor of a plain LoRA", MERGE)
        else:
            others[name] = plain.replace(".base_layer.", ".")
    if halves := [next(iter(pair.values())) for pair in found.values() if len(pair) < 2]:
        raise BadInput(f"{where}: factors without their other half: {listed(halves)}", "save the adapter again")
    return {module: Factors(pair["a"], pair["b"], kind) for (module, kind), pair in found.items()}, others
