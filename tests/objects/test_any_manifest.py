"""Any manifest round-trips, and a changed byte makes another one or none."""

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.objects.manifest import TIME as FORMAT
from weightvc.objects.manifest import Entry, Manifest, Parent, Place
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import Corrupt, Unsupported

A, B = "a" * 64, "b" * 64
TASK = Manifest(
    tensors=(
        Entry(TensorSpec("embed", "BF16", (4, 2)), A, "same", "embed"),
        Entry(TensorSpec("model.h", "F32", (2, 2)), B, "delta", "h", Place("intdelta", A, 112, 0)),
        Entry(TensorSpec("score", "F32", ()), B, "whole", None, Place("raw", B, 70)),
    ),
    files=(Entry(TensorSpec("config.json", "U8", (3,)), A, "same", "config.json"),),
    headers=(),
    source="safetensors",
    task="support",
    uuid="076b1974-cdac-4648-ab83-22cbf1b986cc",
    added="2026-01-31T09:30:00.000000Z",
    base=A,
)


def read(data):
    return Manifest.from_bytes(data, "x.json")


hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
own = st.text(string.ascii_lowercase + " -_é日", min_size=1, max_size=12)
tasks = st.text(string.ascii_lowercase, min_size=5, max_size=9)
places = st.builds(Place, names, hexes, st.integers(0, 2**40), st.none() | st.integers(0, 99))
shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
uuids = st.uuids().map(str)
times = st.timedeltas(timedelta(0), timedelta(days=99_999)).map(lambda after: datetime(1970, 1, 1, tzinfo=UTC) + after)


@st.composite
def entries(draw, name, *, files=False, base=False):
    spec = TensorSpec(name, "U8" if files else draw(st.sampled_from(["BF16", "F32", "I64"])), draw(shapes))
    if files:
        spec = replace(spec, shape=(draw(st.integers(0, 2**40)),))
    states = ["whole"] if base else ["whole", "same"] if files else ["whole", "same", "delta"]
    state = draw(st.sampled_from(states))
    of = None if state == "whole" else name if files else draw(st.just(name) | names)
    return Entry(spec, draw(hexes), state, of, None if state == "same" else draw(places))


@st.composite
def manifests(draw):
    base = draw(st.booleans())
    names_of = [(names, ""), (own, "sub/"), (own, "_")]
    lists = [
        tuple(draw(entries(at + name, files=bool(at), base=base)) for name in sorted(draw(st.sets(kind, max_size=4))))
        for kind, at in names_of
    ]
    manifest = Manifest(*lists, draw(st.sampled_from(["safetensors", "torch"])), nonfinite=draw(st.integers(0, 9)))
    if base:
        return manifest
    added = draw(times).strftime(FORMAT)
    lineage = tuple(draw(st.lists(st.builds(Parent, tasks, uuids, hexes), max_size=2)))
    return replace(manifest, task=draw(tasks), uuid=draw(uuids), added=added, base=draw(hexes), lineage=lineage)


@settings(max_examples=60, deadline=None)
@given(manifests())
def test_any_manifest_round_trips(manifest):
    again = read(manifest.to_bytes())
    assert (again, again.to_bytes()) == (manifest, manifest.to_bytes())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_another_manifest_or_none(data):
    good = TASK.to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    try:
        found = read(bad)
    except (Corrupt, Unsupported):
        return
    assert found.to_bytes() == bad
