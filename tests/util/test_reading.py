import os
import socket

import pytest

from weightvc.util.errors import Corrupt
from weightvc.util.reading import read_file


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "f").write_bytes(b"data")
    (tmp_path / "empty").touch()
    assert read_file(tmp_path / "f", "", most=4) == b"data"
    assert read_file(tmp_path / "empty", "", most=0) == b""


def test_what_is_not_there_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "f", "")


@pytest.mark.parametrize("kind", ["fifo", "link", "device", "loop", "socket", "directory"])
def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path has about 100 bytes
    path = tmp_path / "f\x1b"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            (tmp_path / "g").touch()
            path.symlink_to(tmp_path / "g")
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        case "directory":
            path.mkdir()
    with pytest.raises(Corrupt, match="not a regular file") as caught:
        read_file(path, "delete it")
    assert (caught.value.what, caught.value.hint) == (f"{tmp_path}/f\\u001b: not a regular file", "delete it")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "f").touch()
    os.truncate(tmp_path / "f", 5 * 2**30)
    with pytest.raises(Corrupt, match=r"f: 5368709120 bytes, more than the limit of 10"):
        read_file(tmp_path / "f", "", most=10)
