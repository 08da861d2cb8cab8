"""A real S3 server on this machine."""

import socket

import pytest
from moto.server import ThreadedMotoServer

from weightvc.remote.bucket import Bucket
from weightvc.remote.drivers import filesystem
from weightvc.remote.url import ObjectUrl


@pytest.fixture(scope="session")
def _server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def s3(_server, monkeypatch, request):
    """The environment of an S3 server with one empty bucket, and that bucket's name."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": _server,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.nodeid)):x}"
    filesystem(ObjectUrl.parse(f"s3://{name}")).mkdir(name)
    return name


@pytest.fixture
def bucket(s3, tmp_path):
    """A store in an S3 bucket."""
    url = ObjectUrl.parse(f"s3://{s3}/team/weights")
    return Bucket(url, filesystem(url), tmp_path / "tmp")
