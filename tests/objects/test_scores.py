"""Scores in a manifest: one valid encoding, and what is derived from them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from weightvc.objects.ids import Digest
from weightvc.objects.loss import Loss
from weightvc.objects.manifest import Entry, Manifest, Place
from weightvc.objects.scores import MAX_SCORES, Score, noted
from weightvc.objects.tensors import TensorSpec
from weightvc.util import canon
from weightvc.util.errors import Corrupt

A, B = Digest("a" * 64), Digest("b" * 64)
LOSSY = Entry(TensorSpec("h", "F32", (2, 2)), B, "delta", "h", Place("int4", A, 112), Loss(A, 0.1, 0.2))
SCORES = (Score("accuracy", 0.5, 0.9, 0.8), Score("f1", 0.25, 0.75, 0.5))
TASK = Manifest(
    (LOSSY,), (), (), "safetensors", "support", "076b1974-cdac-4648-ab83-22cbf1b986cc", "2026-01-31T09:30:00.000000Z",
    A, scores=SCORES,
)  # fmt: skip


def refused(words, manifest=TASK, **members):
    value = json.loads(manifest.to_bytes()) | members
    with pytest.raises(Corrupt, match=words):
        Manifest.from_bytes(canon.document(value), "x.json")


def test_scores_stand_in_lines_of_their_own():
    data = TASK.to_bytes()
    assert b'"scores":[\n{"base":0.5,"name":"accuracy","stored":0.8,"tuned":0.9},\n{"base":0.25,"name":"f1",' in data
    assert Manifest.from_bytes(data, "x.json") == TASK
    assert replace(TASK, scores=()).version == TASK.version


def test_a_task_without_scores_does_not_speak_of_them():
    plain = replace(TASK, scores=())
    assert b"scores" not in plain.to_bytes()
    assert Manifest.from_bytes(plain.to_bytes(), "x.json") == plain


def test_without_a_lossy_tensor_nothing_drops():
    lossless = replace(TASK, tensors=(replace(LOSSY, lossy=None),))
    same = replace(lossless, scores=(Score("f1", 0.5, 0.9, 0.9),))
    assert Manifest.from_bytes(same.to_bytes(), "x.json") == same
    with pytest.raises(Corrupt, match="'accuracy' changed, though all tensors come back as they were added"):
        Manifest.from_bytes(lossless.to_bytes(), "x.json")


LINE = {"name": "f1", "base": 0.5, "tuned": 0.9, "stored": 0.8}
BAD = {
    "null": (None, "is not of type list"),
    "object": ({"f1": 0.5}, "is not of type list"),
    "empty": ([], "only a task has scores, from 1 to 1000"),
    "too many": ([LINE | {"name": f"{n:04}"} for n in range(MAX_SCORES + 1)], "from 1 to 1000"),
    "no objects": ([0.5], "an object was expected"),
    "more": ([LINE | {"kept": 0.9}], "unknown kept"),
    "less": ([{"name": "f1", "base": 0.5, "tuned": 0.5}], "no stored"),
    "integer": ([LINE | {"base": 1}], "1 is not of type float"),
    "boolean": ([LINE | {"base": True}], "True is not of type float"),
    "text": ([LINE | {"base": "0.5"}], "is not of type float"),
    "minus zero": ([LINE | {"base": -0.0}], "a score of -0.0"),
    "no name": ([LINE | {"name": ""}], "cannot name a score"),
    "no text": ([LINE | {"name": 3}], "is not of type str"),
    "long": ([LINE | {"name": "x" * 101}], "cannot name a score"),
    "escape": ([LINE | {"name": "a\x1b[2J"}], r"'a\\\\u001b\[2J' cannot name a score"),
    "twice": ([LINE, LINE], "names are not sorted and distinct"),
    "unsorted": ([LINE, LINE | {"name": "a"}], "names are not sorted and distinct"),
}


@pytest.mark.parametrize(("scores", "words"), BAD.values(), ids=BAD)
def test_scores_that_cannot_be_are_refused(scores, words):
    refused(words, scores=scores)


@pytest.mark.parametrize("spelling", [b"NaN", b"Infinity", b"1e999", b"5e-1", b"0.50"])
def test_numbers_have_one_spelling_and_are_finite(spelling):
    with pytest.raises(Corrupt):
        Manifest.from_bytes(TASK.to_bytes().replace(b'"base":0.5', b'"base":' + spelling), "x.json")


def test_a_base_has_no_scores():
    base = Manifest((), (), (), "safetensors")
    refused("only a task has scores", base, scores=[LINE])


@pytest.mark.parametrize(
    ("base", "tuned", "stored", "kept"),
    [(0.5, 1.0, 0.75, 0.5), (0.0, 2.0, 3.0, 1.5), (1.0, 2.0, 0.5, -0.5), (0.5, 0.5, 0.5, None), (0.9, 0.5, 0.5, None),
     (-1e308, 1e308, 1e308, None)],
)  # fmt: skip
def test_what_is_kept_is_a_share_of_the_gain(base, tuned, stored, kept):
    assert Score("x", base, tuned, stored).kept == kept


def test_scores_in_words():
    assert noted(SCORES[:1]) == "; accuracy: base 0.5, tuned 0.9, stored 0.8: 75.0 % of the gain kept"
    assert noted([Score("x", 1, 1, 1)]) == "; x: base 1, tuned 1, stored 1: no gain to keep"
    assert noted(()) == ""


def test_the_line_that_the_page_shows_is_one():
    page = (Path(__file__).parents[2] / "docs/format/manifest.md").read_text()
    (line,) = re.findall(r"`(\{[^`]*\"tuned\"[^`]*\})`", page)
    assert canon.dumps(Score.from_json(json.loads(line), "page").to_json()).decode() == line
