"""Fuzz one parser by coverage: ``python tests/fuzz/run.py PARSER [--seconds N] [--runs N] [--corpus DIR]``.

Inputs that were found stay in the directory of ``--corpus``, and the one that a finding is made by in that of
``--findings``. Put it into ``tests/fuzz/regressions/PARSER`` once the fault is mended, so that it is tried for ever.
"""

import argparse
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris")

HERE = Path(__file__).parent
SHM = "/dev/shm"
LONGEST = 10_000
"""Bytes of an input: most faults need few, and the fewer the faster."""

CPU = 5.0
"""Seconds that one input may take, with all the counting of branches."""


def main() -> None:
    """Fuzz in a child: libFuzzer ends a process without any clearing up."""
    options = _options()
    fast = SHM if os.access(SHM, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="wvc-fuzz-", dir=os.environ.get("TMPDIR", fast)) as scratch:
        child = os.fork()
        if not child:
            os.environ["TMPDIR"] = scratch
            fuzz(options, Path(scratch))
            os._exit(0)
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def fuzz(options: argparse.Namespace, scratch: Path) -> None:
    sys.path.insert(0, str(HERE))
    with atheris.instrument_imports(include=["weightvc"], enable_loader_override=False):
        from parsers import PARSERS
    from weightvc.util.errors import WeightvcError

    parser = PARSERS[options.parser]
    kept, first, words = Path(options.corpus or scratch, "kept"), scratch / "first", scratch / "words"
    for number, data in enumerate([*parser.seeds(), *regressions(options.parser)]):
        first.mkdir(exist_ok=True)
        (first / str(number)).write_bytes(data)
    kept.mkdir(parents=True, exist_ok=True)
    options.findings.mkdir(parents=True, exist_ok=True)
    words.write_text(_dictionary(first))
    parser.check(parser.seeds()[0])  # what is imported or kept at first use
    warnings.simplefilter("error")  # nobody should see one
    _limit(parser.memory)

    def one(data: bytes) -> None:
        start = time.process_time()
        with suppress(WeightvcError):
            parser.check(data)
        taken = time.process_time() - start
        if taken > CPU:
            raise TimeoutError(f"{len(data)} bytes took {taken:.1f} s")

    atheris.Setup(
        [
            sys.argv[0], str(kept), str(first), f"-max_total_time={options.seconds}", f"-runs={options.runs}",
            f"-seed={options.seed}", f"-max_len={options.longest}", f"-rss_limit_mb={parser.memory >> 19}",
            "-timeout=30", f"-artifact_prefix={options.findings}/{options.parser}-", "-print_final_stats=1",
            "-verbosity=1", *([f"-dict={words}"] if words.stat().st_size else []),
        ],
        one,
    )  # fmt: skip
    atheris.Fuzz()


def regressions(parser: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((HERE / "regressions" / parser).glob("*"))]


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parser")
    options.add_argument("--seconds", type=int, default=600)
    options.add_argument("--runs", type=int, default=-1)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--longest", type=int, default=LONGEST)
    options.add_argument("--corpus", type=Path)
    options.add_argument("--findings", type=Path, default=Path("findings"))
    return options.parse_args()


def _limit(memory: int) -> None:
    """Cap the address space, so that what is asked for without need fails."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))


def _dictionary(seeds: Path) -> str:
    """Return the names and words that the seeds hold, for mutations to use."""
    found = {word for path in seeds.iterdir() for word in re.findall(rb'"?[A-Za-z_][\w.]{1,30}"?', path.read_bytes())}
    escaped = (re.sub(r'(["\\])', r"\\\1", word.decode()) for word in sorted(found)[:400])
    return "".join(f'"{word}"\n' for word in escaped)


if __name__ == "__main__":
    main()
