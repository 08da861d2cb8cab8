import gc
import json
import os
import resource
import subprocess
import sys
import threading

import pytest

from weightvc.checkpoint.reader import open_checkpoint
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput, NotFound

F = ("F32", (1,), b"abcd")


def test_one_file_of_every_dtype(tmp_path, build, all_dtypes):
    path = tmp_path / "m.safetensors"
    all_dtypes |= {"scalar": ("BF16", (), b"xy"), "empty": ("F64", (0, 7), b"")}
    path.write_bytes(build(all_dtypes))
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.path, checkpoint.kind, checkpoint.extras) == (path, "safetensors", {})
        assert list(checkpoint.tensors) == sorted(all_dtypes)
        assert checkpoint.headers == {
            "m.safetensors": path.read_bytes()[: -sum(len(t[2]) for t in all_dtypes.values())]
        }
        for name, (dtype, shape, raw) in all_dtypes.items():
            assert checkpoint.tensors[name] == TensorSpec(name, dtype, shape)
            assert checkpoint.read(name) == raw
            assert checkpoint.read(name).readonly


def test_a_sharded_directory(model, build):
    places = {"b": "1.safetensors", "a": "2.safetensors"}
    root = model(
        {
            "model.safetensors.index.json": json.dumps({"weight_map": places}).encode(),
            "1.safetensors": build({"b": F}, format="pt"),
            "2.safetensors": build({"a": ("U8", (2,), b"xy")}),
            "tok/vocab.txt": b"hello",
        }
    )
    with open_checkpoint(root) as checkpoint:
        assert list(checkpoint.tensors) == ["a", "b"]
        assert [bytes(checkpoint.read(name)) for name in "ab"] == [b"xy", b"abcd"]
        assert list(checkpoint.headers) == ["1.safetensors", "2.safetensors"]
        assert list(checkpoint.extras) == ["model.safetensors.index.json", "tok/vocab.txt"]
        assert checkpoint.extra("tok/vocab.txt") == b"hello"
        with pytest.raises(KeyError):
            checkpoint.extra("../1.safetensors")
        with pytest.raises(KeyError):
            checkpoint.read("c")
        (root / "tok" / "vocab.txt").write_bytes(b"hello!")
        with pytest.raises(BadInput, match=r"tok/vocab\.txt: changed while it was being read"):
            checkpoint.extra("tok/vocab.txt")


def test_a_thousand_tensors_from_many_threads(tmp_path, build):
    tensors = {f"layer.{i}.w": ("I16", (i % 5,), bytes([i % 251]) * (2 * (i % 5))) for i in range(1000)}
    (tmp_path / "m.safetensors").write_bytes(build(tensors))
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        assert len(checkpoint.tensors) == 1000
        wrong = []

        def check():
            wrong.extend(name for name, (_, _, raw) in tensors.items() if checkpoint.read(name) != raw)

        threads = [threading.Thread(target=check) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_views_outlive_the_checkpoint_and_maps_go_with_them(tmp_path, build):
    path = tmp_path / "m.safetensors"
    path.write_bytes(build({"a": F}))
    with open_checkpoint(path) as checkpoint:
        view = checkpoint.read("a")
    assert view == b"abcd"
    with pytest.raises(ValueError, match="this checkpoint is closed"):
        checkpoint.read("a")
    with pytest.raises(ValueError, match="this checkpoint is closed"):
        checkpoint.extra("a")

    def mapped():
        with open("/proc/self/maps") as maps:
            return str(path) in maps.read()

    assert mapped()
    del view
    gc.collect()
    assert not mapped()


def test_reading_copies_nothing(tmp_path):
    path = tmp_path / "m.safetensors"
    size = 2**30
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a hole on disk: no space, and no pages until they are touched
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_checkpoint(path) as checkpoint:
        view = checkpoint.read("a")
        assert len(view) == size
        assert view[-1] == 0
        del view
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_cache_of_links(tmp_path, build):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snap").mkdir()
    (tmp_path / "blobs" / "0123").write_bytes(build({"a": F}))
    (tmp_path / "blobs" / "4567").write_bytes(b"{}")
    (tmp_path / "snap" / "model.safetensors").symlink_to("../blobs/0123")
    (tmp_path / "snap" / "config.json").symlink_to("../blobs/4567")
    with open_checkpoint(tmp_path / "snap") as checkpoint:
        assert checkpoint.read("a") == b"abcd"
        assert checkpoint.extras == {"config.json": 2}


def test_refusals(tmp_path, wrap, model, monkeypatch):
    def words(path, kind=BadInput):
        with pytest.raises(kind) as caught:
            open_checkpoint(path)
        assert caught.value.hint
        return caught.value.what.replace(str(path), "PATH")

    path = tmp_path / "m.safetensors"
    assert words(path, NotFound) == "PATH: no such file or directory"
    path.write_bytes(wrap({}))
    assert words(path) == "PATH: a checkpoint with no tensors"
    path.write_bytes(b"")
    assert words(path) == "PATH: 0 bytes, too short for a safetensors file"
    path.unlink()
    os.mkfifo(path)
    assert words(path) == "PATH: not a regular file"
    (tmp_path / "x.json").write_bytes(b"{}")
    assert words(tmp_path / "x.json").startswith("PATH: not a .safetensors, .bin, .pt or .pth file")
    root = model({"model.safetensors": wrap({})})
    assert words(root) == "PATH: a checkpoint with no tensors"

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert words(root) == "PATH: cannot be read (Permission denied)"


def test_safetensors_need_no_torch(tmp_path, build):
    (tmp_path / "m.safetensors").write_bytes(build({"a": F}))
    code = (
        "import sys, pathlib, weightvc.checkpoint.writer, weightvc.checkpoint.card\n"
        "from weightvc.checkpoint.reader import open_checkpoint\n"
        "c = open_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "print(bytes(c.read('a')), sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.safetensors"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "b'abcd' []\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("readme.md", "README.md"), "'README.md' and 'readme.md' cannot both be files of one directory"),
        (("Model.safetensors.",), ""),
        (("MODEL.safetensors/x",), "'model.safetensors' and 'MODEL.safetensors/x' cannot both be files"),
        (("WVC.lock.json",), "'WVC.lock.json' is a name that wvc or git keeps for itself"),
    ],
)
def test_files_that_could_not_be_written_again_are_refused(model, build, files, words):
    root = model({"model.safetensors": build({"a": ("U8", (1,), b"x")}), **dict.fromkeys(files, b"")})
    if not words:
        assert list(open_checkpoint(root).extras) == list(files)
        return
    with pytest.raises(BadInput, match=words) as caught:
        open_checkpoint(root)
    assert str(root) in caught.value.what
