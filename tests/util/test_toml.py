import pytest

from weightvc.util import toml
from weightvc.util.errors import BadInput


def test_what_people_write():
    text = "# a.b.c.d.e.f\n[merge]\nmethod = 'opcm-s'\nx.y.z = 1\n"
    text += 'params = { other = "a.b.c.d.e.f.g.h.i.j", alpha = 0.5 }\n'
    assert toml.parse(text.encode(), "f") == {
        "merge": {"method": "opcm-s", "params": {"other": "a.b.c.d.e.f.g.h.i.j", "alpha": 0.5}, "x": {"y": {"z": 1}}}
    }


@pytest.mark.parametrize(
    "key", ["a." * 8 + "a", "a . " * 60_000 + "a", "x = {" + "b." * 9 + "c", '["a".' + "'b'." * 9 + "c]"]
)
def test_long_keys_are_refused_before_they_are_parsed(key):
    with pytest.raises(BadInput, match=r"^f: a key of more than eight parts$"):
        toml.parse(f"{key} = 1\n".encode(), "f")


@pytest.mark.parametrize("data", [b"\xff", b"a = ", b"a = 1\na = 2\n", b"a = " + b"[" * 100_000])
def test_what_is_no_toml_is_refused(data):
    with pytest.raises(BadInput, match=r"^f: not valid TOML \("):
        toml.parse(data, "f")


def test_too_much_is_refused():
    assert toml.parse(b"#" * toml.MAX_BYTES, "f") == {}
    with pytest.raises(BadInput, match=r"^f: 1048577 bytes of TOML, more than the limit of 1048576$"):
        toml.parse(b"#" * (toml.MAX_BYTES + 1), "f")
