import platform

import torch

from weightvc.merge import linalg
from weightvc.merge.fingerprint import fingerprint

CONFIG = """PyTorch built with:
  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64
  - Build settings: BLAS_INFO=mkl, BUILD_TYPE=Release, LAPACK_INFO=mkl, PERF_WITH_AVX=1,
"""


def test_the_fingerprint_of_this_machine():
    found = fingerprint("cpu")
    assert set(found) == {"blas", "cpu", "device", "lapack", "linalg", "machine", "torch"}
    assert all(isinstance(value, str) and value for value in found.values())
    assert found["torch"] == torch.__version__
    assert found["machine"] == platform.machine()
    assert found["linalg"] == linalg.RULES
    assert found["device"] == "cpu"
    assert found == fingerprint("cpu")


def test_the_algebra_libraries_are_condensed(monkeypatch):
    monkeypatch.setattr(torch.__config__, "show", lambda: CONFIG)
    assert (fingerprint("cpu")["blas"], fingerprint("cpu")["lapack"]) == ("mkl 2024.2-Product", "mkl")
    monkeypatch.setattr(torch.__config__, "show", lambda: "  - Build settings: BLAS_INFO=open, LAPACK_INFO=open,")
    assert (fingerprint("cpu")["blas"], fingerprint("cpu")["lapack"]) == ("open", "open")
    monkeypatch.setattr(torch.__config__, "show", lambda: "")
    assert (fingerprint("cpu")["blas"], fingerprint("cpu")["lapack"]) == ("unknown", "unknown")


def test_a_gpu_is_named_by_its_kind(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.type}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert fingerprint("cuda:1")["device"] == "GPU cuda, sm_90, cuda 12.8"
    assert fingerprint("cuda") == fingerprint("cuda:1")
