"""Measure what lossy codecs save and cost on real fine-tunes of MiniLM, in held-out accuracy too.

Run:
    python benchmarks/lossy.py --tasks news20,reuters8             # the full fine-tunes, made once in many minutes
    python benchmarks/lossy.py --tasks news20 --codecs int4 --check

Each fine-tune is encoded and decoded tensor by tensor, as `wvc add` and `wvc checkout` do; what a codec does not take
is stored by intdelta. "kept" is the share of the gain in accuracy over the base that what comes back has. ``--check``
exits 1 when int4 is less than 15 times smaller or its median share kept is below 0.99.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import assets
import numpy as np
import torch
from finetunes import WEIGHTS, Run, fine_tune, score, write_model
from texts import TASKS

from weightvc.checkpoint.reader import open_checkpoint
from weightvc.delta.encoding import Encoded, encode
from weightvc.delta.pair import Unsuited

CODECS = ("int8", "int4", "int2", "bitdelta", "svd:16", "t-switch", "skillpack")
SMALLER, KEPT = 15.0, 0.99


def coded(base: Path, tuned: Path, codec: str) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Return how many times smaller a fine-tune gets, the relative error of its task vector, and what comes back."""
    stored = raw = 0
    lost = moved = 0.0
    back = {}
    with open_checkpoint(base) as before, open_checkpoint(tuned) as after:
        for name, spec in after.tensors.items():
            data, start = after.read(name), before.read(name)
            out = np.frombuffer(bytearray(data), np.uint8)
            raw += spec.nbytes
            if data != start:
                try:
                    parts = b"".join(encode(spec, data, start, codec))
                except Unsuited:
                    parts = b"".join(encode(spec, data, start))
                stored += len(parts)
                Encoded.parse(memoryview(parts), name).decode_into(out.data, start)
            dtype = {"F32": torch.float32, "I64": torch.int64}[spec.dtype]
            values = [torch.frombuffer(bytearray(part), dtype=dtype).double() for part in (out.data, data, start)]
            lost += float((values[0] - values[1]).square().sum())
            moved += float((values[1] - values[2]).square().sum())
            back[name] = torch.frombuffer(bytearray(out.data), dtype=dtype).reshape(spec.shape)
    return raw / stored, (lost / moved) ** 0.5, back


def main() -> None:
    """Print a line for each task and codec."""
    parser = argparse.ArgumentParser(description="Measure lossy codecs on fine-tunes of MiniLM.")
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated, of: %(default)s")
    parser.add_argument("--codecs", default=",".join(CODECS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 when int4 misses its bars")
    options = parser.parse_args()
    base, found = assets.minilm(), {}
    print(f"{'task':<12}{'codec':<10}{'smaller':>9}{'error':>8}{'kept':>8}")
    for task in options.tasks.split(","):
        folder = fine_tune(Run(task, TASKS[task].steps))
        result = json.loads((folder / "result.json").read_text())
        for codec in options.codecs.split(","):
            smaller, error, back = coded(base / WEIGHTS, folder / "f32" / WEIGHTS, codec)
            with tempfile.TemporaryDirectory() as scratch:
                write_model(base, Path(scratch) / "model", back)
                accuracy = score(Path(scratch) / "model", task)
            kept = (accuracy - result["zero_shot"]) / (result["fine_tuned"] - result["zero_shot"])
            found[task, codec] = smaller, kept
            print(f"{task:<12}{codec:<10}{smaller:>9.1f}{error:>8.3f}{kept:>8.3f}", flush=True)
    bars = [value for (_, codec), value in found.items() if codec == "int4"]
    if options.check and bars:
        smaller, kept = min(one for one, _ in bars), statistics.median(one for _, one in bars)
        sys.exit(0 if smaller >= SMALLER and kept >= KEPT else f"int4: {smaller:.1f} times, {kept:.3f} kept")


if __name__ == "__main__":
    main()
