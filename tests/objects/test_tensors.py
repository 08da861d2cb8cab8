import hashlib
import itertools
import json

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from weightvc.objects.tensors import BITS, MERGED, TensorHasher, TensorSpec, tensor_digest, version_of, zeros_digest
from weightvc.util.errors import BadInput


@pytest.mark.parametrize(
    ("dtype", "shape", "elements", "nbytes", "itemsize"),
    [
        ("F32", (), 1, 4, 4),
        ("BF16", (3, 5), 15, 30, 2),
        ("F64", (0,), 0, 0, 8),
        ("F32", (2**40, 0, 2**40), 0, 0, 4),
        ("BOOL", (7,), 7, 7, 1),
        ("F4", (2, 3), 6, 3, 1),
        ("F6_E2M3", (4,), 4, 3, 1),
        ("C64", (2,), 2, 16, 8),
        ("U8", (2**47, 2), 2**48, 2**48, 1),
        ("F32", (1,) * 64, 1, 4, 4),
    ],
)
def test_sizes(dtype, shape, elements, nbytes, itemsize):
    spec = TensorSpec("w", dtype, shape)
    assert (spec.elements, spec.nbytes, spec.itemsize) == (elements, nbytes, itemsize)


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "words"),
    [
        ("", "F32", (), "a name has 1 to 1024 bytes"),
        ("x" * 1025, "F32", (), "a name has 1 to 1024 bytes"),
        ("ä" * 513, "F32", (), "a name has 1 to 1024 bytes"),
        ("a\0b", "F32", (), "a name holds no control characters"),
        ("a\x1b[2J", "F32", (), "a name holds no control characters"),
        ("a\x85", "F32", (), "a name holds no control characters"),
        ("a\x7f", "F32", (), "a name holds no control characters"),
        ("w", "F31", (), "dtype 'F31' is unknown"),
        ("w", "f32", (), "dtype 'f32' is unknown"),
        ("w", "F32", (1,) * 65, "65 dimensions, more than the limit of 64"),
        ("w", "F32", (-1,), "a dimension is not a non-negative integer"),
        ("w", "F32", (2**47,) * 2, "more than the limit of 281474976710656"),
        ("w", "U8", (2**63,), "a dimension is not a non-negative integer below 2"),
        ("w", "F32", (1.0,), "a dimension is not a non-negative integer"),
        ("w", "F32", (True,), "a dimension is not a non-negative integer"),
        ("w", "F4", (3,), "F4 elements that do not fill whole bytes"),
        ("w", "F4", (), "F4 elements that do not fill whole bytes"),
    ],
)
def test_what_is_no_tensor(name, dtype, shape, words):
    with pytest.raises(BadInput) as caught:
        TensorSpec(name, dtype, shape)
    assert str(caught.value).startswith("tensor '")
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../x", "/etc", "C:", "é", "e\u0301", "x" * 1024, "a b"])
def test_names_are_opaque(name):
    assert TensorSpec(name, "F32", ()).name == name


def test_an_unknown_dtype_advises_to_upgrade():
    with pytest.raises(BadInput) as caught:
        TensorSpec("w", "F128", ())
    assert caught.value.hint == "upgrade weightvc"


def test_same_kind():
    one = TensorSpec("a", "F32", (2, 3))
    assert one.same_kind(TensorSpec("b", "F32", (2, 3)))
    assert not one.same_kind(TensorSpec("a", "F32", (3, 2)))
    assert not one.same_kind(TensorSpec("a", "F16", (2, 3)))


def test_specs_sort_by_name():
    assert min(TensorSpec("b", "F32", ()), TensorSpec("a", "I8", ())).name == "a"


def test_merged_dtypes_are_the_floats_that_torch_adds():
    assert {"F64", "F32", "F16", "BF16"} == MERGED
    assert BITS.keys() > MERGED


def test_a_digest_is_blake3_over_dtype_shape_and_bytes():
    data = b"\0\0\x80\x3f" * 6
    assert tensor_digest("F32", (2, 3), data) == blake3(b"F32 2,3\n" + data).hexdigest()
    assert tensor_digest("F32", (), b"\0" * 4) == blake3(b"F32 \n\0\0\0\0").hexdigest()


def test_digests_tell_dtype_and_shape_apart():
    data = b"\0" * 24
    kinds = [
        ("F32", (6,)),
        ("F32", (2, 3)),
        ("F32", (3, 2)),
        ("F32", (1, 6)),
        ("I32", (6,)),
        ("U8", (24,)),
        ("F64", (3,)),
    ]
    assert len({tensor_digest(dtype, shape, data) for dtype, shape in kinds}) == len(kinds)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_chunking_does_not_matter(data, cuts):
    hasher = TensorHasher("U8", [len(data)])
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        hasher.update(memoryview(data)[start:end])
    assert hasher.digest() == tensor_digest("U8", (len(data),), data)


def test_a_version_is_the_sha256_of_sorted_pairs():
    pairs = [("b", "1" * 64), ("a", "2" * 64)]
    text = json.dumps(sorted(map(list, pairs)), separators=(",", ":"))
    assert version_of(pairs) == version_of(reversed(pairs)) == hashlib.sha256(text.encode()).hexdigest()
    assert version_of(pairs) != version_of([("b", "2" * 64), ("a", "1" * 64)])
    assert version_of([]) == hashlib.sha256(b"[]").hexdigest()


def test_the_name_that_safetensors_reserves():
    with pytest.raises(BadInput, match="safetensors reserves this name"):
        TensorSpec("__metadata__", "F32", (1,))


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (700, 900)])
def test_the_digest_of_zeros(shape):
    spec = TensorSpec("w", "F32", shape)
    assert zeros_digest("F32", shape) == tensor_digest("F32", shape, bytes(spec.nbytes))


def test_nobody_hashes_as_many_zeros_as_a_manifest_claims():
    assert zeros_digest("U8", (2**26,)) is not None
    assert zeros_digest("U8", (2**26 + 1,)) is None
    assert zeros_digest("F32", (2**23, 2**23)) is None
