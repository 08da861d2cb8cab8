"""What the fuzzers begin from: what weightvc itself writes, one small thing of each kind."""

import hashlib
import io
import json
import struct
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from weightvc.checkpoint.card import CardTask, merge_card
from weightvc.delta import container
from weightvc.delta.codec import CODECS as BUILT_IN
from weightvc.delta.codec import codec_named
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.pair import Pair
from weightvc.objects.config import Config
from weightvc.objects.lock import Lock, TensorLine
from weightvc.objects.loss import Loss
from weightvc.objects.manifest import Entry, Manifest, Parent, Place
from weightvc.objects.recipe import NameRule, Recipe, Weighted
from weightvc.objects.removal import Removal
from weightvc.objects.scores import Score
from weightvc.objects.tensors import BITS, TensorSpec
from weightvc.objects.updates import Update
from weightvc.repo import asked
from weightvc.repo.resolve import Request
from weightvc.store.cache import Cache
from weightvc.util import canon

CODECS = (*BUILT_IN, "svd:4")
DTYPES = ("F32", "BF16", "F16", "U8")
GOLDEN = Path(__file__).parents[1] / "golden/objects-1"
UUID = "076b1974-cdac-4648-ab83-22cbf1b986cc"
TIME = "2026-01-31T09:30:00.000000Z"
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


@cache
def noise(size):
    """Return the base of whatever is decoded: finite floats of every width, the same for ever."""
    return bytes(byte & 0x3F for byte in hashlib.shake_128(b"noise").digest(size))


def moved(size):
    """Return what a fine-tune made of the base: a few rows of it moved."""
    return bytes(byte ^ (at % 8 == 0 and at < 500) for at, byte in enumerate(noise(size)))


def headers():
    lines, end = {}, 0
    for name, dtype in (("a", "F32"), ("b", "BF16"), ("c.weight", "F4")):
        size = BITS[dtype]
        lines[name] = {"dtype": dtype, "shape": [2, 4], "data_offsets": [end, end + size]}
        end += size
    every = {d: {"dtype": d, "shape": [8], "data_offsets": [0, 0]} for d in BITS}
    at = 0
    for d, line in every.items():
        line["data_offsets"] = [at, at := at + BITS[d]]
    made = [({}, 0), ({"__metadata__": {"format": "pt"}, **lines}, end), (every, at)]
    made += [({"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, 4)]
    texts = [(json.dumps(value, separators=(",", ":")).encode(), size) for value, size in made]
    return [struct.pack("<Q", len(text)) + text + bytes(size) for text, size in texts]


def indexes():
    shard = "model-00001-of-00001.safetensors"
    return [json.dumps({"metadata": {"total_size": 8}, "weight_map": places}).encode() for places in ({"a": shard}, {})]


def adapter_configs():
    plain = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    more = {"alpha_pattern": {"q_proj": 4, "^k": 2.5, r"model\.layers": 1}, "use_rslora": True, "rank_pattern": {}}
    return [json.dumps(value).encode() for value in (plain, plain | more, plain | {"use_dora": True})]


def adapter_names():
    start = "base_model.model.layers.0.q"
    pairs = [start + ending for ending in (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".base_layer.bias")]
    return ["\n".join(pairs[:2]).encode(), "\n".join(pairs).encode()]


def cards():
    head = b"---\nlicense: [mit, gpl-3.0]\nbase_model: org/model\nlibrary_name: transformers\n---\n# A model\n"
    task = CardTask("support", 0.5, A, head)
    return [head, merge_card(base="b", base_card=head, tasks=[task], method="ties", params={"density": 0.5})]


def manifests():
    same = Entry(TensorSpec("embed", "BF16", (4, 2)), A, "same", "embed")
    delta = Entry(TensorSpec("model.h", "F32", (2, 2)), B, "delta", "h", Place("intdelta", C, 112, 0))
    lossy = replace(delta, lossy=Loss(A, 0.125, 3e-05))
    whole = Entry(TensorSpec("score", "F32", ()), C, "whole", None, Place("raw", D, 70))
    factors = (
        Entry(TensorSpec("up.A", "F32", (4, 8)), A, "whole", None, Place("full", D, 70)),
        Entry(TensorSpec("up.B", "F16", (6, 4)), B, "whole", None, Place("full", D, 70)),
    )
    files = (Entry(TensorSpec("config.json", "U8", (3,)), A, "same", "config.json"),)
    head = (Entry(TensorSpec("model.safetensors", "U8", (9,)), D, "whole", None, Place("intdelta", C, 140, 1)),)
    base = Manifest((whole,), (), head, "torch")
    known = {"source": "safetensors", "task": "support", "uuid": UUID, "added": TIME, "base": A}
    task = Manifest((same, delta, whole), files, head, **known, lineage=(Parent("older", UUID, B),), nonfinite=2)
    lora = replace(task, tensors=(same, delta, whole, *factors), updates=(Update("up", "up.A", "up.B", 2.0),))
    scored = replace(task, tensors=(same, lossy, whole), scores=(Score("accuracy", 0.5, 0.75, 0.7),))
    return [each.to_bytes() for each in (base, task, lora, scored)]


def _recipes():
    tasks = (Weighted("support"), Weighted("sales", 0.7))
    rules = (NameRule(r".*\.bias", "base"), NameRule("head=.*", "ties", {"density": 0.5, "sign": "a,b"}))
    full = Recipe(tasks, "opcm-s", {"alpha": 0.5, "on": True}, "F32", "base", rules)
    return [Recipe(()), Recipe(tasks), full]


def recipes():
    return [each.to_bytes() for each in _recipes()]


def locks():
    lines = (
        TensorLine("model.safetensors", "w", A, "projected", (1, 3)),
        TensorLine("model.safetensors", "b", B, "base"),
        TensorLine("heads/support.safetensors", "score", C, "task"),
    )
    made = Lock(
        wvc="0.1.0",
        environment={"torch": "2.13.0", "cpu": "AVX2"},
        commit="e" * 40,
        base=A,
        recipe=_recipes()[2],
        tasks=(Parent("support", UUID, B), Parent("sales", UUID, C)),
        files={"model.safetensors": C, "heads/support.safetensors": D, "config.json": A},
        tensors=lines,
        max_shard_size=5_000_000_000,
        lossy=("sales",),
    )
    return [made.to_bytes(), replace(made, lossy=(), recipe=_recipes()[1]).to_bytes()]


def removals():
    bare = Removal("support", UUID, C, TIME, "b" * 40)
    return [bare.to_bytes(), replace(bare, recipes=("prod",), dependants=("sales",), reason='"§ 7"\n').to_bytes()]


def configs():
    return [Config().to_bytes(), Config("ties", {"density": 0.5, "on": True, "x": "y"}).to_bytes()]


def settings():
    return [b"[cache]\nmax_bytes = 1000000\n", b""]


def tomls():
    return [*recipes(), *configs(), *settings(), b'a.b = [1, 2.5, {c = "d"}]\n[[x.y]]\nz = 2026-01-31T09:30:00Z\n']


def documents():
    return [*manifests()[:1], b'{"a":[1,-2.5e3,true,false,null,"\\u00e9\\n"],"b":{}}', b"[]"]


def rules():
    return [str(rule).encode() for rule in _recipes()[2].rules]


def patterns():
    return [rb".*\.bias" + b"\nlayer.bias", rb"(a|b){2,3}[^x-z\d]+?" + b"\nabq", b"^(?:x*)*$\nxx", b"a\nb"]


@cache
def objects():
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.object"))]
    spec = TensorSpec("t", "F32", (8, 9))
    small = [
        b"".join(encode(spec, moved(spec.nbytes), noise(spec.nbytes), name, level))
        for name in ("raw", "full", "intdelta")
        for level in ("fast", "best")
    ]
    empty = b"".join(encode(TensorSpec("t", "F16", (0,)), b"", None, "raw"))
    return [*small, empty, *(data for data in golden if len(data) < 4096)]


def bundles():
    return [container.bundle([]), container.bundle([b"a", b"bc"]), container.bundle(objects()[:3])]


def shaped(which, rows, columns):
    """Return the codec and the tensor that three bytes stand for; large enough for the lossy codecs."""
    dtype = DTYPES[which // len(CODECS) % len(DTYPES)]
    return CODECS[which % len(CODECS)], TensorSpec("t", dtype, (rows % 65 + 64, columns % 65 + 64))


def spread(size):
    """Return what a fine-tune made of the base: every second byte a little more, so that words are entropy-coded."""
    step = hashlib.shake_128(b"step").digest(size)
    return bytes(byte + (at % 2 == 0) * (step[at] % 4) for at, byte in enumerate(noise(size)))


@cache
def chunks():
    """Return what ``parsers.chunk`` takes: three bytes for :func:`shaped`, the length of the side, side and body."""
    made = []
    for which in range(len(CODECS) * 3):
        name, spec = shaped(which, 0, 0)
        for tuned, level in ((moved, "fast"), (moved, "best"), (spread, "best")):
            pair = Pair(spec, tuned(spec.nbytes), noise(spec.nbytes) if codec_named(name).uses_base else None)
            coder = codec_named(name).fit(pair, level)
            made.append(_chunk(which, (0, 0), coder.side, coder.encode_chunk(0, *pair.chunk(0))))
    for name in ("coded", "decay", "lowrank"):  # predictors are for larger tensors
        found = Encoded.parse(memoryview((GOLDEN / f"{name}.object").read_bytes()), name)
        body = container.frame_at(found._body, found._offsets[0])[1]
        rows, columns = found.spec.shape
        made.append(_chunk(CODECS.index("intdelta"), (rows - 64, columns - 64), found._side, body))
    return [data for data in dict.fromkeys(made) if len(data) <= 10_000]


def _chunk(which, shape, side, body):
    return bytes([which, *shape]) + struct.pack("<H", len(side)) + side + body


def tensors():
    return [bytes([which, 7, 3, level]) + moved(400) for which in range(len(CODECS) * 4) for level in range(3)][::5]


def cached_states():
    with tempfile.TemporaryDirectory() as room:
        Cache(Path(room), Path(room, "tmp"), 2**20).put(A, ["task"], [["0x1p-3"], [4]], memoryview(noise(64)))
        whole = Path(room, A).read_bytes()
    length = struct.unpack_from("<I", whole, 16)[0]
    return [whole, whole[20 : 20 + length] + b"\n" + noise(64)]


def outputs():
    request = Request(tasks=("a", "b=0.5"), method="ties", params={"density": 0.5}, rules=_recipes()[2].rules)
    lines = [["model", ""], ["/x/y", "/x/.git", asked.to_json(request)], ["z", "", {}]]
    return [json.dumps(lines).encode(), b"[]"]


def pendings():
    return [canon.document({"boot": "5", "commit": "e" * 40, "paths": [".wvc/base.json", ".wvc/tasks/a.json"]})]


def scores():
    return [b"loading\n0.75\n", b'{"a": 1, "b": -0.5}', b'{\n"a": 1\n}\n']


@cache
def torch_files():
    import torch

    made = []
    for zipped in (True, False):
        file = io.BytesIO()
        values = {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.bfloat16).T}
        torch.save(values, file, _use_new_zipfile_serialization=zipped)
        made.append(file.getvalue())
    return made


assert np.isfinite(np.frombuffer(noise(4096), np.float32)).all()
