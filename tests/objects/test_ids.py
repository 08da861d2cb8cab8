import pytest

from weightvc.objects.ids import hex64, is_hex64, is_task_name, parameter_name, task_name, task_uuid
from weightvc.util.errors import BadInput, UsageError

HEX = "0123456789abcdef" * 4


def test_hex64():
    assert hex64(HEX, "x") == HEX
    assert is_hex64(HEX)


@pytest.mark.parametrize(
    "text",
    [
        None,
        1,
        b"0" * 64,
        "",
        HEX[:-1],
        HEX + "0",
        HEX.upper(),
        HEX[:-1] + "g",
        HEX[:-1] + "\n",
        HEX + "\n",
        "\u0660" * 64,
        "../" * 21 + "a",
    ],
)
def test_what_is_not_hex64(text):
    assert not is_hex64(text)
    with pytest.raises(BadInput, match=r"^manifest: .* is not 64 hexadecimal digits$"):
        hex64(text, "manifest")


def test_a_hostile_id_is_shown_escaped_and_cut():
    with pytest.raises(BadInput) as caught:
        hex64("\u202e" + "x" * 1000, "m")
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("name", ["a", "0", "math", "customer-x", "v1.2_final", "a" * 64, "console", "com10", "nul-x"])
def test_task_names(name):
    assert task_name(name) == name
    assert is_task_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "ä",
        ".x",
        "-D",
        "_x",
        "a/b",
        "../../x",
        "a..b",
        "x.lock",
        "x.",
        "@{",
        "a b",
        "a\nb",
        "a\n",
        "a" * 65,
        "con",
        "nul",
        "prn.json",
        "com1",
        "lpt9.x",
        "a~",
        "a:b",
        "a*",
        "²",
    ],
)
def test_what_cannot_name_a_task(name):
    assert not is_task_name(name)
    with pytest.raises(BadInput, match="cannot name a task") as caught:
        task_name(name)
    assert caught.value.hint == "use 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit, for example: customer-x"
    assert "\n" not in str(caught.value)


def test_parameter_names():
    assert parameter_name("rank_ratio") == "rank_ratio"
    for name in ("", "a-b", "1x", "a b", "x\x1b"):
        with pytest.raises(UsageError, match="is not a parameter name") as caught:
            parameter_name(name)
        assert caught.value.hint == "write -p KEY=VALUE"


def test_task_uuids():
    uuid = "0b8fc3a6-6d0f-4b4e-9c57-0d2a3b5f1c11"
    assert task_uuid(uuid, "x") == uuid
    for text in ("", uuid.upper(), uuid[:-1], uuid + "\n", "../" + uuid, "{" + uuid + "}", uuid.replace("-", "")):
        with pytest.raises(BadInput, match=r"^manifest: .* is not a UUID$"):
            task_uuid(text, "manifest")
