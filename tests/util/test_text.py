import pytest

from weightvc.util.text import Note, counted, listed, meant, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("layer.0.weight", "layer.0.weight"),
        ("größe 大", "größe 大"),
        ("a\x1b[2Jb", "a\\u001b[2Jb"),
        ("a\nb\0", "a\\u000ab\\u0000"),
        ("x\u202egnp", "x\\u202egnp"),
        ("\u2066\u2069\u200e\u200f", "\\u2066\\u2069\\u200e\\u200f"),
        ("\x9b", "\\u009b"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_control_and_bidi_characters_are_escaped(name, shown):
    assert printable(name) == shown


def test_lists_are_cut_at_ten():
    assert listed([]) == ""
    assert listed(["a", "b\x1b"]) == "a, b\\u001b"
    assert listed([str(n) for n in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed([str(n) for n in range(13)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"


def test_one_is_no_plural():
    assert [counted(n, "tensor") for n in range(3)] == ["0 tensors", "1 tensor", "2 tensors"]


def test_misspellings_are_guessed_before_the_hint():
    assert meant("Alhpa", {"alpha": 1, "beta": 2}, "look") == "did you mean alpha? look"
    assert meant("gamma", ["alpha\x1b"], "look") == meant("x", [], "look") == "look"
    assert meant("alpha", ["alpha\x1b"], "look") == "did you mean alpha\\u001b? look"


def test_notes_have_a_few_names_and_all_of_them():
    few, many = Note("two left out", ["a", "b\x1b"]), Note("5 left out", list("abcde"))

    assert few == few.full == "two left out: a, b\\u001b"
    assert (many, many.full) == ("5 left out: a, b, c and 2 more (-v lists them)", "5 left out: a, b, c, d, e")
