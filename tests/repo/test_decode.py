"""Reading stored tensors back, and manifests that lie about them."""

from dataclasses import replace

import pytest

from weightvc.delta.encoding import Encoded
from weightvc.objects.ids import Digest
from weightvc.objects.tensors import TensorSpec
from weightvc.repo import state
from weightvc.repo.decode import SPAN, Decoder, Reader
from weightvc.util.errors import Corrupt, Missing

NAME = "encoder.layer.0.attention.query.weight"


@pytest.fixture
def opened(two):
    """The base's and alpha's manifests, and a reader over them."""
    repo = two.api()
    held = state.load(repo)
    return held.base, held.tasks["alpha"], Reader(repo.store, held.base)


def test_tensors_come_back_whole_and_in_spans(opened, models, templates):
    base, alpha, reader = opened
    for manifest, model in ((base, templates.base), (alpha, templates.alpha)):
        wanted = models.read(model)[NAME].numpy().tobytes()
        decoder = reader.open(manifest.by_name[NAME])
        assert bytes(decoder.read()) == wanted
        assert [(offset, bytes(span)) for offset, span in decoder.spans()] == [(0, wanted)]


def test_spans_cover_a_tensor_without_overlap(repository, models, tmp_path):
    import torch

    tensors = {"w": torch.arange(SPAN // 2 + 11, dtype=torch.int32), "none": torch.empty(0)}
    repo = repository(models.write(tmp_path / "base", tensors)).api()
    base = state.load(repo).base
    reader = Reader(repo.store, base)

    pieces = [(offset, bytes(span)) for offset, span in reader.open(base.by_name["w"]).spans()]

    assert [(offset, len(data)) for offset, data in pieces] == [(0, SPAN), (SPAN, SPAN), (2 * SPAN, 44)]
    assert b"".join(data for _, data in pieces) == tensors["w"].numpy().tobytes()
    assert list(reader.open(base.by_name["none"]).spans()) == []
    assert reader.open(base.by_name["none"]).read() == b""


def test_what_equals_the_base_is_read_from_it(opened, models):
    base, alpha, reader = opened
    entry = alpha.by_name["embeddings.position_ids"]
    decoder = reader.open(entry)

    assert (entry.state, decoder.encoded) == ("same", None)
    assert bytes(decoder.read()) == models.base()[entry.spec.name].numpy().tobytes()
    given = memoryview(bytes(range(160)))
    out = memoryview(bytearray(160))
    decoder.read_into(out, 0, given)
    assert out == given
    assert b"".join(bytes(span) for _, span in decoder.spans()) == bytes(
        reader.open(base.by_name[entry.spec.name]).read()
    )


def test_an_entry_of_nothing_is_empty(opened):
    base, _, _ = opened
    entry = base.by_name["empty"]
    out = memoryview(bytearray(0))

    Decoder(entry, None, None).read_into(out, 0)

    assert out == b""


def lies(alpha):
    """Return entries that a hostile manifest could have, and what is said of each."""
    entry, same = alpha.by_name[NAME], alpha.by_name["embeddings.position_ids"]
    place = entry.place
    other = alpha.by_name["encoder.layer.1.attention.query.bias"].place
    return {
        "the base has no such tensor nobody": replace(entry, of="nobody"),
        "the base has no such tensor pooler.weight": replace(entry, of="pooler.weight"),
        "said to equal the base's tensor, but does not": replace(same, digest=Digest("0" * 64)),
        "no part 999": replace(entry, place=replace(place, part=999)),
        f"not the encoding of {NAME}": replace(entry, place=other),
        f"not the encoding of {NAME} ": replace(entry, place=replace(place, codec="raw")),
        "not the encoding of x": replace(entry, spec=TensorSpec("x", "U8", (3,)), state="whole", of=None),
    }


def test_manifests_that_lie_are_found_out(opened):
    _, alpha, reader = opened
    for says, entry in lies(alpha).items():
        with pytest.raises(Corrupt, match=says.strip()) as caught:
            reader.open(entry)
        assert "`wvc fsck --full`" in caught.value.hint


def test_an_object_that_is_a_bundle_and_no_tensor(opened):
    _, alpha, reader = opened
    entry = alpha.by_name[NAME]

    with pytest.raises(Corrupt, match=f"object {entry.place.object}"):
        reader.open(replace(entry, place=replace(entry.place, part=None)))


def test_an_object_of_another_size_than_its_manifest_says(opened):
    _, alpha, reader = opened
    entry = alpha.by_name[NAME]
    with pytest.raises(Corrupt, match=f"{entry.place.size} bytes, its manifest says 12345") as caught:
        reader.open(replace(entry, place=replace(entry.place, size=12345)))
    assert caught.value.hint == "run `wvc fsck --full`"


def test_a_missing_object(opened, two):
    base, alpha, reader = opened
    two.object_file(alpha.by_name[NAME].place.object).unlink()

    with pytest.raises(Missing):
        reader.open(alpha.by_name[NAME])
    assert reader.open(base.by_name[NAME]).read()


def test_an_exact_checkout_checks_every_digest(two, templates, tmp_path):
    """An object that is whole but another tensor's is not given back as this one."""
    from weightvc.objects.manifest import Manifest

    two.put("alpha", templates.alpha, "--codec", "raw")
    path = two.path / ".wvc/tasks/alpha.json"
    manifest = Manifest.from_bytes(path.read_bytes(), "alpha")
    swapped = {"encoder.layer.0.attention.query.weight": "encoder.layer.1.attention.query.weight"}
    tensors = tuple(
        replace(entry, place=manifest.by_name[swapped[entry.spec.name]].place) if entry.spec.name in swapped else entry
        for entry in manifest.tensors
    )
    path.write_bytes(replace(manifest, tensors=tensors).to_bytes())
    two.git("commit", "-qam", "swapped")

    ran = two.run("checkout", "--tasks", "alpha", "-o", tmp_path / "out")

    assert (ran.code, ran.out) == (4, "")
    assert f"{NAME} does not have the digest that its manifest states" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_open_already_is_used_if_it_is_the_right_one(opened, models, templates):
    base, alpha, reader = opened
    right, wrong = (reader.open(base.by_name[name]) for name in (NAME, "pooler.weight"))
    wanted = models.read(templates.alpha)[NAME].numpy().tobytes()

    assert reader.open(alpha.by_name[NAME], base=right).base is right
    for given in (right, wrong):
        assert bytes(reader.open(alpha.by_name[NAME], base=given).read()) == wanted
    assert reader.open(base.by_name[NAME], base=wrong).base is None


def test_a_decoder_that_keeps_decodes_once(opened, monkeypatch):
    _, alpha, reader = opened
    decoder, calls, decode = reader.open(alpha.by_name[NAME]), [], Encoded.decode_into
    wanted = bytes(decoder.read())
    monkeypatch.setattr(Encoded, "decode_into", lambda *args: (calls.append(args), decode(*args)))

    kept = decoder.kept()
    assert [bytes(kept.read()) for _ in range(3)] == [wanted] * 3
    once = len(calls)
    assert [bytes(decoder.read()) for _ in range(2)] == [wanted] * 2
    assert len(calls) == 3 * once > 0
