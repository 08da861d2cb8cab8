"""Reads entropy-coded chunks by the words of docs/format/rans.md alone, a bit at a time."""


class Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def integer(self, size):
        self.at += size
        assert self.at <= len(self.data)
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def bits(self, size):
        """Yield the bits of the next ``size`` bytes."""
        value = self.integer(size)
        return iter([value >> place & 1 for place in range(8 * size)])

    def numbers(self, count):
        k, size = self.integer(1), self.integer(2)
        assert k <= 6
        first = self.bits(size)
        zeros = []
        for _ in range(count):
            zeros.append(0)
            while next(first) == 0:
                zeros[-1] += 1
            assert zeros[-1] <= 15 - k
        assert not any(first)
        second = self.bits((sum(zeros) + k * count + 7) // 8)
        found = [2 ** (z + k) + sum(next(second) << place for place in range(z + k)) - 2**k for z in zeros]
        assert not any(second)
        return found


def tables(body, groups):
    """Return for each group its (token, start, frequency), in order."""
    lengths = [1 + number for number in body.numbers(groups)]
    gaps, folded = body.numbers(sum(lengths)), body.numbers(sum(lengths))
    roots = []
    for number in folded:
        difference = -(number + 1) // 2 if number % 2 else number // 2
        roots.append(difference + (roots[-2] if len(roots) > 1 else 0))
    found = []
    for length in lengths:
        tokens = []
        for gap in gaps[:length]:
            tokens.append((tokens[-1] if tokens else -1) + 1 + gap)
        mine = roots[:length]
        assert max(tokens) < 2048
        assert 1 <= min(mine) <= max(mine) <= 1023
        del gaps[:length], roots[:length]
        frequencies = [1 + q * q * (4096 - length) // sum(q * q for q in mine) for q in mine]
        frequencies[mine.index(max(mine))] += 4096 - sum(frequencies)
        starts = [sum(frequencies[:place]) for place in range(length)]
        found.append(list(zip(tokens, starts, frequencies, strict=True)))
    return found


def raw_bits(token, kept):
    """Return how many raw bits follow a token, and how many of their bytes are spilt."""
    raw = max(0, (token // 2 >> kept) - 1)
    return raw, next(size for size in range(9) if raw - 8 * size <= 20)


def word(token, raw, kept, width):
    step = token // 2
    m, e = step % 2**kept, step >> kept
    magnitude = ((2**kept + m) << (e - 1)) + raw if e else step
    return (-magnitude if token % 2 else magnitude) % 2 ** (8 * width)


def widths(count, lanes, taper):
    at, width, least = 0, lanes, max(1, lanes // 16)
    while width >= least:
        rows = max(0, (count - at - taper * (width - least)) // width)
        yield from [width] * rows
        at += rows * width
        width //= 2
    if at < count:
        yield count - at


def decode(data, contexts, width):
    body = Body(data)
    kept = body.integer(1)
    if kept == 0:
        assert len(data) == 1 + width * len(contexts)
        return [body.integer(width) for _ in contexts]
    lanes, taper, groups = 2 ** body.integer(1), body.integer(1), 1 + body.integer(1)
    assert kept <= 5
    assert lanes <= 1024
    assert 1 <= taper <= 64
    firsts = [0] + [body.integer(1) for _ in range(groups - 1)]
    assert firsts == sorted(set(firsts))
    known = tables(body, groups)
    under = [known[max(i for i in range(groups) if firsts[i] <= context)] for context in contexts]
    if all(len(table) == 1 and raw_bits(table[0][0], kept)[0] == 0 for table in known):
        assert body.at == len(data)
        return [word(table[0][0], 0, kept, width) for table in under]
    states = [2**32 + body.integer(8 - absent) for absent in body.numbers(lanes)]
    units = [body.integer(4) for _ in range(body.integer(4))]
    assert len(units) <= len(contexts)
    found = []
    for row in widths(len(contexts), lanes, taper):
        stop(states, row, units)
        for lane in range(row):
            x = states[lane]
            token, start, frequency = next(t for t in under[len(found)] if t[1] <= x % 4096 < t[1] + t[2])
            x = frequency * (x // 4096) + x % 4096 - start
            raw, spilt = raw_bits(token, kept)
            found.append((token, x % 2 ** (raw - 8 * spilt), spilt))
            states[lane] = x >> (raw - 8 * spilt)
        for lane in range(row):
            if states[lane] < 2**32:
                states[lane] = states[lane] * 2**32 + units.pop(0)
    stop(states, 0, units)
    assert not any(units)
    words = [word(token, (raw << 8 * spilt) + body.integer(spilt), kept, width) for token, raw, spilt in found]
    assert body.at == len(data)
    return words


def stop(states, width, units):
    assert all(2**32 <= state < 2**33 for state in states[width:])
    units[:0] = [state - 2**32 for state in states[width:]]
    del states[width:]
