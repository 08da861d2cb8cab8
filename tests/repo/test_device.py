import pytest
import torch

from weightvc.repo import device
from weightvc.util.errors import RequestError, UsageError


def test_auto_is_a_gpu_if_there_is_one(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device.find("auto") == name


@pytest.mark.parametrize(("name", "count"), [("cpu", 0), ("cuda", 1), ("cuda:0", 1), ("cuda:3", 4)])
def test_devices_that_are_there(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    assert device.find(name) == name


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "cuda:x", "cuda:-1", "", "mps", "cuda:1:2"])
def test_names_of_no_device(name):
    with pytest.raises(UsageError, match="names no device") as caught:
        device.find(name)
    assert caught.value.hint == "write auto, cpu, cuda or cuda:N"


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:1", 1)])
def test_devices_that_are_not_there(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    with pytest.raises(RequestError, match=f"--device {name}: torch sees {count} CUDA devices") as caught:
        device.find(name)
    assert caught.value.hint == "pass --device cpu"
