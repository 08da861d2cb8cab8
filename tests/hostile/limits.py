"""Run by ``test_limits.py`` in a process of its own: parse what claims more than there is, with little memory to spare.

The address space is capped, so that setting aside what is claimed fails, whether or not it would ever be used.
"""

import json
import resource
import struct
import sys
from pathlib import Path

import zstandard

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "fuzz"))

ROOM = 96 * 2**20
"""Bytes beyond what is mapped when everything is imported; the claims below are of gigabytes and more."""

GIB = 2**30


def head(codec, shape, dtype="U8", *, side=False):
    from weightvc.delta.container import Kind, head

    return head(Kind.TENSOR, {"codec": codec, "dtype": dtype, "shape": list(shape), "side": side})


def frames(*bodies):
    import xxhash

    return b"".join(struct.pack("<IQ", len(body), xxhash.xxh3_64_intdigest(body)) + body for body in bodies)


def plane(kind, payload):
    return struct.pack("<BI", kind, len(payload)) + payload


def header(text, length=None):
    return struct.pack("<Q", len(text) if length is None else length) + text


def window(log):
    """Return a zstd frame that asks for a window of 2**log bytes, for 3000 that stand in it as they are."""
    start = b"\x28\xb5\x2f\xfd\x40" + bytes([log - 10 << 3]) + struct.pack("<H", 3000 - 256)
    return start + struct.pack("<I", 3000 << 3 | 1)[:3] + bytes(3000)


def claims():
    """Return a parser's name, what is claimed, and an input that claims it."""
    one = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'
    many = b'{"t%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(GIB // 2))
    frame_of_32_tib = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**45) + b"\x01\x00\x00"
    empty = frames(*[b""] * 8192)
    yield "header", "a length of 2**63", header(b"{}", 2**63)
    yield "header", "a length of 2**31", header(b"{}", 2**31)
    yield "header", "a tensor of 2**47 bytes", header(one % (2**45, 2**47))
    yield "header", "a length of 17 MiB, and as many bytes", header(b"{" + b" " * (17 * 2**20))
    yield "header", "150,000 tensors", header(b",".join(many % at for at in range(150_000))[: 15 * 2**20])
    yield "object", "2**48 - 1 bytes in no chunk", head("raw", [2**48 - 1])
    yield "object", "a header of 4 GiB", struct.pack("<4sBBI", b"WVC\0", 1, 1, 2**32 - 1)
    for name, frame in (
        ("32 TiB", frame_of_32_tib),
        ("a bomb", bomb),
        ("a window", window(31)),
        ("no size", window(27)),
    ):
        yield "object", f"a frame: {name}", head("full", [3000]) + frames(plane(2, frame))
    yield "object", "a frame of 4 GiB", head("full", [3000]) + struct.pack("<IQ", 2**32 - 1, 0) + bytes(99)
    yield "object", "a plane of 4 GiB", head("full", [3000]) + frames(struct.pack("<BI", 0, 2**32 - 1))
    for codec, what, side in (
        ("svd:128", "factors", struct.pack("<Hh", 128, 0)),
        ("intdelta", "factors", b"\2" + struct.pack("<Hh", 128, 0)),
        ("skillpack", "singular vectors", struct.pack("<hHHHH", 0, 0, 0, 0, 128)),
        ("int2", "scales", b"\1"),
    ):
        whole = head(codec, [2**22, 256], "F32", side=True) + frames(side) + empty
        yield "object", f"{what} of a tensor of 4 GiB by {codec}", whole
    yield "bundle", "a part of 2**62 bytes", bundle([2**62, 2**62])
    yield "bundle", "a million parts", bundle([1] * 500_000)
    yield "cached_state", "a header of 4 GiB", struct.pack("<16sI", b"weightvc cache 1", 2**32 - 1)
    yield "cached_state", "a header of 16 MiB", struct.pack("<16sI", b"weightvc cache 1", 2**24)
    yield "json", "nesting", b"[" * 10**6
    yield "json", "an integer of a million digits", b"9" * 10**6
    yield "toml", "nesting", b"a=" + b"[" * 10**6
    yield "toml", "a key of a quarter million parts", b"a." * 250_000 + b"b=1"
    yield "toml", "more than a megabyte", b"a=1\n" * 300_000
    yield "card", "aliases", b"---\nlicense: [" + b"&a [*a," * 100 + b"\n---\n"
    yield "pattern", "a repeat of repeats", b"((((a{999}){999}){999}){999})"
    yield "rule", "a long rule", b"a=" * 500_000
    yield "scores", "a hundred thousand scores", json.dumps({str(at): 1 for at in range(100_000)}).encode()
    yield "outputs", "nesting", b"[" * 10**6


def bundle(sizes):
    text = json.dumps({"sizes": sizes}, separators=(",", ":")).encode()
    return struct.pack("<4sBBI", b"WVC\0", 1, 2, len(text)) + text


def main():
    from parsers import PARSERS

    from weightvc.util.errors import WeightvcError

    inputs = list(claims())
    for parser in PARSERS.values():
        parser.check(parser.seeds()[0])  # what is imported or kept at first use
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    told = {}
    try:
        bytearray(GIB)
    except MemoryError:
        told["the cap"] = "holds"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, what, data in inputs:
        try:
            PARSERS[name].check(data)
        except WeightvcError as error:
            told[f"{name}: {what}"] = error.what[:200]
        except BaseException as error:  # noqa: BLE001 -- that is what is looked for
            told[f"{name}: {what}"] = f"!{type(error).__name__}: {error}"[:200]
        else:
            told[f"{name}: {what}"] = ""
    told["grew"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
