"""Inputs of a given size for every parser: one thing over and over, and what it takes the most time for."""

import json
import struct

import seeds

from weightvc.delta import container
from weightvc.util import canon

UNITS = (
    b"[", b'{"a":', b'"', b"\\", b"\\u00e9", b"a",
    b"a.", b"1", b"9,", b",", b"\n", b" ", b"#", b"---\n", b"- [a, &b ",
    b"\0", b"\xff", b"\xc3\xa9", b"a=1\n", b"[a]\n", b"[[a]]\n", b"a.b=1\n", b"(a*)*", b"(", b"a|", b"[a-z]",
    b"\x80\x02",
    b"license: [", b"x.lora_A.weight\nx.lora_B.weight\n", b"=", b"a\\=", b"'", b'"""', b"a = [",
    b"PK\x03\x04",
)  # fmt: skip


def repeated(size):
    """Return one input for each unit, each after the text that begins what weightvc writes."""
    return [(unit * (size // len(unit) + 1))[:size] for unit in UNITS]


def filled(size, line, before=b"", after=b"", between=b","):
    """Return as many lines, each with its number in the place of ``%d``, as fit into ``size`` bytes."""
    parts, left, at = [], size - len(before) - len(after), 0
    while left > 0:
        parts.append(line.replace(b"%d", b"%06d" % at))
        left -= len(parts[-1]) + len(between)
        at += 1
    return before + between.join(parts) + after


def _header(size):
    text = filled(size, b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', b"{", b"}")
    return struct.pack("<Q", len(text)) + text


def _shape(size):
    text = filled(size, b"0", b'{"a":{"dtype":"F32","data_offsets":[0,0],"shape":[', b"]}}")
    return struct.pack("<Q", len(text)) + text


def _document(made, key, line):
    """Return a function that puts lines into a member of a document."""
    before, after = canon.document(json.loads(made) | {key: [0]}).split(b"[\n0\n]")
    return lambda size: filled(size, line, before + b"[\n", b"\n]" + after, b",\n")


def _tensors(size):
    first = json.loads(seeds.manifests()[0])["tensors"][0]
    return _document(seeds.manifests()[0], "tensors", canon.dumps(first | {"name": "t%d"}))(size)


def _adapter(line):
    return lambda size: filled(min(size, 9990 * len(line)), line, b'{"peft_type":"LORA","alpha_pattern":{', b"}}")


def _bundle(size):
    text = filled(size // 2, b"1", b'{"sizes":[', b"]}")
    return struct.pack("<4sBBI", b"WVC\0", 1, 2, len(text)) + text + bytes(text.count(b"1"))


def _frames(size):
    header = {"codec": "raw", "dtype": "U8", "shape": [size // 12 * 2**19], "side": False}
    return container.head(container.Kind.TENSOR, header) + bytes(size // 12 * 12)


RECIPE = b'schema = "weightvc/recipe/1"\nmethod = "ties"\n'
LARGE = {
    "header": [_header, _shape],
    "manifest": [_tensors],
    "lock": [_document(seeds.locks()[1], "files", b'["f%d/x","' + b"a" * 64 + b'"]')],
    "removal": [_document(seeds.removals()[0], "recipes", b'"r%d"')],
    "pending": [_document(seeds.pendings()[0], "paths", b'".wvc/tasks/t%d.json"')],
    "index": [
        (b'"t%d":"model-00001-of-00001.safetensors"', b'{"weight_map":{', b"}}"),
        (b'"t%d":"%d.safetensors"', b'{"weight_map":{', b"}}"),
    ],
    "adapter_config": [_adapter(b'"%d.' + b"a." * 40 + b'":1'), _adapter(b'"x%d":1')],
    "adapter_names": [(b"m%d.lora_A.weight\nm%d.lora_B.weight", b"", b"", b"\n")],
    "recipe": [
        (b'"t%d=0.5"', RECIPE + b"tasks = [", b"]"),
        (b'{pattern="x%d.*",method="ties",params={density=0.5}}', RECIPE + b"tasks = []\nrules = [", b"]"),
    ],
    "outputs": [(b'["m%d","",{"tasks":["a%d"]}]', b"[", b"]")],
    "scores": [(b'"s%d":1', b"{", b"}")],
    "toml": [
        (b"k%d = 1", b"", b"", b"\n"),
        (b"[a.b%d]", b"", b"", b"\n"),
        (b"a.b.c%d.d = 1", b"", b"", b"\n"),
        lambda size: b"a = " + b"[" * (size // 2) + b"]" * (size // 2),
        lambda size: b"a = " + b"{b=" * (size // 4) + b"1" + b"}" * (size // 4),
    ],
    "config": [(b"p%d = 1", b"format = 1\n[merge.params]\n", b"", b"\n")],
    "json": [
        (b'"k%d":%d', b"{", b"}"),
        (b"{}", b"[", b"]"),
        lambda size: b"1." + b"0" * size,
        lambda size: b"1e-" + b"9" * size,
    ],
    "card": [
        lambda size: b"---\nlicense: " + b"[" * 900 + b"\n---\n" + b"# a\n" * (size // 4),
        (b"license: x", b"---\n", b"---\n", b"\n"),
        (b"- a", b"---\nlicense:\n", b"---\n", b"\n"),
        lambda size: b"---\nlicense:" + b"\n" * size,
    ],
    "bundle": [_bundle],
    "object": [_frames],
}
"""Parser to the arguments of :func:`filled`, or functions of a size."""


def inputs(parser, size):
    """Return the large inputs of a parser."""
    own = (made(size) if callable(made) else filled(size, *made) for made in LARGE.get(parser, []))
    return [*repeated(size), *own]
