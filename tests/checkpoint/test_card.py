import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.checkpoint.card import LICENCES, CardTask, front_matter, merge_card, strictest, title

BASE = b"---\nlanguage: en\nlicense: apache-2.0\nbase_model: nreimers/MiniLM-L6\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n- x\n---\n# hello\n"  # noqa: E501


def card(**changes):
    wanted = {
        "base": "minilm",
        "base_card": BASE,
        "tasks": [CardTask("law", 0.7, "ab" * 32, b"---\nlicense: mit\n---\n"), CardTask("med", 1.0, "cd" * 32, None)],
        "method": "opcm",
        "params": {"alpha": 0.5, "ranks": [1, 2]},
    }
    return merge_card(**wanted | changes).decode()


def head(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_whole_card():
    assert (
        card(projected=72)
        == """\
---
base_model:
- nreimers/MiniLM-L6
base_model_relation: merge
tags:
- weightvc
- merge
library_name: sentence-transformers
pipeline_tag: sentence-similarity
license: apache-2.0
---
# Merged model

Made by weightvc from minilm with the method `opcm`.

| task | coefficient | version |
|---|---|---|
| law | 0.7 | `abababababab` |
| med | 1.0 | `cdcdcdcdcdcd` |

| parameter | value |
|---|---|
| alpha | 0.5 |
| ranks | [1,2] |
| tensors projected | 72 |

## Licences

The strictest one is named above; whether all may be combined is for you to check.

- base minilm: apache-2.0
- law: mit
- med: none declared
"""
    )


def test_without_cards_or_parameters():
    text = card(base_card=None, tasks=[], params={})
    assert head(text) == {"base_model_relation": "merge", "tags": ["weightvc", "merge"]}
    assert "parameter" not in text
    assert "- base minilm: none declared" in text


def test_tasks_that_were_stored_lossily_are_named():
    tasks = [CardTask(name, 1.0, "0" * 64, None, lossy) for name, lossy in (("a", True), ("b", False), ("c", True))]
    assert "\nStored lossily, so that what was merged is near what was trained: a, c.\n" in card(tasks=tasks)


def test_licences():
    assert strictest(["mit", "apache-2.0"]) == "apache-2.0"
    assert strictest(["agpl-3.0", "mit", "gpl-3.0"]) == "agpl-3.0"
    assert strictest(["llama3", "cc-by-nc-4.0"]) == "cc-by-nc-4.0"
    assert strictest(["mit", "my-own"]) == "other"
    assert len(set(LICENCES)) == len(LICENCES)
    text = card(base_card=b"---\nlicense: [MIT, My-Own-1]\n---\n")
    assert head(text)["license"] == "other"
    assert head(text)["license_name"] == "my-own-1"
    assert "- base minilm: mit, my-own-1" in text


def test_only_sane_values_are_taken_over():
    hostile = b"base_model: [/home/me/x, a/b, {c: d}]\nlibrary_name: [x]\npipeline_tag: 'a\\nb'\nlicense: <script>"
    text = card(base_card=b"---\n" + hostile + b"\n---\n")
    assert head(text)["base_model"] == ["a/b"]
    assert head(text)["library_name"] == "x"
    assert "pipeline_tag" not in head(text)
    assert head(text)["license"] == "mit"
    assert "script" not in text


def test_cells_cannot_break_the_page():
    text = card(base="a|b<script>`\n", tasks=[CardTask("t", 1.0, "`|", None)], params={"k": "a|`\u202e"})
    assert "from a\\|b&lt;script&gt;'\\u000a with" in text
    assert "| t | 1.0 | `'\\|` |" in text
    assert '| k | "a\\|\'\\u202e" |' in text


@pytest.mark.parametrize(
    "body",
    [
        b"license: " + b"[" * 2000,
        b"license: " + b"[" * 10**6,
        b'license: "\\UFFFFFFFF"',
        b"license: &a [*a]",
        b"license: \xff",
        b"license: mit\n" * 1000,
        b"license:\n" + b" - - \n" * 300,
        b"nothing: here",
        b"license: mit",
        b"license: !!python/object/apply:os.system [x]",
        b"license: [&a {a: b}, {<<: *a}]",
    ],
)
def test_hostile_front_matter_costs_little(body):
    start = time.process_time()
    for data in (b"---\n" + body + b"\n---\n", body, b"---\n" + body):
        front_matter(data)
        card(base_card=data)
    assert time.process_time() - start < 5


def test_front_matter_keeps_what_is_used_only():
    assert front_matter(b"---\r\nlicense: mit\r\nx: [\r\n---\r\n") == {"license": "mit"}
    assert front_matter(b"---\nlicense:\n- mit\n\n- isc\ny: 1\nbase_model: a/b\n---") == {
        "license": ["mit", "isc"],
        "base_model": "a/b",
    }
    assert front_matter(b"---\nmodel-index:\n" + b"- v: 1\n" * 10**5 + b"license: 2024-99-99\n---\n") == {
        "license": "2024-99-99"
    }
    assert front_matter(b"# hello\n---\nlicense: mit\n---\n") == {}
    assert front_matter(b"") == {}


@given(st.binary(max_size=60) | st.text("[]{}&*!?-:'\"\\uUx#|>%@ \n\tab0", max_size=60).map(str.encode))
@settings(max_examples=150, deadline=None)
def test_no_card_makes_it_fail(data):
    yaml.safe_load(card(base_card=b"---\nlicense: " + data + b"\n---\n").split("---\n")[1])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"# Tiny\n", "Tiny"),
        (BASE, "hello"),
        (b"---\nx: 1\n# no title\n---\ntext\n## Part\n# All-MiniLM L6 (v2.1)\r\n# Second\n", "All-MiniLM L6 (v2.1)"),
        ("# Modèle\n".encode(), "Modèle"),
        (b"# [link](http://x)\n# <b>\n# \xff\n#Tight\n", None),
        (b"# " + b"a" * 97, None),
        (b"", None),
        (None, None),
    ],
)
def test_titles(text, name):
    assert title(text) == name
