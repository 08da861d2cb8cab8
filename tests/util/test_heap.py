"""A freed large buffer goes back to the system, whatever was freed before."""

import subprocess
import sys

SCRIPT = """
import sys
from weightvc.util import heap
if sys.argv[1] == "steady":
    heap.steady()

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])

first = bytearray(24 * 2**20)  # freed at once: glibc then keeps buffers of up to this size, twice as much in all
del first
before = resident()
pieces = [bytearray(b"x" * 2**20) for _ in range(30)]
del pieces
print(resident() - before)
"""


def kept(how):
    ran = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(ran.stdout) / 1024


def test_large_buffers_are_given_back():
    assert kept("steady") < 8 < kept("default")


def test_another_c_library_is_left_alone(monkeypatch):
    from weightvc.util import heap

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    heap.steady()
