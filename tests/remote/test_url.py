import pytest

from weightvc.remote.url import DRIVERS, ObjectUrl
from weightvc.util.errors import BadInput


@pytest.mark.parametrize(
    ("text", "scheme", "path"),
    [
        ("s3://bucket", "s3", "bucket"),
        ("s3://bucket/a/b/", "s3", "bucket/a/b"),
        ("gs://bucket/x-y_z.1", "gs", "bucket/x-y_z.1"),
        ("az://container/team", "az", "container/team"),
        ("hf://datasets/org/name", "hf", "datasets/org/name"),
        ("sftp://me@host/srv/weights", "sftp", "me@host/srv/weights"),
        ("sftp://host:2222/srv", "sftp", "host:2222/srv"),
        ("file:///mnt/disk/", "file", "/mnt/disk"),
        ("/mnt/a disk", "file", "/mnt/a disk"),
        ("file:///", "file", "/"),
    ],
)
def test_addresses(text, scheme, path):
    url = ObjectUrl.parse(text)
    assert (url.scheme, url.path) == (scheme, path)
    assert ObjectUrl.parse(str(url)) == url


def test_a_path_is_that_of_this_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert str(ObjectUrl.parse("objects")) == f"file://{tmp_path}/objects"
    assert str(ObjectUrl.parse("./x/../objects")) == f"file://{tmp_path}/objects"


HOSTILE = [
    "", "ext::sh -c evil", "simplecache::s3://b", "s3://a::file:///etc", "s3://", "s3:///b", "s3://b//c", "s3://b/../c",
    "s3://b/./c", "s3://key:secret@b", "s3://key@b", "s3://b?endpoint_url=http://evil", "s3://b#x", "s3://b/%2e%2e",
    "s3://b\n", "s3://b/\x1b[31m", "s3://b c", "S3://b", "http://b", "https://b", "ftp://b", "memory://b", "zip://b",
    "git://b", "local://b", "data:x::y", "file://host/x", "file:///a/../b", "file:///a\nb", "s3://" + "b" * 1100,
    "sftp://@host/x", "sftp://u:p@host/x", "sftp://host:port/x", "x\x00", "--upload-pack=evil://x",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_address_or_says_more_than_a_place(text):
    with pytest.raises(BadInput) as caught:
        ObjectUrl.parse(text)
    assert caught.value.hint
    assert caught.value.what.isprintable()


@pytest.mark.parametrize("text", ["file:///etc", "/etc", "etc", "../x", *HOSTILE])
def test_what_a_file_that_travels_may_not_name(text):
    with pytest.raises(BadInput):
        ObjectUrl.parse(text, tracked=True)


@pytest.mark.parametrize("scheme", DRIVERS)
def test_what_it_may_name(scheme):
    assert ObjectUrl.parse(f"{scheme}://host/x", tracked=True).scheme == scheme
