"""What is fuzzed: for each parser a function of bytes, and what it writes itself to begin from.

A function returns, or raises a :class:`weightvc.util.errors.WeightvcError`; anything else is a finding. Whatever it
takes must come back: the functions assert the round trips and the other oracles that there are.
"""

import contextlib
import io
import json
import os
import re
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import safetensors
import seeds
import xxhash
import yaml

from weightvc.checkpoint import adapter, card, directory
from weightvc.checkpoint.header import parse_header, parse_raw
from weightvc.delta import container
from weightvc.delta.codec import codec_named
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.pair import Unsuited
from weightvc.delta.words import words_of
from weightvc.history import refresh
from weightvc.objects.config import Config
from weightvc.objects.lock import Lock
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import NameRule, Recipe
from weightvc.objects.removal import Removal
from weightvc.objects.settings import Settings
from weightvc.objects.tensors import version_of
from weightvc.repo import asked, checkouts, evaluator
from weightvc.store.cache import Cache, forget
from weightvc.util import canon, regex, toml
from weightvc.util.errors import BadInput, Corrupt, WeightvcError
from weightvc.util.reading import read_file

SHM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_scratch = tempfile.TemporaryDirectory(prefix="wvc-fuzz-", dir=os.environ.get("TMPDIR", SHM))
ROOM = Path(_scratch.name)
"""Where inputs become files, for the parsers that read those."""

LARGEST = 2**21
"""Bytes of a tensor that is decoded here."""


class Parser(NamedTuple):
    """A parser under test, what it is begun with, and what all its inputs together may leave in memory, in bytes."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    memory: int = 2**30


@contextlib.contextmanager
def holds():
    """Around what must be true of an input that was taken: there a refusal is a finding, too."""
    try:
        yield
    except WeightvcError as error:
        raise AssertionError("what was written is refused") from error


def header(data):
    """As it stands, and with the length of the header and of the file that the header needs."""
    for text in (_measured(data), data):
        with _refusals(told=text is data):
            _check_header(text)


def _check_header(data):
    found = parse_header(memoryview(data), "f")
    with holds():
        assert parse_raw(found.raw, "f").tensors == found.tensors
    theirs = dict(safetensors.deserialize(data))
    assert theirs.keys() == found.tensors.keys()
    for name, slot in found.tensors.items():
        assert (slot.spec.dtype, list(slot.spec.shape)) == (theirs[name]["dtype"], theirs[name]["shape"])
        assert data[slot.start : slot.end] == bytes(theirs[name]["data"])


def index(data):
    room = _room("index")
    (room / "model.safetensors.index.json").write_bytes(data)
    (room / "model-00001-of-00001.safetensors").touch()
    found = directory.choose(room)
    assert all((room / name).is_file() for name in found.files)
    directory.check_places(room, found, {"model-00001-of-00001.safetensors": ["a"]})


def adapter_config(data):
    room = _room("adapter")
    (room / adapter.CONFIG).write_bytes(data)
    found = adapter.read(room)
    found.refuse_expressions(["model.layers.0.q_proj", "k"], "f")
    for module in ("model.layers.0.q_proj", ""):
        assert np.isfinite(found.scale(module, 8))


def adapter_names(data):
    names = list(dict.fromkeys(data.decode(errors="replace").split("\n")))
    factors, others = adapter.sort(names, "f")
    assert len(factors) * 2 + len(others) == len(names)


def model_card(data):
    front = card.front_matter(data)
    card.title(data)
    task = card.CardTask("t", 1.0, "a" * 64, data)
    made = card.merge_card(base="b", base_card=data, tasks=[task], method="m", params={})
    kept = yaml.safe_load(made.decode().split("---\n")[1])
    assert isinstance(front, dict)
    assert set(kept) <= {
        "base_model", "base_model_relation", "tags", "library_name", "pipeline_tag", "license", "license_name"
    }  # fmt: skip
    assert "<script" not in made.decode().lower()


def strict_json(data):
    value = canon.parse(data, "f")
    once = canon.dumps(value)
    with holds():
        assert canon.dumps(canon.parse(once, "f")) == once
    assert canon.dumps(json.loads(data)) == once


def loose_toml(data):
    toml.parse(data, "f")


def manifest(data):
    for text in (_mended(data, "tensors"), data):
        with _refusals(told=text is data):
            assert Manifest.from_bytes(text, "f").to_bytes() == text


def lock(data):
    for text in (_mended(data, "lock"), data):
        with _refusals(told=text is data):
            assert Lock.from_bytes(text, "f").to_bytes() == text


def removal(data):
    for text in (_mended(data), data):
        with _refusals(told=text is data):
            assert Removal.from_bytes(text, "f").to_bytes() == text


def recipe(data):
    found = Recipe.from_bytes(data, "f")
    with holds():
        if len(data) <= toml.MAX_BYTES // 4:  # tables of their own take more room than those in lines
            assert Recipe.from_bytes(found.to_bytes(), "f") == found
        assert Recipe.from_json(json.loads(json.dumps(found.to_json())), "f").digest == found.digest


def name_rule(data):
    text = data.decode(errors="replace")
    found = NameRule.parse(text)
    with holds():
        assert NameRule.parse(str(found)) == found


def config(data):
    found = Config.from_bytes(data, "f")
    with holds():
        assert Config.from_bytes(found.to_bytes(), "f") == found


def settings(data):
    Settings.from_bytes(data, "f")


def pattern(data):
    text, _, name = data.decode(errors="replace").partition("\n")
    try:
        found = regex.Pattern(text)
    except ValueError:
        return
    matched = found.matches(name)
    if len(text) + len(name) < 14:  # short enough for backtracking
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a later Python may read in another way
            assert matched == (re.fullmatch(text, name, re.ASCII) is not None)


def tensor_object(data):
    found = Encoded.parse(memoryview(data), "f")
    total = found.spec.nbytes
    if total > LARGEST:
        found.decode_into(bytearray(container.CHUNK), seeds.noise(container.CHUNK) if found.needs_base else None)
    else:
        out = bytearray(total)
        found.decode_into(out, seeds.noise(total) if found.needs_base else None)
        again = bytearray(total)
        with holds():
            found.decode_into(again, seeds.noise(total) if found.needs_base else None)
        assert out == again


def bundle(data):
    views = container.members(memoryview(data), "f")
    assert container.bundle([bytes(view) for view in views]) == data


def chunk(data):
    """Bodies and sides without the header and the checksums before them, which keep most mutations out."""
    if len(data) < 5:
        return
    name, spec = seeds.shaped(*data[:3])
    cut = 5 + int.from_bytes(data[3:5], "little")
    side, body = data[5:cut], data[cut:]
    coder = codec_named(name).parse(spec, memoryview(side))
    base, out = (words_of(memoryview(bytearray(seeds.noise(spec.nbytes))), spec.itemsize) for _ in range(2))
    coder.decode_chunk(0, memoryview(body), base if coder.uses_base else None, out)
    assert base.tobytes() == seeds.noise(spec.nbytes)


def round_trip(data):
    """Encode what the input says, over and over to fill a tensor, and decode it again."""
    if len(data) < 5:
        return
    name, spec = seeds.shaped(*data[:3])
    level = ("fast", "default", "best")[data[3] % 3]
    repeated = data[4:] * (spec.nbytes // len(data[4:]) + 1)
    target, base = repeated[: spec.nbytes], repeated[1:][: spec.nbytes].ljust(spec.nbytes, b"0")
    with holds(), contextlib.suppress(Unsuited):
        stored = b"".join(encode(spec, target, base, name, level))
        out = bytearray(spec.nbytes)
        Encoded.parse(memoryview(stored), "f").decode_into(out, base)
        assert codec_named(name).lossy or bytes(out) == target
        assert stored == b"".join(encode(spec, target, base, name, level))


def cached_state(data):
    """As it stands, and with the checksums that its own header and data need."""
    key, room = "a" * 64, _room("cache")
    for content in (data, _checksummed(data)):
        (room / key).write_bytes(content)
        found = Cache(room, room / "tmp", 2**30)
        found.get(key, memoryview(bytearray(64)))
        assert isinstance(forget(room, ["task"]), list)


def outputs(data):
    path = _room("outputs") / "outputs"
    path.write_bytes(data)
    for entry in checkouts._entries(path):
        again = None if entry.request is None else asked.from_json(asked.to_json(entry.request))
        assert again == entry.request


def pending(data):
    room = _room("git")
    (room / "wvc/commit").mkdir(parents=True, exist_ok=True)
    (room / "wvc/commit/pending.json").write_bytes(data)
    git = SimpleNamespace(git_dir=room, work_tree=room, is_ancestor=lambda *_: True)
    for path in refresh.pending(git):
        with contextlib.suppress(WeightvcError):
            assert refresh.target(git, path).is_relative_to(room / ".wvc")


def small_file(data):
    path = _room("file") / "f"
    path.write_bytes(data)
    with contextlib.suppress(Corrupt):
        assert len(read_file(path, "", most=1000)) <= 1000


def scores(data):
    try:
        found = evaluator._scores(evaluator._printed(io.BytesIO(data)))
    except BadInput:
        return
    assert all(isinstance(name, str) and np.isfinite(number) for name, number in found.items())


def torch_file(data):
    from weightvc.checkpoint.pickled import TorchFiles

    room = _room("torch")
    (room / "m.pt").write_bytes(data)
    found = TorchFiles(room, ["m.pt"])
    for name, spec in found.shards["m.pt"].items():
        assert len(found.read("m.pt", name)) == spec.nbytes


@contextlib.contextmanager
def _refusals(*, told):
    """Let what an input is refused with through if it is the input itself, and not one that was made of it here."""
    try:
        yield
    except WeightvcError:
        if told:
            raise


def _mended(data, kind=""):
    """Give a document the form, and the digest, that its contents need, so that mutations get past them."""
    try:
        value = json.loads(data)
        if kind == "tensors":
            lines = [(line["name"], line["digest"]) for line in value["tensors"]]
            value["version"] = version_of(lines, value.get("updates", []))
        elif kind == "lock":
            lines = [(t["name"], t["digest"]) for t in value["tensors"] if not t["file"].startswith("heads/")]
            value["digest"] = version_of(lines)
        return canon.document(value)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return data


def _measured(data):
    text, end = data[8 : data.rfind(b"}") + 1], 0
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        value = json.loads(text)
        end = min(max(line["data_offsets"][1] for name, line in value.items() if name != "__metadata__"), 10_000)
    return struct.pack("<Q", len(text)) + text + bytes(max(0, end) if isinstance(end, int) else 0)


def _checksummed(data):
    text, _, rest = data.partition(b"\n")
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        value = json.loads(text)
        text = canon.dumps({**value, "sum": xxhash.xxh3_128_hexdigest(rest)})
    head = struct.pack("<16sI", b"weightvc cache 1", len(text)) + text
    return head + xxhash.xxh3_128_digest(head) + rest


def _room(name):
    path = ROOM / name
    path.mkdir(exist_ok=True)
    return path


PARSERS = {
    "adapter_config": Parser(adapter_config, seeds.adapter_configs),
    "adapter_names": Parser(adapter_names, seeds.adapter_names),
    "bundle": Parser(bundle, seeds.bundles),
    "cached_state": Parser(cached_state, seeds.cached_states),
    "card": Parser(model_card, seeds.cards),
    "chunk": Parser(chunk, seeds.chunks),
    "config": Parser(config, seeds.configs),
    "header": Parser(header, seeds.headers),
    "index": Parser(index, seeds.indexes),
    "json": Parser(strict_json, seeds.documents),
    "lock": Parser(lock, seeds.locks),
    "manifest": Parser(manifest, seeds.manifests),
    "object": Parser(tensor_object, seeds.objects),
    "outputs": Parser(outputs, seeds.outputs),
    "pattern": Parser(pattern, seeds.patterns),
    "pending": Parser(pending, seeds.pendings),
    "recipe": Parser(recipe, seeds.recipes),
    "removal": Parser(removal, seeds.removals),
    "round_trip": Parser(round_trip, seeds.tensors, 2**34),  # atheris keeps arrays that are compared; weightvc does not
    "rule": Parser(name_rule, seeds.rules),
    "scores": Parser(scores, seeds.scores),
    "settings": Parser(settings, seeds.settings),
    "small_file": Parser(small_file, seeds.documents),
    "toml": Parser(loose_toml, seeds.tomls),
    "torch": Parser(torch_file, seeds.torch_files),
}
