"""Patterns mean what they mean to Python, and no pattern runs for ever."""

import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.util.regex import MAX_DEPTH, MAX_LENGTH, MAX_POSITIONS, Pattern

NAMES = ["", "a", "b", "ab", "ba", "aab", "abab", "a.b", "a1", "_", "-", "ab\n", "é", "layers.10.attn.q.weight"]


@pytest.mark.parametrize(
    "text",
    [
        "", "a", ".", ".*", "a|b", "a|", "(a|b)*", "(?:ab)+", "a?b?", "a{2}b", "a{0}", "a{1,}b", "a{0,2}b{1,3}",
        "a*?b+?", "[ab]+", "[^a]", "[^a-z.]", "[]a]", "[a-]", "[-a]", r"[\d_]+", r"[^\W\d]+", r"\w+", r"\W", r"a\.b",
        r"a.b", r"\D\d", r"\s", r"\S+", "(a*)*", "(a*)+b", "(|a)b", "((a|b)(a|b)){2}", "^a$", "^a|b$",
        r"layers\.(?:\d|1\d)\..*", "}", "]", r"[\]a]", "é", "(a?){3}b", "(a{2}|b){1,2}", "(ab|a)(b|)", "x{,2}|a",
    ],
)  # fmt: skip
def test_a_pattern_means_what_it_means_to_python(text):
    if "{," in text:
        with pytest.raises(ValueError, match="repeats nothing"):
            Pattern(text)
        return
    pattern, wanted = Pattern(text), re.compile(text, re.ASCII)

    assert [name for name in NAMES if pattern.matches(name)] == [name for name in NAMES if wanted.fullmatch(name)]


atoms = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", r"\w", r"\.", "[a-c]"])
repeats = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])
trees = st.recursive(
    st.tuples(atoms, repeats).map("".join),
    lambda inner: st.tuples(
        st.lists(st.lists(inner, max_size=3).map("".join), min_size=1, max_size=3).map("|".join), repeats
    ).map(lambda pair: f"({pair[0]}){pair[1]}"),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(trees, st.lists(st.text("abc.", max_size=6), max_size=8))
def test_any_pattern_means_what_it_means_to_python(text, names):
    pattern = Pattern(text)
    for name in names:
        assert pattern.matches(name) == bool(re.fullmatch(text, name, re.ASCII))


@settings(max_examples=100, deadline=None)
@given(st.text(r"ab.*+?|()[]{}^$\\-:,0129dW", max_size=12), st.text("ab.", max_size=5))
def test_what_is_accepted_means_what_it_means_to_python(text, name):
    try:
        pattern = Pattern(text)
    except ValueError:
        return
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        assert pattern.matches(name) == bool(re.fullmatch(text, name, re.ASCII))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a)", r"at character 2: this \) closes nothing"),
        ("(a", r"at character 1: this \( is never closed"),
        ("x[a", r"at character 2: this \[ is never closed"),
        ("[a\\", r"\\ is not known"),
        ("a\\", r"at character 2: \\ is not known"),
        (r"(a)\1", r"at character 4: \\1 is not known"),
        (r"\bx", r"at character 1: \\b is not known"),
        ("(?i)a", r"at character 1: of groups that begin with \? only \(\?:…\) is known"),
        ("(?=a)", "only"),
        ("*a", r"at character 1: \* repeats nothing; \\\* is the character"),
        ("a**", "at character 3: a repeat of a repeat"),
        ("a*+", "at character 3: a repeat of a repeat"),
        ("a{2}{2}", r"at character 5: \{ repeats nothing"),
        ("a{3,2}", r"at character 2: \{3,2\} is no repeat"),
        ("a{x}", r"at character 2: \{ repeats nothing"),
        ("a{,2}", r"at character 2: \{ repeats nothing"),
        ("a^b", r"at character 2: \^ stands at the ends only"),
        ("(a$)", r"at character 3: \$ stands at the ends only"),
        ("[b-a]", "at character 1: a range that ends before it begins"),
        (r"[\d-z]", "at character 1: a range is between two characters"),
        (r"[a-\d]", "at character 1: a range is between two characters"),
        (r"[a-\w]", "at character 1: a range is between two characters"),
        ("(" * (MAX_DEPTH + 1) + ")" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} groups within each other"),
        ("a" * (MAX_LENGTH + 1), f"it has {MAX_LENGTH + 1} characters, more than the limit of {MAX_LENGTH}"),
        ("((a{99}){99}){99}", f"it stands for 970299 characters, more than the limit of {MAX_POSITIONS}"),
        ("a{501,}", "it stands for 501 characters"),
        ("((){9999}){9999}", "it stands for 99980001 characters"),
    ],
)
def test_what_is_no_pattern_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        Pattern(text)


@pytest.mark.parametrize("text", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*.*.*)*b", "(a?){200}a{200}", "(.*a.{100})*c"])
def test_no_pattern_runs_for_ever(text):
    """By Python's own engine each of these takes longer than anybody waits, on a name of this length."""
    pattern, begun = Pattern(text), time.process_time()

    assert not pattern.matches("a" * 1023 + "x")
    assert not pattern.matches("ab" * 511 + "x")
    assert time.process_time() - begun < 5


def test_what_is_remembered_has_an_end():
    pattern = Pattern(".*a.{40}")
    names = [format(number * 2654435761 % 2**60, "060b").replace("0", "a").replace("1", "b") for number in range(600)]

    wanted = re.compile(".*a.{40}")
    assert [pattern.matches(name) for name in names] == [bool(wanted.fullmatch(name)) for name in names]
    assert len(pattern._reached) <= 4096
