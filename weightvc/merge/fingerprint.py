"""What decides the bits of a projection besides its inputs: versions, kernels and the machine's kind."""

import platform
import re

import torch

from weightvc.merge import linalg


def fingerprint(device: str) -> dict[str, str]:
    """Return the environment that a lock records: merges are byte-equal where it is equal.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``. On CUDA the name says which GPU and toolkit, not which number.
    """
    config = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version (\S+)", config)
    return {
        "blas": " ".join(filter(None, (_setting("BLAS_INFO", config), mkl and mkl[1]))),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": _device(torch.device(device)),
        "lapack": _setting("LAPACK_INFO", config),
        "linalg": linalg.RULES,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def _setting(name: str, config: str) -> str:
    found = re.search(rf"\b{name}=(\w+)", config)
    return found[1] if found else "unknown"


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, sm_{major}{minor}, cuda {torch.version.cuda}"
