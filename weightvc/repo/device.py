"""The device that matrices are computed on."""

import torch

from weightvc.util.errors import RequestError, UsageError
from weightvc.util.text import printable


def find(name: str) -> str:
    """Return the torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: another name.
        RequestError: no such CUDA device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise UsageError(f"--device {printable(name)} names no device", "write auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise RequestError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices", "pass --device cpu")
    return name
