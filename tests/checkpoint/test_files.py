import os
import socket

import pytest

from weightvc.checkpoint.files import map_file, regular_size
from weightvc.util.errors import BadInput, NotFound


def test_maps_read_only(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    view = map_file(tmp_path / "f")
    assert bytes(view) == b"abc"
    assert view.readonly
    assert regular_size(tmp_path / "f") == 3


def test_an_empty_file(tmp_path):
    (tmp_path / "f").touch()
    assert bytes(map_file(tmp_path / "f")) == b""


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "l").symlink_to("f")
    assert bytes(map_file(tmp_path / "l")) == b"abc"


def test_what_is_no_file_is_refused_unopened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)
        server.bind("socket")
        monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
        for path in (tmp_path / "fifo", tmp_path / "socket", tmp_path, tmp_path.joinpath("/dev/zero")):
            with pytest.raises(BadInput, match=r": not a regular file$") as caught:
                map_file(path)
            assert str(path) in caught.value.what
            assert caught.value.hint == "give a file or a model directory"


def test_what_is_not_there(tmp_path):
    (tmp_path / "l").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFound, match=r"/x: no such file or directory$"):
        map_file(tmp_path / "x")
    with pytest.raises(NotFound, match=r"/l: a symbolic link that leads nowhere$"):
        map_file(tmp_path / "l")
    with pytest.raises(BadInput, match=r"/loop: cannot be examined \(Too many levels of symbolic links\)"):
        map_file(tmp_path / "loop")


def test_what_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "f").touch()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadInput, match=r"/f: cannot be read \(Permission denied\)") as caught:
        map_file(tmp_path / "f")
    assert caught.value.hint == "check its permissions"
