"""Which way round a square matrix is kept, where an adapter's settings do not say it of each module."""

from collections.abc import Collection, Mapping

from weightvc.objects.updates import Update


def settle(fitting: Mapping[str, tuple[Update, ...]], tables: Collection[str], *, turned: bool) -> list[Update]:
    """Return one update for each module.

    Peft keeps one flag for all modules, which is right for the last one that it looked at. So a square matrix goes the
    way of the nearest modules whose shape tells: those that share most of its name's parts, at least one. Where there
    are none, or they differ, it goes by the flag.

    Args:
        fitting: For each module, the orientations that its shape allows.
        tables: The modules that are embeddings, whose factors are turned in any model.
        turned: The flag.
    """
    told = {module: found[0] for module, found in fitting.items() if len(found) == 1 and module not in tables}
    sure = {tuple(module.split(".")): update.transposed for module, update in told.items()}
    settled = []
    for module, found in fitting.items():
        way = found[0].transposed if len(found) == 1 else _nearest(tuple(module.split(".")), sure, turned=turned)
        settled += [update for update in found if update.transposed == way]
    return settled


def _nearest(parts: tuple[str, ...], sure: Mapping[tuple[str, ...], bool], *, turned: bool) -> bool:
    for length in range(len(parts) - 1, 0, -1):
        ways = {way for other, way in sure.items() if other[:length] == parts[:length]}
        if ways:
            return ways.pop() if len(ways) == 1 else turned
    return turned
