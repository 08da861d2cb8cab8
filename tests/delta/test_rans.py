"""The entropy coder of level ``best``: it gives back every word, is small, and refuses what it did not make."""

import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.delta.container import CHUNK
from weightvc.delta.rans import coder as rans
from weightvc.delta.rans import freqs, golomb, tokens
from weightvc.delta.rans.model import Model
from weightvc.util.errors import Corrupt

WIDTHS = [1, 2, 4, 8]


def unpack(body, contexts, dtype):
    out = np.empty(contexts.size, dtype)
    rans.unpack(memoryview(body), contexts, out)
    return out


def round_trip(words, contexts):
    kept = words.copy(), contexts.copy()
    words.flags.writeable = contexts.flags.writeable = False
    body = rans.pack(words, contexts)
    assert np.array_equal(unpack(body, contexts, words.dtype), words)
    assert np.array_equal(words, kept[0])
    assert np.array_equal(contexts, kept[1])
    assert len(body) <= words.nbytes + 1
    return body


def laplace(rng, size, scale, width):
    """Differences whose scale doubles with each of twelve contexts, which are as rare as exponents are."""
    contexts = np.minimum(rng.geometric(0.5, size), 12).astype(np.uint8)
    limit = 2.0 ** (8 * width - 1) - 1
    drawn = np.clip(rng.laplace(0, scale * 2.0 ** contexts.astype(float)), -limit, limit)
    return drawn.round().astype(np.int64).astype(f"i{width}").view(f"u{width}"), contexts


def extremes(rng, size, width):
    edges = np.array([1 << bit for bit in range(8 * width)], np.uint64)
    drawn = rng.choice(np.concatenate((edges, edges - np.uint64(1), ~edges, np.uint64(0) - edges)), size)
    return drawn.astype(f"u{width}")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [*range(1, 34), 255, 256, 257, 511, 512, 1000])
def test_every_size_comes_back(width, size):
    rng = np.random.default_rng(size)
    round_trip(*laplace(rng, size, 0.1, width))
    contexts = rng.integers(0, 4, size).astype(np.uint8)
    for words in (extremes(rng, size, width), rng.integers(0, 3, size), np.full(size, -7)):
        round_trip(words.astype(f"u{width}"), contexts)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("short", [0, 1])
def test_full_chunks_come_back(width, short):
    rng = np.random.default_rng(width)
    size = CHUNK // width - short
    contexts = rng.integers(0, 256, size).astype(np.uint8)
    drawn = rng.integers(0, 2**64, size, np.uint64).astype(f"u{width}")
    assert len(round_trip(drawn, contexts)) == 1 + drawn.nbytes
    for scale in (1e-6, 0.01, 2.0 ** (3 * width)):
        round_trip(*laplace(rng, size, scale, width))
    skewed = np.where(rng.random(size) < 0.99, 0, extremes(rng, size, width)).astype(f"u{width}")
    round_trip(skewed, contexts)
    round_trip(skewed, np.sort(contexts))
    round_trip((contexts // 64).astype(f"u{width}"), contexts)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_words_and_contexts_come_back(data):
    width = data.draw(st.sampled_from(WIDTHS))
    size = data.draw(st.integers(1, 1500))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    few = data.draw(st.lists(st.integers(0, 2 ** (8 * width) - 1), min_size=1, max_size=40))
    words = rng.choice(np.array(few, f"u{width}"), size)
    contexts = rng.integers(0, data.draw(st.integers(1, 256)), size).astype(np.uint8)
    round_trip(words, contexts)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_contexts_tell_takes_no_room(width):
    contexts = np.repeat(np.array([3, 9, 255], np.uint8), 1000)
    words = np.repeat(np.array([2, 0, 2 ** (8 * width) - 1], f"u{width}"), 1000)
    assert len(round_trip(words, contexts)) < 40
    assert len(round_trip(np.zeros(CHUNK // width, f"u{width}"), np.zeros(CHUNK // width, np.uint8))) < 25


def test_a_few_changed_words_take_little_room():
    words = np.zeros(CHUNK // 2, np.uint16)
    words[1234:1237] = 1, 2, 0x8000
    assert len(round_trip(words, np.zeros(words.size, np.uint8))) < 800


def entropy(counts):
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum()) / 8


@pytest.mark.parametrize(("width", "scale", "over"), [(2, 0.05, 1.04), (2, 1.0, 1.02), (2, 4.0, 1.015), (4, 8.0, 1.03)])
def test_size_is_near_the_entropy_under_each_context(width, scale, over):
    words, contexts = laplace(np.random.default_rng(1), CHUNK // width, scale, width)
    groups = freqs.group_of(freqs.groups(np.bincount(contexts, minlength=256)))[contexts]
    ideal = sum(entropy(np.unique(words[groups == group], return_counts=True)[1]) for group in range(groups.max() + 1))
    assert len(rans.pack(words, contexts)) < over * ideal


def test_same_bytes_in_every_thread():
    rng = np.random.default_rng(2)
    chunks = [laplace(rng, CHUNK // width // 4, 1.0, width) for width in (2, 4)]
    want = [rans.pack(*chunk) for chunk in chunks]

    def work(number):
        words, contexts = chunks[number % 2]
        body = rans.pack(words, contexts)
        return body == want[number % 2] and np.array_equal(unpack(body, contexts, words.dtype), words)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(16)))


def test_words_need_no_alignment_and_may_lie_apart():
    words, contexts = laplace(np.random.default_rng(3), 3000, 1.0, 4)
    want = rans.pack(words, contexts)
    room = bytearray(1 + words.nbytes)
    room[1:] = words.tobytes()
    assert rans.pack(np.frombuffer(memoryview(room)[1:], np.uint32), contexts) == want
    out = np.frombuffer(room, np.uint32, offset=1)
    out[:] = 0
    rans.unpack(memoryview(want), contexts, out)
    assert np.array_equal(out, words)


def mangled(body):
    yield from (body[:end] for end in range(len(body)))
    yield from (body + extra for extra in (b"\0", b"\0\0\0\0", body))
    for at, byte in enumerate(body):
        for other in {byte ^ 1 << bit for bit in range(8)} | {0, 255} - {byte}:
            yield body[:at] + bytes([other]) + body[at + 1 :]


def samples():
    rng = np.random.default_rng(4)
    wide, contexts = laplace(rng, 100, 2.0**40, 8)
    yield np.where(rng.random(100) < 0.1, wide, wide % np.uint64(7)), contexts
    yield laplace(rng, 500, 0.2, 2)
    contexts = np.repeat(np.array([1, 2, 3], np.uint8), 400)
    yield contexts.astype(np.uint32), contexts
    yield rng.integers(0, 2**32, 60, np.uint32), np.zeros(60, np.uint8)


@pytest.mark.parametrize("number", range(4))
def test_what_pack_did_not_make_is_refused_or_decodes_to_something(number):
    words, contexts = list(samples())[number]
    body = rans.pack(words, contexts)
    refused = 0
    unpack(body, contexts, words.dtype)
    for wrong in mangled(body):
        try:
            unpack(wrong, contexts, words.dtype)
        except Corrupt:
            refused += 1
        else:
            assert len(wrong) == len(body)
    assert refused >= len(body) + 3


def test_what_a_body_claims_is_not_allocated():
    words, contexts = list(samples())[1]
    body = rans.pack(words, contexts)
    tracemalloc.start()
    for wrong in mangled(body[:60]):
        with pytest.raises(Corrupt):
            unpack(wrong, contexts, words.dtype)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@given(st.binary(max_size=200), st.integers(1, 600), st.sampled_from(WIDTHS))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_decodes_to_something(noise, size, width):
    try:
        unpack(noise, np.zeros(size, np.uint8), f"u{width}")
    except Corrupt as error:
        assert error.what  # noqa: PT017 - noise may decode as well


def head(kept=5, log_lanes=0, taper=1, starts=()):
    return struct.pack("<BBBB", kept, log_lanes, taper, len(starts)) + bytes(starts)


def table(numbers, gaps, roots):
    return b"".join(golomb.pack(np.array(values)) for values in (numbers, gaps, roots))


TWO = head() + table([1], [0, 1], [2, 2])
"""One table: +0 and +1, with equal odds."""

START = golomb.pack(np.array([8]))
"""The state of one lane in which it starts and, coded nothing, ends."""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the head is cut short"),
        (b"\0abc", "3 bytes of words, 2000 expected"),
        (head(kept=6), "a number in the head is out of range"),
        (head(log_lanes=11), "a number in the head is out of range"),
        (head(taper=0), "a number in the head is out of range"),
        (head(taper=65), "a number in the head is out of range"),
        (head(starts=[1, 2, 3]), "a number in the head is out of range"),
        (head(starts=[1, 2])[:-1], "the groups of contexts are not in order"),
        (head(starts=[0]), "the groups of contexts are not in order"),
        (head(starts=[7, 7]), "the groups of contexts are not in order"),
        (head(), "Golomb codes are cut short"),
        (head() + b"\x07\x01\x00\xff", "Golomb codes are cut short"),
        (head() + b"\x00\x02\x00\xff", "Golomb codes are cut short"),
        (head() + b"\x00\x01\x00\x04", "Golomb codes are cut short"),
        (head() + b"\x00\x01\x00\x03", "2 Golomb codes where 1 of less than 16 bits were expected"),
        (head() + b"\x00\x03\x00\x00\x00\x01", "1 Golomb codes where 1 of less than 16 bits were expected"),
        (head() + table([2048], [0], [0]), "a table has too many tokens"),
        (head() + table([0], [2048], [2]), "a root in the tables is out of range"),
        (head() + table([0], [0], [0]), "a root in the tables is out of range"),
        (head() + table([0], [0], [2048]), "a root in the tables is out of range"),
        (head(kept=1) + table([0], [256], [2]), "a token has too many raw bits"),
        (head() + table([0], [2], [2]) + b"xy", "2 bytes follow the last word"),
        (TWO + golomb.pack(np.array([9])), "a state has less than no bytes"),
        (TWO + golomb.pack(np.array([0])) + bytes(7), "states are cut short"),
        (TWO + START, "the number of units is cut short"),
        (TWO + START + struct.pack("<I", 1001) + bytes(4004), "1001 units for 1000 words in 4008 bytes"),
        (TWO + START + struct.pack("<I", 1), "1 units for 1000 words in 4 bytes"),
        (TWO + START + struct.pack("<I", 0), "the units are too few"),
        (TWO + START + struct.pack("<I", 1000) + b"\1" * 4000, "a lane stops in a state that none starts from"),
    ],
)
def test_bodies_that_lie(body, words):
    with pytest.raises(Corrupt, match=f"^{words}$"):
        unpack(body, np.zeros(1000, np.uint8), np.uint16)


def test_units_and_raw_bits_are_all_there_and_no_more():
    words, contexts = next(samples())
    body = rans.pack(words, contexts)
    with pytest.raises(Corrupt, match=r"^raw bits are cut short$"):
        unpack(body[:-1], contexts, words.dtype)
    with pytest.raises(Corrupt, match=r"^1 bytes follow the last word$"):
        unpack(body + b"x", contexts, words.dtype)
    words, contexts = list(samples())[1]
    body = bytearray(rans.pack(words, contexts))
    at = next(at for at in range(len(body) - 4) if struct.unpack_from("<I", body, at)[0] * 4 == len(body) - at - 4)
    struct.pack_into("<I", body, at, struct.unpack_from("<I", body, at)[0] + 1)
    with pytest.raises(Corrupt, match=r"^units are left over$"):
        unpack(bytes(body) + b"\1\0\0\0", contexts, words.dtype)


def test_rare_contexts_share_a_table():
    counts = np.zeros(256, np.int64)
    counts[[3, 4, 5, 90, 200]] = 100, 200, 256, 1000, 255
    assert freqs.groups(counts) == [0, 5, 90]
    counts[200] = 256
    assert freqs.groups(counts) == [0, 5, 90, 200]
    assert len(freqs.groups(np.full(256, 256))) == 32
    assert freqs.groups(np.full(256, 300)) == list(range(0, 252, 14))
    assert freqs.group_of([0, 5, 90])[[0, 4, 5, 89, 90, 255]].tolist() == [0, 0, 1, 1, 2, 2]


def test_frequencies_fill_a_table_and_leave_room_for_the_rare():
    counts = np.array([[524_000, 1, 0, 5], [1, 1, 1, 0], [0, 0, 9, 0]])
    found = freqs.frequencies(freqs.roots(counts))
    assert found.sum(axis=1).tolist() == [4096] * 3
    assert ((found > 0) == (counts > 0)).all()
    assert found[2].tolist() == [0, 0, 4096, 0]
    with pytest.raises(Corrupt, match=r"^a table has no tokens$"):
        freqs.frequencies(np.zeros((1, 4), np.int64))


@pytest.mark.parametrize("kept", range(1, 6))
def test_a_token_and_its_raw_bits_make_the_magnitude(kept):
    edges = np.unique([value + by for value in (1 << np.arange(31)).tolist() for by in (-1, 0, 1, value // 3)])
    words = np.concatenate((edges, -edges)).astype(np.int32).view(np.uint32)
    found, exact = np.empty(words.size, np.int64), tokens.magnitudes(words, np.empty(words.size, np.uint64))
    tokens.tokenise(words, kept, found)
    kind = tokens.KINDS[kept]
    seen = found < freqs.TOKENS  # magnitudes near 2**31 take more tokens than there are when five bits are kept
    rest = exact[seen] - kind.least[found[seen]]
    assert (rest >> kind.below[found[seen]].astype(np.uint64) == 0).all()
    assert (found & 1 == words >> 31).all()
    if kept > 1:
        coarse = np.empty(words.size, np.int64)
        tokens.tokenise(words, kept - 1, coarse)
        assert (tokens.coarser(kept)[found[seen]] == coarse[seen]).all()


@given(st.lists(st.integers(0, golomb.LARGEST), min_size=1, max_size=300))
@settings(deadline=None)
def test_golomb_codes_come_back(values):
    packed = golomb.pack(np.array(values))
    found, rest = golomb.unpack(memoryview(packed + b"more"), len(values))
    assert found.tolist() == values
    assert bytes(rest) == b"more"


def test_a_model_tells_what_follows_from_contexts():
    roots = np.zeros((2, freqs.TOKENS), np.int64)
    roots[[0, 1], [0, 4]] = 1
    assert Model(5, 0, 1, [0, 3], roots).certain()
    roots[0, 200] = 1
    assert not Model(5, 0, 1, [0, 3], roots).certain()
