import itertools
import json
import os
import threading

import pytest
import safetensors
import safetensors.torch
import torch

from weightvc.checkpoint.header import parse_header
from weightvc.checkpoint.pickled import DTYPES
from weightvc.checkpoint.reader import open_checkpoint
from weightvc.checkpoint.writer import Layout, Writer, write_extra
from weightvc.objects.tensors import TensorSpec
from weightvc.util import fsio
from weightvc.util.errors import BadInput


def specs_of(tensors):
    return [TensorSpec(name, dtype, tuple(shape)) for name, (dtype, shape, _) in tensors.items()]


def put(directory, layout, tensors):
    with Writer(directory, layout) as writer:
        for name, (_, _, raw) in tensors.items():
            writer.write(name, raw)
        writer.finish()


def torch_tensors():
    tensors = {}
    for dtype, name in DTYPES.items():
        data = torch.arange(16, dtype=torch.uint8) % 2 if name == "BOOL" else torch.arange(64, 128, dtype=torch.uint8)
        tensors[f"w.{name}"] = data.view(dtype).reshape(4, -1)
        tensors[f'v.{name}.é"\\'] = data.view(dtype).clone()
    return tensors | {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 5),
        "e.u8": torch.zeros(3, 0, dtype=torch.uint8),
    }


def as_raw(tensors):
    result = {}
    for name, tensor in tensors.items():
        dtype = DTYPES[tensor.dtype]
        shape = (*tensor.shape[:-1], 2 * tensor.shape[-1]) if dtype == "F4" else tuple(tensor.shape)
        result[name] = (dtype, shape, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return result


def test_our_files_are_the_library_s_files_byte_for_byte(tmp_path):
    tensors = torch_tensors()
    safetensors.torch.save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    raw = as_raw(tensors)
    put(tmp_path, Layout.pack(specs_of(raw), 2**30), raw)
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_the_library_reads_what_we_write(tmp_path):
    # safetensors 0.8 writes F8_E8M0 and F4 from torch and cannot read them back into it.
    tensors = {k: v for k, v in torch_tensors().items() if DTYPES[v.dtype] not in ("F8_E8M0", "F4")}
    raw = as_raw(tensors)
    put(tmp_path, Layout.pack(specs_of(raw), 2**30), raw)
    loaded = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert loaded[name].reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))


def test_every_dtype_comes_back(tmp_path, all_dtypes):
    put(tmp_path, Layout.pack(specs_of(all_dtypes), 2**30), all_dtypes)
    theirs = dict(safetensors.deserialize((tmp_path / "model.safetensors").read_bytes()))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors == {spec.name: spec for spec in sorted(specs_of(all_dtypes))}
        for name, (_, _, raw) in all_dtypes.items():
            assert checkpoint.read(name) == raw == bytes(theirs[name]["data"])


def test_every_tensor_is_aligned(all_dtypes):
    (file,) = Layout.pack(specs_of(all_dtypes), 2**30).files
    assert len(file.header) % 8 == 0
    assert all(slot.start % slot.spec.itemsize == 0 for slot in file.slots.values())


def test_packing_is_a_function_of_the_specs(all_dtypes):
    specs = specs_of(all_dtypes)
    assert Layout.pack(specs[::-1], 40) == Layout.pack(specs, 40)


def u8(name, size):
    return TensorSpec(name, "U8", (size,))


def test_shards(tmp_path):
    specs = [u8("c", 10), u8("a", 6), u8("b", 4), u8("d", 30), u8("e", 0), u8("f", 1)]
    layout = Layout.pack(specs, 10, stem="net")
    assert [(file.name, sorted(file.slots)) for file in layout.files] == [
        ("net-00001-of-00004.safetensors", ["a", "b"]),
        ("net-00002-of-00004.safetensors", ["c"]),
        ("net-00003-of-00004.safetensors", ["d"]),
        ("net-00004-of-00004.safetensors", ["e", "f"]),
    ]
    put(tmp_path, layout, {spec.name: ("U8", spec.shape, bytes([i]) * spec.nbytes) for i, spec in enumerate(specs)})
    assert (tmp_path / "net.safetensors.index.json").read_bytes() == layout.index()
    index = json.loads(layout.index())
    assert index["metadata"] == {"total_size": 51}
    assert index["weight_map"]["f"] == "net-00004-of-00004.safetensors"
    assert list(index["weight_map"]) == ["a", "b", "c", "d", "e", "f"]
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("d") == bytes([3]) * 30
    assert [file.name for file in Layout.pack(specs, 51).files] == ["model.safetensors"]
    assert Layout.pack(specs, 51).index() is None
    assert len(Layout.pack(specs, 50).files) == 2


def test_refuses_to_pack():
    for specs in ([], [u8("a", 1), u8("a", 2)]):
        with pytest.raises(BadInput, match="model: no tensors to write, or one name twice"):
            Layout.pack(specs, 10)


def test_verbatim_gives_the_very_files_back(tmp_path, build, model):
    files = {
        "x-1.safetensors": build({"b": ("U8", (3,), b"abc"), "a": ("F32", (1,), b"defg")}, format="np", who="me"),
        "x-2.safetensors": build({"c": ("F64", (), b"12345678"), "z": ("I8", (0,), b"")}),
    }
    places = {"a": "x-1.safetensors", "b": "x-1.safetensors", "c": "x-2.safetensors", "z": "x-2.safetensors"}
    files["x.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    root = model(files)
    with open_checkpoint(root) as checkpoint:
        layout = Layout.verbatim(checkpoint.headers)
        assert layout.index() is None
        with Writer(tmp_path, layout) as writer:
            for name in checkpoint.tensors:
                writer.write(name, checkpoint.read(name))
            writer.finish()
        for path in checkpoint.extras:
            write_extra(tmp_path, path, [checkpoint.extra(path)])
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_verbatim_refuses(build):
    def words(headers):
        with pytest.raises(BadInput) as caught:
            Layout.verbatim(headers)
        return caught.value.what

    header = build({"a": ("U8", (0,), b"")})
    for name in ("../x.safetensors", "a/b", "/x", "..", ".", "", "a\\b", "a\0"):
        assert "cannot name a weight file" in words({name: header})
    assert words({"1": header, "2": header}) == "2: holds tensors that 1 holds too: a"
    assert words({"1": header + b"x"}) == "1: more bytes than one header"
    assert words({"1": b""}).startswith("1: 0 bytes, too short")


@pytest.fixture
def two():
    return Layout.pack([u8("a", 100), u8("b", 100)], 100)


def test_pieces_from_many_threads(tmp_path, two):
    wanted = {"a": os.urandom(100), "b": os.urandom(100)}
    with Writer(tmp_path, two) as writer:

        def put_piece(name, at):
            writer.write(name, memoryview(wanted[name])[at : at + 10], at)

        threads = [threading.Thread(target=put_piece, args=job) for job in itertools.product("ab", range(0, 100, 10))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.finish()
    with open_checkpoint(tmp_path) as checkpoint:
        assert {name: bytes(checkpoint.read(name)) for name in "ab"} == wanted


def test_leaving_without_finish_removes_everything(tmp_path, two):
    with Writer(tmp_path, two) as writer:
        writer.write("a", bytes(100))
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), Writer(tmp_path, two):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_incomplete_tensors_are_not_finished(tmp_path, two):
    with Writer(tmp_path, two) as writer:
        writer.write("a", bytes(100))
        writer.write("b", bytes(99))
        with pytest.raises(ValueError, match="not written completely: b"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_do_not_fit(tmp_path, two):
    with Writer(tmp_path, two) as writer:
        for data, offset in ((bytes(101), 0), (b"x", 100), (b"x", -1)):
            with pytest.raises(ValueError, match="do not fit into 100"):
                writer.write("a", data, offset)
        with pytest.raises(KeyError):
            writer.write("c", b"")


def test_an_existing_file_is_left_alone(tmp_path, two):
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Writer(tmp_path, two)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_any_failing_write_leaves_nothing_behind(tmp_path, two, monkeypatch):
    class Failing(fsio.Ops):
        left = 0

        def step(self):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")

        def create(self, path):
            self.step()
            return super().create(path)

        def pwrite(self, fd, data, offset):
            self.step()
            return super().pwrite(fd, data, offset)

        def fsync(self, fd):
            self.step()
            super().fsync(fd)

    failing = Failing()
    monkeypatch.setattr(fsio, "ops", failing)
    for n in range(100):
        failing.left = n
        try:
            put(tmp_path, two, {"a": ("", (), bytes(100)), "b": ("", (), bytes(100))})
        except OSError:
            assert list(tmp_path.iterdir()) == []
        else:
            break
    assert n == 12  # 3 files made, 2 tensors, 2 headers and the index written, 3 files and the directory forced to disk
    assert parse_header(memoryview((tmp_path / two.files[0].name).read_bytes()), "m").tensors.keys() == {"a"}


def test_empty_views_of_any_shape(tmp_path):
    with Writer(tmp_path, Layout.pack([TensorSpec("a", "F32", (0, 3))], 10)) as writer:
        writer.write("a", torch.zeros(0, 3).numpy().data)
        writer.finish()
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("a") == b""


def test_extras_stay_inside(tmp_path):
    write_extra(tmp_path, "1_Pooling/deep/config.json", [b"{", b"}"])
    assert (tmp_path / "1_Pooling" / "deep" / "config.json").read_bytes() == b"{}"
    for path in ("../x", "/etc/x", "a/../../x", "a//b", "", ".", "a\\b", "a\0b"):
        with pytest.raises(BadInput, match="is not a path inside a model directory"):
            write_extra(tmp_path, path, [])
    with pytest.raises(BadInput, match=r"'1_Pooling/deep/config\.json' is in this model directory already"):
        write_extra(tmp_path, "1_Pooling/deep/config.json", [])
