"""Reads a repository by the words of docs/format alone. The reading half imports nothing of weightvc, on purpose.

The second half, below ``EXAMPLES``, holds the pages' examples against the code.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from reader import decode, parts

FORMAT = Path(__file__).parents[2] / "docs" / "format"

WRITER = """
import sys
from pathlib import Path
import weightvc

folder = Path(sys.argv[1])
weightvc.initialize(folder / "repo", folder / "base", jobs=1)
repo = weightvc.open(folder / "repo")
repo.add(folder / "tuned", task="support", jobs=1)
repo.add(folder / "plain", task="raw", codec="raw", jobs=1)
repo.add(folder / "plain", task="near", codec="int4", jobs=1)
repo.add(folder / "adapter", task="lora", jobs=1)
repo.commit("Add support")
repo.checkout(["lora"], dtype="base", output=folder / "merged", jobs=1)
"""
IDENTITY = {f"GIT_{role}_{part}": "t@example.com" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


def save(directory, tensors, file="model.safetensors"):
    """Write a safetensors file: the length, the JSON, the tensors without holes."""
    at, header = 0, {}
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    directory.mkdir()
    data = len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for _, array in tensors.values())
    (directory / file).write_bytes(data)
    (directory / "config.json").write_text('{"model_type": "bert"}\n')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    rng = np.random.default_rng(5)
    large = rng.normal(size=(700, 300)).astype("<f4")
    halves = rng.integers(0, 0x7F00, (40, 9)).astype("<u2")
    base = {
        "h.bias": ("F32", np.zeros(300, "<f4")),
        "h.ids": ("I64", np.arange(5)),
        "h.norm": ("F32", np.float32(2.5).reshape(())),
        "h.scale": ("BF16", halves),
        "h.weight": ("F32", large),
        "old": ("F32", np.ones(7, "<f4")),
    }
    moved = (large + rng.normal(size=large.shape) * 1e-3).astype("<f4")
    changed = {
        "h.bias": base["h.bias"],
        "h.ids": ("I64", np.arange(5)[::-1].copy()),
        "h.norm": ("F32", np.float32(2.25).reshape(())),
        "h.scale": ("BF16", halves + np.uint16(3)),
        "h.weight": ("F32", moved),
    }
    save(folder / "base", base)
    new = {
        "old": ("F32", np.ones(8, "<f4")),
        "score": ("F16", np.ones((2, 3), "<f2")),
        "none": ("F16", np.ones(0, "<f2")),
    }
    save(folder / "tuned", {f"bert.{name}": item for name, item in changed.items()} | new)
    save(folder / "plain", base | {"h.weight": ("F32", moved)})
    factors = {
        "base_model.model.h.lora_A.weight": ("F32", rng.normal(size=(4, 300)).astype("<f4")),
        "base_model.model.h.lora_B.weight": ("F16", rng.normal(size=(700, 4)).astype("<f2")),
    }
    save(folder / "adapter", factors, "adapter_model.safetensors")
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 0.5}')
    (folder / "tuned" / "tokenizer").mkdir()
    (folder / "tuned" / "tokenizer" / "vocab.txt").write_text("a\nb\n" * 3000)
    (folder / "tuned" / "config.json").write_text('{"model_type": "bert", "num_labels": 2}\n')
    environment = {key: item for key, item in os.environ.items() if not key.startswith("GIT_")} | IDENTITY
    subprocess.run([sys.executable, "-c", WRITER, folder], check=True, env=environment)
    return folder


# From README.md: canonical JSON and canonical documents.


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def document(data):
    value = json.loads(data)
    members = []
    for name in sorted(value):
        item = value[name]
        text = canonical(item)
        if isinstance(item, list) and item:
            text = "[\n" + ",\n".join(canonical(line) for line in item) + "\n]"
        members.append(f"{canonical(name)}:{text}")
    assert ("{\n" + ",\n".join(members) + "\n}\n").encode() == data
    return value


def member(data, part):
    header, body = parts(data, 2)
    start = sum(header["sizes"][:part])
    return body[start : start + header["sizes"][part]]


# From manifest.md and store.md.


def digest(dtype, shape, raw):
    return blake3(f"{dtype} {','.join(map(str, shape))}\n".encode() + raw).hexdigest()


def version(manifest):
    pairs = [[line["name"], line["digest"]] for line in manifest["tensors"]]
    return hashlib.sha256(canonical(sorted(pairs) + manifest.get("updates", [])).encode()).hexdigest()


class Reader:
    def __init__(self, repository):
        self.objects = repository / ".git" / "wvc" / "objects"
        self.base = document((repository / ".wvc" / "base.json").read_bytes())
        self.needed_base = []

    def line_of_base(self, kind, line):
        (found,) = [other for other in self.base[kind] if other["name"] == line.get("of", line["name"])]
        assert (found["dtype"], found["shape"]) == (line["dtype"], line["shape"])
        return found

    def get(self, kind, line):
        if line["state"] == "same":
            other = self.line_of_base(kind, line)
            assert other["digest"] == line["digest"]
            return self.get(kind, other)
        data = (self.objects / line["object"][:2] / line["object"][2:]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["object"]
        if "part" in line:
            data = member(data, line["part"])
        assert len(data) == line["size"]
        header, _ = parts(data, 1)
        assert [header[key] for key in ("dtype", "shape", "codec")] == [
            line[key] for key in ("dtype", "shape", "codec")
        ]
        base = None
        if header["codec"] in {"intdelta", "int4"}:
            assert line["state"] == "delta"
            self.needed_base.append(line["name"])
            base = self.get(kind, self.line_of_base(kind, line))
        _, _, raw = decode(data, base)
        assert digest(line["dtype"], line["shape"], raw) == line["digest"]
        return raw

    def rebuild(self, manifest):
        """Return every file of the checkpoint, by path."""
        tensors = {line["name"]: self.get("tensors", line) for line in manifest["tensors"]}
        files = {line["name"]: self.get("files", line) for line in manifest["files"]}
        for line in manifest["headers"]:
            header = self.get("headers", line)
            assert int.from_bytes(header[:8], "little") == len(header) - 8
            places = {name: item["data_offsets"] for name, item in json.loads(header[8:]).items()}
            files[line["name"]] = header + b"".join(tensors[name] for name in sorted(places, key=places.get))
        return files


@pytest.mark.parametrize(
    ("task", "source"), [("support", "tuned"), ("raw", "plain"), (None, "base"), ("lora", "adapter")]
)
def test_every_file_is_rebuilt_by_the_pages_alone(folder, task, source):
    reader = Reader(folder / "repo")
    path = f"tasks/{task}.json" if task else "base.json"
    manifest = document((folder / "repo" / ".wvc" / path).read_bytes())
    assert (manifest["schema"], manifest["task"]) == ("weightvc/manifest/1", task)
    assert manifest["features"] == (["updates"] if task == "lora" else [])
    assert manifest["version"] == version(manifest)
    assert manifest["base"] == (reader.base["version"] if task else None)
    root = folder / source
    assert reader.rebuild(manifest) == {
        file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


def test_all_states_were_met(folder):
    reader = Reader(folder / "repo")
    manifest = document((folder / "repo" / ".wvc" / "tasks" / "support.json").read_bytes())
    states = {line["name"]: (line["state"], line.get("of"), "part" in line) for line in manifest["tensors"]}
    assert states == {
        "bert.h.bias": ("same", "h.bias", False),
        "bert.h.ids": ("delta", "h.ids", True),
        "bert.h.norm": ("delta", "h.norm", True),
        "bert.h.scale": ("delta", "h.scale", True),
        "bert.h.weight": ("delta", "h.weight", False),
        "none": ("whole", None, True),
        "old": ("whole", None, True),
        "score": ("whole", None, True),
    }
    reader.rebuild(manifest)
    assert sorted(reader.needed_base) == ["bert.h.ids", "bert.h.norm", "bert.h.scale", "bert.h.weight"]
    raw = document((folder / "repo" / ".wvc" / "tasks" / "raw.json").read_bytes())
    (moved,) = [line for line in raw["tensors"] if line["state"] != "same"]
    assert (moved["name"], moved["state"], moved["codec"]) == ("h.weight", "delta", "raw")
    assert [line["state"] for line in raw["files"] + raw["headers"]] == ["same", "same"]
    assert [line["state"] for line in manifest["files"]] == ["whole", "whole"]
    assert {line["state"] for kind in ("tensors", "files", "headers") for line in reader.base[kind]} == {"whole"}


def test_what_was_lost_is_as_stated(folder):
    reader = Reader(folder / "repo")
    near, raw = (document((folder / "repo" / ".wvc" / f"tasks/{task}.json").read_bytes()) for task in ("near", "raw"))
    (line,) = [line for line in near["tensors"] if "lossy" in line]
    (same,) = [line for line in raw["tensors"] if line["state"] != "same"]
    assert (line["name"], line["codec"], line["state"]) == ("h.weight", "int4", "delta")
    assert line["lossy"]["original"] == same["digest"] != line["digest"]
    lines = line, same, reader.line_of_base("tensors", line)
    returned, added, base = (np.frombuffer(reader.get("tensors", at), "<f4").astype(np.float64) for at in lines)
    error = returned - added
    assert line["lossy"]["relative"] == float(f"{np.linalg.norm(error) / np.linalg.norm(added - base):.6g}")
    assert line["lossy"]["maximum"] == float(f"{np.abs(error).max():.6g}")


def test_an_update_is_a_product_of_its_factors(folder):
    reader = Reader(folder / "repo")
    lora = document((folder / "repo" / ".wvc" / "tasks" / "lora.json").read_bytes())
    (update,) = lora["updates"]
    lines = {line["name"]: line for line in lora["tensors"]}
    kinds = {"F32": "<f4", "F16": "<f2"}
    a, b = (
        np.frombuffer(reader.get("tensors", line), kinds[line["dtype"]]).astype(np.float64).reshape(line["shape"])
        for line in (lines[update["a"]], lines[update["b"]])
    )
    (base,) = [line for line in reader.base["tensors"] if line["name"] == update["of"]]
    before = np.frombuffer(reader.get("tensors", base), "<f4").reshape(base["shape"])
    after = before + update["scale"] * (b @ a)

    data = (folder / "merged" / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + size])["h.weight"]["data_offsets"]
    found = np.frombuffer(data[8 + size + start : 8 + size + end], "<f4").reshape(base["shape"])

    assert (update["of"], update["scale"], update["transposed"]) == ("h.weight", 0.125, False)
    assert np.abs(found - after).max() < 1e-6
    assert np.abs(found - before).max() > 0.1


def test_the_page_s_digests_are_of_what_it_says():
    page = (FORMAT / "manifest.md").read_text()
    (example,) = fences("manifest.md", "json")
    shown = document(example.encode())
    assert shown["version"] == version(shown)
    preimage = fences("manifest.md", "")[0].rstrip("\n").encode()
    assert f"the hash of these {len(preimage)} bytes" in page
    assert hashlib.sha256(preimage).hexdigest() == shown["version"]
    zeros = digest("F32", [2], bytes(8))
    assert f"`F32 2\\n` and eight zero bytes, which gives `{zeros}`" in " ".join(page.split())
    assert shown["tensors"][0]["digest"] == zeros


# EXAMPLES: what the pages show is what the code writes and reads.

CHECK = """
import sys
from weightvc.objects.config import Config
from weightvc.objects.lock import Lock
from weightvc.objects.manifest import Manifest
from weightvc.objects.recipe import Recipe
from weightvc.objects.removal import Removal

kind = {"manifest": Manifest, "recipe": Recipe, "lock": Lock, "removal": Removal, "config": Config}[sys.argv[1]]
parsed = kind.from_bytes(sys.stdin.buffer.read(), "example")
sys.stdout.buffer.write(parsed.to_bytes())
if kind is Recipe:
    print(parsed.digest, file=sys.stderr)
"""


def fences(page, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (FORMAT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [text for shown, text in found if shown == language]


def parsed(kind, text):
    return subprocess.run([sys.executable, "-c", CHECK, kind], input=text.encode(), capture_output=True, check=True)


@pytest.mark.parametrize("kind", ["manifest", "recipe", "lock", "removal", "config"])
def test_the_example_is_as_the_code_writes_it(kind):
    (example,) = fences(f"{kind}.md", "toml" if kind in ("recipe", "config") else "json")
    assert parsed(kind, example).stdout.decode() == example


@pytest.mark.parametrize("kind", ["manifest", "lock", "removal"])
def test_the_page_tells_of_every_name(kind):
    page = (FORMAT / f"{kind}.md").read_text()
    example = document(fences(f"{kind}.md", "json")[0].encode())
    lines = [item for value in example.values() if isinstance(value, list) for item in value if isinstance(item, dict)]
    rows = set(re.findall(r"`([a-z_]+)`", " ".join(re.findall(r"^\|([^|]*)\|", page, re.MULTILINE))))
    mentioned = set(re.findall(r'"([a-z_]+)":…', page)) | {"task", "uuid", "version"}
    assert {*example, *(name for line in lines for name in line)} <= rows | mentioned


def test_the_recipe_s_digest_is_of_what_the_page_says():
    (example,) = fences("recipe.md", "toml")
    (preimage,) = fences("recipe.md", "")
    assert (
        parsed("recipe", example).stderr.decode().strip() == hashlib.sha256(preimage.rstrip("\n").encode()).hexdigest()
    )


def test_the_lock_s_digest_leaves_heads_out():
    lock = document(fences("lock.md", "json")[0].encode())
    pairs = [[line["name"], line["digest"]] for line in lock["tensors"] if not line["file"].startswith("heads/")]
    assert hashlib.sha256(canonical(sorted(pairs)).encode()).hexdigest() == lock["digest"]


def test_the_index_names_every_page():
    listed = set(re.findall(r"^\| \[(\w+\.md)\]\(\1\) \|", (FORMAT / "README.md").read_text(), re.MULTILINE))
    assert listed == {page.name for page in FORMAT.glob("*.md")} - {"README.md"}
