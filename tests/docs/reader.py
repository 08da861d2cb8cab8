"""Reads objects by the words of docs/format/ alone. Imports nothing of weightvc, on purpose."""

import itertools
import json
import math

import numpy as np
import rans_reader
import xxhash
import zstandard

BITS = {"F4": 4, "U8": 8, "F16": 16, "BF16": 16, "F32": 32, "U32": 32, "I64": 64, "F64": 64}
BIAS = {1: 0, 2: 0x80, 4: 0x808080, 8: 0x80808080808080}


def floats(dtype, bits):
    """Bit patterns as numbers."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view({"F16": np.float16, "F32": np.float32}[dtype]).astype(np.float64)


def words(dtype, numbers):
    """Numbers as bit patterns, rounded to nearest even."""
    if dtype == "BF16":
        single = [int(bits) for bits in numbers.astype(np.float32).view(np.uint32)]
        return np.array([(bits + 0x7FFF + (bits >> 16 & 1)) >> 16 for bits in single], np.uint16)
    return numbers.astype({"F16": np.float16, "F32": np.float32}[dtype]).view(f"<u{BITS[dtype] // 8}")


def number(data, start, size):
    return int.from_bytes(data[start : start + size], "little")


def parts(data, kind):
    """Prefix and header: return the header and the body."""
    assert data[:4] == bytes.fromhex("57564300")
    assert (data[4], data[5]) == (1, kind)
    end = 10 + number(data, 6, 4)
    header = json.loads(data[10:end])
    assert json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == data[10:end]
    return header, data[end:]


def plane(kind, payload, c):
    if kind == 0:
        assert len(payload) == c
        return payload
    if kind == 1:
        assert len(payload) == 1
        return payload * c
    assert kind == 2
    declared = zstandard.get_frame_parameters(payload)
    assert declared.content_size == c
    assert declared.window_size <= 8 * 2**20
    return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)


def take_planes(body, c, w):
    """Byte planes of c words: return the words and what follows them."""
    d = np.zeros((c, w), np.uint8)
    for k in range(w):
        length = number(body, 1, 4)
        d[:, k] = np.frombuffer(plane(body[0], body[5 : 5 + length], c), np.uint8)
        body = body[5 + length :]
    return d.reshape(-1).view(f"<u{w}"), body


def all_planes(body, c, w):
    found, rest = take_planes(body, c, w)
    assert not rest
    return found


def full(header, body, c, w):
    turned = [int(word) for word in all_planes(body, c, w)]
    if header["dtype"] in {"F64", "F32", "F16", "BF16"}:
        turned = [word >> 1 | (word & 1) << (8 * w - 1) for word in turned]
    return np.array(turned, f"<u{w}")


EXPONENTS = {"F64": (52, 0xFF), "F32": (23, 0xFF), "F16": (10, 0x1F), "BF16": (7, 0xFF)}


def difference(body, guess, dtype):
    """d of docs/format/intdelta.md for the words that ``guess`` predicts."""
    c, w = guess.size, guess.itemsize
    if body[0] == 2:
        shift, mask = EXPONENTS.get(dtype, (0, 0))
        return np.array(rans_reader.decode(body[1:], [int(word) >> shift & mask for word in guess], w), f"<u{w}")
    bias = np.array(BIAS[w], f"<u{w}")
    if body[0] == 0:
        return all_planes(body[1:], c, w) - bias
    assert body[0] == 1
    n = number(body, 1, 4)
    bits = all_planes(body[5 : 5 + n], -(-c // 8), 1)
    changed = [j for j in range(c) if bits[j // 8] >> (j % 8) & 1]
    d = np.zeros(c, f"<u{w}")
    d[changed] = all_planes(body[5 + n :], len(changed), w) - bias
    return d


def matrix(body, size):
    """An array of integers of the low-rank predictor; and what follows it."""
    found = []
    while len(found) < size:
        length = number(body, 0, 4)
        piece = all_planes(body[4 : 4 + length], min(size - len(found), 131072), 4)
        found += [int(word) - 2**23 for word in piece]
        body = body[4 + length :]
    return np.array(found, np.float64), body


def prediction(header, side, base):
    """All predicted words of a tensor."""
    if not side:
        return base
    if side[0] == 1:
        table = all_planes(side[1:], 256, 4)
        return base + table[base >> 15 & 255]
    assert side[0] == 2
    rows, columns = header["shape"]
    r, s = number(side, 1, 2), int.from_bytes(side[3:5], "little", signed=True)
    left, rest = matrix(side[5:], rows * r)
    right, rest = matrix(rest, r * columns)
    assert not rest
    sums = left.reshape(rows, r) @ right.reshape(r, columns)
    return words(header["dtype"], floats(header["dtype"], base) + (sums * 2.0**-s).reshape(-1))


def scales(body, size):
    """The scales of docs/format/lossy.md."""
    found = []
    while len(found) < size:
        length = number(body, 0, 4)
        found += all_planes(body[4 : 4 + length], min(size - len(found), 131072), 4).tolist()
        body = body[4 + length :]
    assert not body
    assert max(found) < 0x7F800000
    return np.array(found, np.uint32).view(np.float32).astype(np.float64)


def codes(body, c, limit, held):
    """Codes of a chunk's elements whose scales are not 0."""
    if not c:
        assert not body
        return []
    found = []
    for byte in all_planes(body, -(-c // held), 1).tolist():
        assert byte < (2 * limit + 1) ** held
        found += [byte // (2 * limit + 1) ** place % (2 * limit + 1) - limit for place in range(held)]
    assert not any(found[c:])
    return found[:c]


LOSSY = {"int8": (127, 1), "int4": (7, 2), "int2": (1, 5), "bitdelta": (1, 5), "t-switch": (1, 5)}


def array(body, size, w):
    """An array in pieces; and what follows it."""
    found = []
    while len(found) < size:
        length = number(body, 0, 4)
        found += all_planes(body[4 : 4 + length], min(size - len(found), 524288 // w), w).tolist()
        body = body[4 + length :]
    return found, body


def unpacked(body, c, limit, held):
    """Codes that stand several in a byte; and what follows them."""
    packed, body = array(body, -(-c // held), 1)
    assert all(byte < (2 * limit + 1) ** held for byte in packed)
    found = [byte // (2 * limit + 1) ** place % (2 * limit + 1) - limit for byte in packed for place in range(held)]
    assert not any(found[c:])
    return np.array(found[:c], np.float64), body


def skillpack(side, rows, n):
    """By how much each element moves, by singular vectors."""
    s, body = int.from_bytes(side[:2], "little", signed=True), side[10:]
    counts = [number(side, at, 2) for at in (2, 4, 6, 8)]
    assert sum(counts) <= min(256, rows, n)
    w, body = array(body, sum(counts), 4)
    marks, body = array(body, rows, 1)
    assert max([*w, 0]) <= 2**20
    assert {*marks} <= {0, 1}
    live, step, k = np.flatnonzero(marks), np.zeros((rows, n)), 0
    for count, limit, held in zip(counts, (127, 7, 3, 1), (1, 2, 2, 5), strict=True):
        if count:
            left, body = unpacked(body, count * len(live), limit, held)
            right, body = unpacked(body, count * n, limit, held)
            step[live] += (left.reshape(count, -1).T * w[k : k + count]) @ right.reshape(count, n)
            k += count
    assert not body
    return (step * 2.0**-s).reshape(-1)


def moves(header, side, chunks, w):
    """By how much each element moves, by docs/format/lossy.md."""
    codec, rows = header["codec"], header["shape"][0]
    elements = math.prod(header["shape"])
    n = elements // rows
    if codec == "skillpack":
        assert not any(chunks)
        return skillpack(side, rows, n)
    if codec.startswith("svd:"):
        assert not any(chunks)
        r, s = number(side, 0, 2), int.from_bytes(side[2:4], "little", signed=True)
        assert r <= int(codec[4:]) <= 128
        left, rest = matrix(side[4:], rows * r)
        right, rest = matrix(rest, r * n)
        assert not rest
        return (left.reshape(rows, r) @ right.reshape(r, n) * 2.0**-s).reshape(-1)
    width = 64 if codec == "int2" else n
    groups = [0 if codec == "t-switch" else e // n * -(-n // width) + e % n // width for e in range(elements)]
    scale = scales(side, groups[-1] + 1)[groups]
    step, each = np.zeros(elements), 524288 // w
    for index, body in enumerate(chunks):
        part = slice(index * each, (index + 1) * each)
        live = np.flatnonzero(scale[part])
        step[part][live] = codes(body, len(live), *LOSSY[codec])
    return step * scale


def moved(header, step, base):
    """The words that come back."""
    with np.errstate(over="ignore"):
        found = words(header["dtype"], floats(header["dtype"], base) + step)
    stays = (step == 0) | ~np.isfinite(floats(header["dtype"], found))
    return np.where(stays, base, found)


def lengths(body):
    """The lengths of frames."""
    while body:
        yield 12 + number(body, 0, 4)
        body = body[12 + number(body, 0, 4) :]


def decode(data, base):
    header, body = parts(data, 1)
    assert sorted(header) == ["codec", "dtype", "shape", "side"]
    bits = BITS[header["dtype"]]
    w = max(1, bits // 8)
    left = math.prod(header["shape"]) * bits // 8
    side = b""
    if header["side"]:
        n = number(body, 0, 4)
        side, body, checksum = body[12 : 12 + n], body[12 + n :], number(body, 4, 8)
        assert side
        assert xxhash.xxh3_64_intdigest(side) == checksum
    if header["codec"] == "intdelta":
        guess = prediction(header, side, np.frombuffer(base, f"<u{w}"))
    lossy = header["codec"] not in {"intdelta", "full", "raw"}
    if lossy:
        ends = np.cumsum([0, *lengths(body)])
        chunks = [body[start + 12 : end] for start, end in itertools.pairwise(ends)]
        guess = moved(header, moves(header, side, chunks, w), np.frombuffer(base, f"<u{w}"))
    raw = b""
    while left:
        size = min(left, 524288)
        n = number(body, 0, 4)
        inner = body[12 : 12 + n]
        if header["codec"] == "intdelta":
            start = len(raw) // w
            part = guess[start : start + size // w]
            inner = (part + difference(inner, part, header["dtype"])).tobytes()
        elif lossy:
            inner = guess[len(raw) // w :][: size // w].tobytes()
        elif header["codec"] == "full":
            inner = full(header, inner, size // w, w).tobytes()
        assert len(inner) == size
        assert xxhash.xxh3_64_intdigest(inner) == number(body, 4, 8)
        raw += inner
        left -= size
        body = body[12 + n :]
    assert not body
    return header, side, raw
