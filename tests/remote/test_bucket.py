"""A store of objects in a bucket, against a real S3 server on this machine."""

import hashlib
import subprocess
import sys

import pytest

from weightvc.remote import drivers, retry
from weightvc.remote.bucket import PART, Bucket
from weightvc.remote.drivers import filesystem
from weightvc.remote.retry import tried
from weightvc.remote.url import ObjectUrl
from weightvc.util.errors import BadInput, Corrupt, Missing, RemoteError, RequestError


def oid(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def files(bucket):
    return filesystem(bucket.url)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("data", [b"", b"weights" * 1000, bytes(range(256)) * 4 * 4096 * 9], ids=len)
def test_what_is_put_comes_back(bucket, data):
    """Also what is sent in several parts."""
    assert len(data) < 2 * PART or len(data) > 2 * PART
    stored = bucket.put([data[:5], data[5:]], expected=oid(data))
    assert (stored.object, stored.size, stored.new) == (oid(data), len(data), True)
    assert b"".join(bucket.read(oid(data), len(data))) == data
    assert bytes(bucket.open(oid(data))) == data
    assert bucket.size(oid(data)) == len(data)
    bucket.verify(oid(data))
    bucket.sync()
    again = bucket.put([data])
    assert not again.new
    assert list(bucket._tmp.iterdir()) == []


def test_the_layout_is_that_of_a_store_on_disk(bucket, files):
    bucket.put([b"x"])
    (name,) = files.find(bucket.url.path)
    assert name == f"{bucket.url.path}/objects/{oid(b'x')[:2]}/{oid(b'x')[2:]}"


def test_what_is_absent(bucket):
    lacking = oid(b"lacking")
    assert bucket.size(lacking) is None
    assert bucket.sizes([lacking, lacking[:3] + "0" * 61]) == {}
    assert list(bucket.ids()) == []
    with pytest.raises(Missing, match=f"object {lacking} is not at {bucket.url}"):
        list(bucket.read(lacking))


def test_lists(bucket):
    datas = [str(n).encode() for n in range(600)]
    chosen = [data for data in datas if oid(data)[0] == "7"]
    for data in chosen:
        bucket.put([data])
    known = {oid(data): len(data) for data in chosen}
    assert set(bucket.ids()) == set(known)
    asked = [*known, oid(b"lacking"), "7" * 64]
    assert bucket.sizes(asked) == known
    one = next(iter(known))
    assert bucket.sizes([one]) == {one: known[one]}


def test_names_that_are_no_objects_are_passed_over(bucket, files):
    root = f"{bucket.url.path}/objects"
    name = oid(b"x")
    for odd in (f"{name[:2]}/{name[2:]}x", f"{name[:2]}/../../x", f"zz/{name[2:]}", "x"):
        files.pipe_file(f"{root}/{odd}", b"x")
    assert list(bucket.ids()) == []


def test_a_name_with_a_line_break_is_none(bucket, monkeypatch):
    """That the server here does not take; others do."""
    name = oid(b"x")
    line = {"name": f"b/objects/{name[:2]}/{name[2:]}\n", "size": 1, "type": "file"}
    folder = {**line, "name": line["name"].strip(), "type": "directory"}
    monkeypatch.setattr(bucket._files, "ls", lambda *_, **__: [line, folder])
    assert list(bucket.ids()) == []


def test_what_is_not_the_object_is_not_sent(bucket):
    with pytest.raises(Corrupt, match=f"its bytes hash to {oid(b'x')}"):
        bucket.put([b"x"], expected=oid(b"y"))
    assert list(bucket.ids()) == []


def test_an_object_that_was_cut_short_there_is_sent_again(bucket, files):
    data = b"weights" * 100
    key = bucket._key(oid(data))
    files.pipe_file(key, data[:10])
    with pytest.raises(Corrupt, match="hashes to"):
        bucket.verify(oid(data))
    assert bucket.put([data]).new
    bucket.verify(oid(data))


@pytest.mark.parametrize("size", [101, 3 * PART])
def test_more_than_was_asked_for_is_not_taken(bucket, files, size):
    files.pipe_file(bucket._key(oid(b"x")), b"\0" * size)
    with pytest.raises(Corrupt, match=rf"object {oid(b'x')}: {bucket.url} sends \d+ bytes of it or more, 100 were"):
        list(bucket.read(oid(b"x"), 100))
    assert list(bucket._tmp.iterdir()) == []


def test_a_put_that_fails_for_a_moment_is_tried_again(bucket, monkeypatch):
    real, failures = bucket._files.put_file, [OSError("reset"), TimeoutError()]

    def put_file(*arguments, **options):
        if failures:
            raise failures.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(bucket._files, "put_file", put_file)
    bucket.put([b"x"])
    bucket.verify(oid(b"x"))


def test_one_that_never_works_is_an_error(bucket, monkeypatch):
    def put_file(*_, **__):
        raise OSError("503 Slow Down")

    monkeypatch.setattr(bucket._files, "put_file", put_file)
    with pytest.raises(RemoteError, match=f"{bucket.url}: 503 Slow Down") as caught:
        bucket.put([b"x"])
    assert caught.value.hint == "try again; what has arrived is not sent again"


def test_what_is_damaged_there_is_written_over(bucket, files):
    data = b"weights" * 100
    bucket.put([data])
    files.pipe_file(bucket._key(oid(data)), bytes(len(data)))
    assert bucket.put([data]).new
    bucket.verify(oid(data))


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket, s3, tmp_path):
    bucket.check()
    url = ObjectUrl.parse(f"s3://{s3}-not/x")
    lacking = Bucket(url, filesystem(url), tmp_path)
    with pytest.raises(RemoteError, match=f"{url}: there is no such bucket"):
        lacking.check()
    with pytest.raises(RemoteError, match=f"{url}: there is no such bucket"):
        lacking.put([b"x"])


def test_who_may_not_look_at_a_bucket_may_have_rights_in_it(bucket, monkeypatch):
    def info(_):
        raise PermissionError("403")

    monkeypatch.setattr(bucket._files, "info", info)
    bucket.check()
    with pytest.raises(RemoteError, match="access denied"):
        bucket.size(oid(b"x"))


@pytest.mark.parametrize("name", ["NoCredentialsError", "ProfileNotFound", "ValueError"])
def test_settings_that_are_not_there_are_said_at_once(name):
    calls = []

    def job():
        calls.append(1)
        raise (ValueError if name == "ValueError" else type(name, (Exception,), {}))("no such thing")

    with pytest.raises(RemoteError, match="no such thing") as caught:
        tried("s3://b", job)
    assert (len(calls), caught.value.hint) == (1, "look at the credentials and the endpoint in the environment")


def test_access_denied_is_said_at_once():
    calls = []

    def job():
        calls.append(1)
        raise PermissionError("403")

    with pytest.raises(RemoteError, match="access denied") as caught:
        tried("s3://b", job)
    assert (len(calls), caught.value.hint) == (1, "look at the credentials and the endpoint in the environment")


def test_what_will_not_change_is_not_tried_again():
    calls = []

    def job():
        calls.append(1)
        raise BadInput("no")

    with pytest.raises(BadInput):
        tried("s3://b", job)
    assert len(calls) == 1


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(RequestError, match="gs://b needs gcsfs") as caught:
        filesystem(ObjectUrl.parse("gs://b"))
    assert caught.value.hint == "run `pip install 'weightvc[gcs]'`"


def test_a_driver_that_does_not_start_is_said(monkeypatch):
    def failing(*_, **__):
        raise ValueError("no region")

    monkeypatch.setattr(drivers.fsspec, "filesystem", failing)
    with pytest.raises(RemoteError, match="s3://b cannot be opened: no region"):
        filesystem(ObjectUrl.parse("s3://b"))


def test_an_endpoint_that_nobody_answers(monkeypatch, s3, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    url = ObjectUrl.parse(f"s3://{s3}")
    with pytest.raises(RemoteError, match=f"{url}: "):
        Bucket(url, filesystem(url), tmp_path).size(oid(b"x"))


def test_no_torch():
    code = "import sys, weightvc.remote.bucket, weightvc.remote.drivers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
