import json
import os

import pytest

from weightvc.checkpoint import directory
from weightvc.checkpoint.directory import choose, is_stale, kind_of, other_files
from weightvc.checkpoint.reader import open_checkpoint
from weightvc.util.errors import BadInput, NotFound

F = ("F32", (1,), b"abcd")


def index(**places):
    return json.dumps({"metadata": {}, "weight_map": places}).encode()


@pytest.mark.parametrize(
    ("files", "kind", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "other.safetensors"], "safetensors", "model.safetensors"),
        (["consolidated.safetensors", "pytorch_model.bin"], "safetensors", "consolidated.safetensors"),
        (["pytorch_model.bin", "extra.bin", "x.pt"], "torch", "pytorch_model.bin"),
        (
            [
                "net.pth",
                "training_args.bin",
                "optimizer.pt",
                "optimizer.bin",
                "scheduler.pt",
                "scaler.pt",
                "rng_state_0.pth",
            ],
            "torch",
            "net.pth",
        ),
    ],
)
def test_chooses_one_file(model, files, kind, chosen):
    weights = choose(model(dict.fromkeys(files, b"")))
    assert (weights.kind, weights.files, weights.index) == (kind, (chosen,), "")


def test_chooses_an_index_first(model):
    root = model(
        {
            "model.safetensors.index.json": index(a="2.safetensors", b="1.safetensors", c="1.safetensors"),
            "other.safetensors.index.json": index(a="3.safetensors"),
            "pytorch_model.bin.index.json": index(a="1.bin"),
            **dict.fromkeys(["1.safetensors", "2.safetensors", "3.safetensors", "1.bin"], b""),
        }
    )
    weights = choose(root)
    assert (weights.kind, weights.files) == ("safetensors", ("1.safetensors", "2.safetensors"))
    assert weights.places == {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"}
    (root / "model.safetensors.index.json").unlink()
    assert choose(root).files == ("3.safetensors",)
    for path in root.glob("*.safetensors*"):
        path.unlink()
    assert choose(root).index == "pytorch_model.bin.index.json"


def test_an_index_of_the_plain_file_is_fine(model):
    assert choose(
        model({"model.safetensors": b"", "model.safetensors.index.json": index(a="model.safetensors")})
    ).files == ("model.safetensors",)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapters_weights_are_chosen_beside_its_settings(model, name):
    files = {"adapter_config.json": b"{}", name: b"", "optimizer.pt": b""}

    assert choose(model(files)).files == (name,)


def refusal(root):
    with pytest.raises(BadInput) as caught:
        choose(root)
    assert str(root) in caught.value.what
    assert caught.value.hint
    return caught.value.what.replace(str(root), "DIR")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}"}, "DIR: no .safetensors, .bin, .pt or .pth weights in this directory"),
        ({"training_args.bin": b""}, "DIR: no .safetensors"),
        (
            {"a.safetensors": b"", "b.safetensors": b""},
            "DIR: any of these could be the model: a.safetensors, b.safetensors",
        ),
        ({"a.bin": b"", "b.pt": b""}, "DIR: any of these could be the model: a.bin, b.pt"),
        (
            {"a.safetensors.index.json": b"", "b.safetensors.index.json": b""},
            "DIR: any of these could be the model: a.safetensors.index.json",
        ),
        ({"adapter_config.json": b"{}"}, "DIR: adapter_config.json without adapter_model.safetensors"),
        (
            {"adapter_config.json": b"{}", "adapter_model.safetensors": b"", "pytorch_model.bin": b""},
            "DIR: both an adapter (adapter_config.json) and a model (pytorch_model.bin) are here",
        ),
        ({"model.safetensors.index.json": b"[]"}, "DIR/model.safetensors.index.json: no weight_map"),
        ({"model.safetensors.index.json": b'{"weight_map":[]}'}, "no weight_map of tensor names to file names"),
        ({"model.safetensors.index.json": index()}, "no weight_map"),
        ({"model.safetensors.index.json": index(a=1)}, "no weight_map"),
        (
            {"model.safetensors.index.json": b'{"weight_map":{"a":"1","a":"2"}}'},
            "DIR/model.safetensors.index.json: duplicate name 'a'",
        ),
        (
            {"model.safetensors.index.json": b"version https://git-lfs.github.com/spec/v1\n"},
            "DIR/model.safetensors.index.json: a git-lfs pointer",
        ),
        (
            {"model.safetensors.index.json": index(a="../x.safetensors")},
            "'../x.safetensors' is not the name of a safetensors file beside it",
        ),
        ({"model.safetensors.index.json": index(a="/x.safetensors")}, "'/x.safetensors' is not the name"),
        ({"model.safetensors.index.json": index(a="x\\y.safetensors")}, "is not the name"),
        (
            {"model.safetensors.index.json": index(a="config.json")},
            "'config.json' is not the name of a safetensors file",
        ),
        ({"pytorch_model.bin.index.json": index(a="../x.bin")}, "'../x.bin' is not the name of a torch file"),
        (
            {"model.safetensors.index.json": index(a="1.safetensors", b="2.safetensors"), "1.safetensors": b""},
            "DIR/model.safetensors.index.json: its shard 2.safetensors is missing",
        ),
        (
            {"model.safetensors": b"", "model.safetensors.index.json": index(a="1.safetensors"), "1.safetensors": b""},
            "DIR: both model.safetensors and model.safetensors.index.json are here",
        ),
    ],
)
def test_refuses_to_choose(model, files, words):
    assert words in refusal(model(files))


def test_a_huge_index(model, monkeypatch):
    monkeypatch.setattr(directory, "MAX_HEADER", 20)
    assert "bytes, more than the limit of 20" in refusal(model({"model.safetensors.index.json": index(a="b")}))


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        (["a"], ["b"], "DIR/model.safetensors.index.json: not in 1.safetensors, as it says: c"),
        (
            ["a", "c", "d"],
            ["b"],
            "DIR/1.safetensors: holds tensors that model.safetensors.index.json does not place there: d",
        ),
        (
            ["a", "c"],
            ["b", "c"],
            "DIR/2.safetensors: holds tensors that model.safetensors.index.json does not place there: c",
        ),
    ],
)
def test_an_index_that_is_wrong(model, build, one, two, words):
    root = model(
        {
            "model.safetensors.index.json": index(a="1.safetensors", b="2.safetensors", c="1.safetensors"),
            "1.safetensors": build(dict.fromkeys(one, F)),
            "2.safetensors": build(dict.fromkeys(two, F)),
        }
    )
    with pytest.raises(BadInput) as caught:
        open_checkpoint(root)
    assert words in caught.value.what.replace(str(root), "DIR")
    assert caught.value.hint == "download both again"


def test_other_files(model):
    root = model(
        {
            "model.safetensors": b"w",
            "config.json": b"{}",
            "1_Pooling/config.json": b"{ }",
            "2_Dense/model.safetensors": b"dense",
            "onnx/deep/a.onnx": b"",
            "pytorch_model.bin": b"stale",
            "model.safetensors.index.json": index(a="model.safetensors"),
            "wvc.lock.json": b"{}",
            ".git/config": b"x",
            ".cache/huggingface/x": b"x",
            ".wvc/base.json": b"x",
            "1_Pooling/.cache/huggingface/y": b"x",
            "1_Pooling/.git/config": b"x",
            "1_Pooling/.wvc/z": b"x",
            "1_Pooling/wvc.lock.json": b"x",
            ".cache/other": b"x",
            ".gitattributes": b"abc",
        }
    )
    (root / "blob").mkdir()
    (root / "link.txt").symlink_to(root / "config.json")
    assert list(other_files(root, choose(root)).items()) == [
        (".cache/other", 1),
        (".gitattributes", 3),
        ("1_Pooling/.cache/huggingface/y", 1),
        ("1_Pooling/.wvc/z", 1),
        ("1_Pooling/config.json", 3),
        ("1_Pooling/wvc.lock.json", 1),
        ("2_Dense/model.safetensors", 5),
        ("config.json", 2),
        ("link.txt", 2),
        ("model.safetensors.index.json", len(index(a="model.safetensors"))),
        ("onnx/deep/a.onnx", 0),
        ("pytorch_model.bin", 5),
    ]


def test_the_index_of_torch_shards_stays_behind(model):
    root = model({"pytorch_model.bin.index.json": index(a="1.bin"), "1.bin": b"", "config.json": b"{}"})
    assert other_files(root, choose(root)) == {"config.json": 2}


def test_entries_that_are_no_files(model):
    root = model({"model.safetensors": b"", "sub/x": b""})
    weights = choose(root)

    def refused(kind=BadInput):
        with pytest.raises(kind) as caught:
            other_files(root, weights)
        return caught.value.what.replace(str(root), "DIR")

    (root / "sub" / "loop").symlink_to(root)
    assert refused() == "DIR/sub/loop: a symbolic link to a directory"
    (root / "sub" / "loop").unlink()
    os.mkfifo(root / "sub" / "fifo")
    assert refused() == "DIR/sub/fifo: not a regular file"
    (root / "sub" / "fifo").unlink()
    (root / "gone").symlink_to("nowhere")
    assert refused(NotFound) == "DIR/gone: a symbolic link that leads nowhere"
    (root / "gone").unlink()
    (root / "self").symlink_to("self")
    assert refused().startswith("DIR/self: cannot be examined")
    (root / "self").unlink()
    (root / os.fsdecode(b"\xff.txt")).touch()
    assert refused() == "DIR/\\udcff.txt: its name is not UTF-8"


def test_too_many_files(model, monkeypatch):
    monkeypatch.setattr(directory, "MAX_FILES", 5)
    root = model({"model.safetensors": b"", **{f"d/{i}": b"" for i in range(3)}})
    assert len(other_files(root, choose(root))) == 3
    (root / "d" / "more").touch()
    with pytest.raises(BadInput, match="more than 5 files"):
        other_files(root, choose(root))


def test_kinds_of_files(tmp_path):
    assert [kind_of(tmp_path / f"a{end}") for end in (".safetensors", ".bin", ".pt", ".pth")] == [
        "safetensors",
        *["torch"] * 3,
    ]
    with pytest.raises(BadInput, match=r"/a\.ckpt: not a \.safetensors, \.bin, \.pt or \.pth file") as caught:
        kind_of(tmp_path / "a.ckpt")
    assert caught.value.hint == "give one of those, or the model's directory"


def test_files_that_hold_the_weights_too_by_name():
    stale = """model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json pytorch_model.bin
        model.safetensors.index.fp16.json pytorch_model.bin.index.json x.pt x.pth tf_model.h5 flax_model.msgpack
        onnx/model.onnx onnx/model.onnx_data onnx/model.onnx_data_1 model.onnx.data m.Q4_K.gguf a.ckpt a.npz
        rust_model.ot MODEL.SAFETENSORS tf_model.h5.index.json saved_model/saved_model.pb training_args.bin
        tf/variables/variables.data-00000-of-00001 openvino/openvino_model.bin openvino/openvino_model_qint8.xml
        ov/openvino_model.bin ONNX/weights.bin original/consolidated.00.pth original/model.safetensors model.tflite
        a/b.mlpackage/Data/weights/weight.bin vocabulary_model.bin decoder_model.onnx 1/x.pt"""
    others = """config.json README.md tokenizer.json vocab.txt index.json spiece.model bin a.bin/config.json x.bin.txt
        .ckpt/x tokenizer.bin my-tokenizer.pt tokenizer_model.bin vocab.npz VOCABS.bin mel_filters.npz spm.bin
        onnx/tokenizer.bin onnx/tokenizer.onnx onnx/config.json 2_Dense/model.safetensors 2_Dense/pytorch_model.bin
        text_encoder/model-00001-of-00002.safetensors text_encoder/model.safetensors.index.json
        text_encoder/pytorch_model.bin.index.json
        a/preprocessor.bin openvino/config.xml original/params.json labels.pkl"""
    assert [name for name in stale.split() if not is_stale(name)] == []
    assert [name for name in others.split() if is_stale(name)] == []


def test_a_file_whose_name_could_not_be_written_back(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "a\\b.txt").write_text("x")

    with pytest.raises(BadInput, match="its name holds a backslash"):
        other_files(tmp_path, choose(tmp_path))


@pytest.mark.parametrize("char", ["\n", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("name", ["a{}b.txt", "a{}b/c.txt", "model{}.safetensors"])
def test_a_file_with_a_control_character_in_its_name_is_named(tmp_path, name, char):
    path = tmp_path / name.format(char)
    path.parent.mkdir(exist_ok=True)
    if path.suffix != ".safetensors":
        (tmp_path / "model.safetensors").write_bytes(b"")
    path.write_bytes(b"x")

    with pytest.raises(BadInput) as caught:
        open_checkpoint(tmp_path)

    shown = tmp_path / name.format(f"\\u{ord(char):04x}")
    assert (caught.value.what, caught.value.hint) == (
        f"{shown}: its name holds a control character", "rename or remove it"
    )  # fmt: skip


def test_a_file_with_a_path_that_is_too_long_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    path = tmp_path.joinpath(*["d" * 250] * 4, "x" * 21)
    path.parent.mkdir(parents=True)
    path.touch()

    with pytest.raises(
        BadInput, match="x: its path in the model directory has 1025 bytes, more than the limit of 1024"
    ):
        open_checkpoint(tmp_path)
