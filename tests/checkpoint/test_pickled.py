import json
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from weightvc.checkpoint import pickled
from weightvc.checkpoint.pickled import DTYPES
from weightvc.checkpoint.reader import open_checkpoint
from weightvc.objects.tensors import BITS
from weightvc.util.errors import BadInput


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def save(request, tmp_path):
    def put(value, name="m.pt"):
        torch.save(value, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    put.legacy = not request.param
    return put


# The format before PyTorch 1.6 has storages of these only.
CLASSIC = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "C64"}


def refusal(path):
    with pytest.raises(BadInput) as caught:
        open_checkpoint(path)
    assert caught.value.what.startswith(f"{path}: ")
    return caught.value


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_every_dtype(save):
    assert {*DTYPES.values(), "F6_E2M3", "F6_E3M2"} == {*BITS}
    tensors = {DTYPES[d]: torch.arange(32, dtype=torch.uint8).view(d).reshape(2, -1) for d in DTYPES if d != torch.bool}
    tensors["BOOL"] = torch.tensor([[True, False], [False, True]])
    tensors = {name: tensor for name, tensor in tensors.items() if not save.legacy or name in CLASSIC}
    with open_checkpoint(save(tensors)) as checkpoint:
        assert checkpoint.kind == "torch"
        assert checkpoint.headers == {}
        assert list(checkpoint.tensors) == sorted(tensors)
        for name, tensor in tensors.items():
            spec = checkpoint.tensors[name]
            assert spec.dtype == name
            assert spec.shape == ((2, 32) if name == "F4" else tuple(tensor.shape))
            data = checkpoint.read(name)
            assert data == raw(tensor)
            assert data.readonly
            assert data.format == "B"


def test_layouts_that_safetensors_does_not_have(save):
    table = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    complicated = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    tensors = OrderedDict(
        t=table.T,
        tied=table,
        part=table[1:, ::2],
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        wide=torch.tensor([7.0]).expand(2, 3),
        parameter=torch.nn.Parameter(table),
        conj=complicated.conj(),
        bytes=torch.arange(8, dtype=torch.uint8).reshape(2, 4).T,
    )
    with open_checkpoint(save(tensors)) as checkpoint:
        assert checkpoint.read("t") == table.T.contiguous().numpy().tobytes()
        assert checkpoint.read("tied") == checkpoint.read("parameter") == table.numpy().tobytes()
        assert checkpoint.read("part") == table[1:, ::2].numpy().tobytes()
        assert checkpoint.read("scalar") == torch.tensor([2.5]).numpy().tobytes()
        assert checkpoint.tensors["scalar"].shape == ()
        assert checkpoint.read("empty") == b""
        assert checkpoint.read("wide") == torch.full((2, 3), 7.0).numpy().tobytes()
        assert checkpoint.read("conj") == complicated.numpy().conj().tobytes()
        assert checkpoint.read("bytes") == bytes([0, 4, 1, 5, 2, 6, 3, 7])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2])
def test_small_floats_transposed(tmp_path, dtype):
    torch.save({"a": torch.arange(8, dtype=torch.uint8).reshape(2, 4).T.view(dtype)}, tmp_path / "m.pt")
    with open_checkpoint(tmp_path / "m.pt") as checkpoint:
        assert checkpoint.tensors["a"].shape == ((4, 4) if dtype == torch.float4_e2m1fn_x2 else (4, 2))
        assert checkpoint.read("a") == bytes([0, 4, 1, 5, 2, 6, 3, 7])


def test_a_state_dict_is_unwrapped(save):
    with open_checkpoint(save({"state_dict": OrderedDict(a=torch.ones(1))})) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.ones(1)], "holds a list, not a dict of tensors"),
        (torch.ones(1), "holds a Tensor, not a dict of tensors"),
        ({"state_dict": 3}, "holds a int, not a dict of tensors"),
        ({"a": torch.ones(1), "epoch": 3}, "its key 'epoch' holds a int, not a tensor"),
        ({"model": {"a": torch.ones(1)}}, "its key 'model' holds a dict, not a tensor"),
        ({3: torch.ones(1)}, "its key 3 is not a tensor name"),
        ({"a\ud800": torch.ones(1)}, "its key 'a\\ud800' is not a tensor name"),
        (
            {"a": torch.ones(1, dtype=torch.complex128)},
            "tensor 'a' has the dtype torch.complex128, which safetensors cannot hold",
        ),
        ({"a": torch.eye(2).to_sparse()}, "tensor 'a' is torch.sparse_coo on cpu; only dense tensors are read"),
        ({"a": torch.ones(1, device="meta")}, "tensor 'a' is torch.strided on meta; only dense tensors are read"),
        ({"a\n": torch.ones(1)}, "a name holds no control characters"),
        ({"a": torch.ones(1).expand(2**40)}, f"tensor 'a' claims {2**42} bytes in a file of"),
    ],
)
def test_refuses_what_is_no_flat_dict_of_dense_tensors(save, value, words):
    error = refusal(save(value))
    assert words in error.what
    assert error.hint == "load it in a place you trust and save its tensors with safetensors.torch.save_file"


def test_quantized_tensors():
    class Quantized:
        layout, is_nested, device, dtype = torch.strided, False, torch.device("cpu"), torch.qint8

    with pytest.raises(BadInput, match=r"m: tensor 'a' has the dtype torch\.qint8, which safetensors cannot hold"):
        pickled._spec("a", Quantized(), 9, "m")
    Quantized.is_nested = True
    with pytest.raises(BadInput, match=r"m: tensor 'a' is nested; only dense tensors are read"):
        pickled._spec("a", Quantized(), 9, "m")


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_code_is_refused_and_not_run(save, tmp_path):
    marker = tmp_path / "ran"
    error = refusal(save({"a": torch.ones(1), "b": Evil(str(marker))}))
    assert "holds code or objects other than tensors, or is damaged" in error.what
    assert "safetensors.torch.save_file" in error.hint
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(Evil(str(marker))))
    assert "holds code or objects" in refusal(tmp_path / "raw.bin").what
    assert not marker.exists()


def test_damaged_files(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for cut in (0, 1, 4, 30, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "PyTorch cannot read it" in refusal(path).what or "or is damaged" in refusal(path).what
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    error = refusal(path)
    assert error.what == f"{path}: a git-lfs pointer, not the file itself"
    assert error.hint == "run git lfs pull"


def test_a_zip_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"\0" * 10**6)
    assert "a zip archive with compressed members, which PyTorch never writes" in refusal(tmp_path / "m.pt").what


def test_shards_are_read_one_at_a_time(save, tmp_path, monkeypatch):
    save({"a": torch.tensor([1.0]), "c": torch.tensor([3.0])}, "1.bin")
    mapped = save({"b": torch.tensor([2.0])}, "2.bin").read_bytes()[:2] == b"PK"
    index = {"weight_map": {"a": "1.bin", "b": "2.bin", "c": "1.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    loads = []
    load = pickled._load
    monkeypatch.setattr(pickled, "_load", lambda path: (loads.append(path.name), load(path))[1])
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.extras == {"config.json": 2}
        values = [memoryview(checkpoint.read(name)).cast("f")[0] for name in "abc"]
    assert values == [1.0, 2.0, 3.0]
    assert loads == (["1.bin", "2.bin"] if mapped else ["1.bin", "2.bin", "1.bin", "2.bin", "1.bin"])


def test_big_zip_files_are_mapped(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    with open_checkpoint(path) as checkpoint, open("/proc/self/maps") as maps:
        assert str(path) in maps.read()
        assert checkpoint.read("a") == bytes(4000)
