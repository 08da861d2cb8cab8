"""Real fine-tunes of all-MiniLM-L6-v2, made on a CPU in minutes from published weights and texts.

Run:
    python benchmarks/finetunes.py --out DIR                          # six tasks, float32
    python benchmarks/finetunes.py --out DIR --tasks movies --scale 0.1 --bf16
    python benchmarks/finetunes.py --tasks movies,news20 --eval MODEL_DIR merged.safetensors

The classifier head is frozen, as in CLIP's zero-shot use: a class is the base model's embedding of one describing
sentence, and a text goes to the class with the highest cosine (logits are 20 times the cosines). So only encoder
tensors learn, every fine-tune has exactly the base's names, shapes and dtypes, the base's score is a true zero-shot
score, and any merge can be scored the same way. Half of the tasks train with weight decay, which moves every embedding
row a little, and half without, which leaves the rows of unseen tokens bit-equal; both are common in published models.

A fine-tune is a function of the task, steps, batch, seed, threads and the torch version; it is kept under those in
the cache of ``assets.py``. ``DIR`` gets ``base``, one complete model directory a task, and ``results.json``; with
``--bf16`` also ``base-bf16`` and ``TASK-bf16``, rounded from the same float32 values.
"""

import argparse
import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import assets
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from texts import TASKS, Data, read_task
from torch.nn.functional import cross_entropy, normalize

State = Mapping[str, torch.Tensor]
"""Tensors by name."""

WEIGHTS = "model.safetensors"
REVISION = 1
"""Raised when training changes, so that older cached fine-tunes are not taken for new ones."""


@dataclass(frozen=True, slots=True)
class Run:
    """What decides a fine-tune.

    Args:
        task: A name in :data:`TASKS`.
        steps: Training steps.
        batch: Texts a step.
        seed: Decides which texts come when; nothing else is random.
        threads: Threads of torch; other numbers give other last bits.
        scored: Measure held-out accuracy before and after.
    """

    task: str
    steps: int
    batch: int = 32
    seed: int = 17
    threads: int = 2
    scored: bool = True

    def key(self) -> str:
        """Return a short name for the result of this run."""
        task = TASKS[self.task]
        settings = (sorted(task.prompts.items()), task.rate, task.decay, task.tokens)
        decided = (REVISION, torch.__version__, settings, astuple(self))
        return hashlib.sha256(repr(decided).encode()).hexdigest()[:16]


class Encoder:
    """MiniLM as a function from texts to unit vectors.

    Dropout is off: on a CPU, drawing its masks costs more than the matrix products.

    Args:
        directory: A model directory with config and ``tokenizer.json``; its weights are not read.
    """

    def __init__(self, directory: Path) -> None:
        config = transformers.BertConfig.from_pretrained(directory)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self.model = transformers.AutoModel.from_config(config, attn_implementation="eager")
        self.tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))

    def load(self, state: State) -> None:
        """Take over the weights of ``state``, of any float dtype."""
        self.model.load_state_dict({k: v.float() for k, v in state.items() if k != "embeddings.position_ids"})

    def state(self, like: State) -> dict[str, torch.Tensor]:
        """Return the current weights under the names of ``like``; what is no weight is taken from there."""
        return {**like, **{k: v.detach().clone() for k, v in self.model.state_dict().items() if k in like}}

    def embed(self, texts: Sequence[str], tokens: int) -> torch.Tensor:
        """Return the normalized mean token vectors of ``texts``: float32, shape (texts, hidden)."""
        self.tokenizer.enable_truncation(tokens)
        self.tokenizer.enable_padding()
        found = self.tokenizer.encode_batch([text[:2000] for text in texts])
        mask = torch.tensor([item.attention_mask for item in found])
        with torch.autocast("cpu", torch.bfloat16):
            output = self.model(input_ids=torch.tensor([item.ids for item in found]), attention_mask=mask)
        hidden = output.last_hidden_state.float() * mask.unsqueeze(-1)
        return normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=-1)


@torch.no_grad()
def accuracy(encoder: Encoder, prototypes: torch.Tensor, data: Data, tokens: int) -> float:
    """Return the share of held-out texts whose nearest prototype is their class."""
    texts = sorted(data.held_out, key=lambda item: len(item[1]))  # batches of like length need little padding
    right = 0
    for i in range(0, len(texts), 64):
        part = texts[i : i + 64]
        nearest = (encoder.embed([text for _, text in part], tokens) @ prototypes.T).argmax(1)
        right += int((nearest == torch.tensor([label for label, _ in part])).sum())
    return right / len(texts)


def _decayed(name: str) -> bool:
    """Tell whether weight decay applies to a parameter, by the usual rule."""
    return not name.endswith("bias") and "LayerNorm" not in name


def train(encoder: Encoder, prototypes: torch.Tensor, data: Data, run: Run) -> None:
    """Train ``encoder`` in place: AdamW, a tenth of the steps warm-up, then linearly down to zero."""
    task, order = TASKS[run.task], random.Random(run.seed)
    named = [(n, p) for n, p in encoder.model.named_parameters() if "pooler" not in n]  # the pooler is never used
    groups = [
        {"params": [p for n, p in named if _decayed(n)], "weight_decay": task.decay},
        {"params": [p for n, p in named if not _decayed(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=task.rate)
    warm_up = max(1, run.steps // 10)
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = task.rate * min((step + 1) / warm_up, (run.steps - step) / (run.steps - warm_up + 1))
        part = order.sample(data.train, run.batch)
        logits = 20 * encoder.embed([text for _, text in part], task.tokens) @ prototypes.T
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(logits, torch.tensor([label for label, _ in part])).backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()


def to_bf16(state: State) -> dict[str, torch.Tensor]:
    """Round float tensors to bfloat16 and keep the others."""
    return {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in state.items()}


def write_model(base: Path, directory: Path, state: State) -> None:
    """Write a complete model directory: ``state`` as its weights, every other file as in ``base``."""
    shutil.copytree(base, directory, ignore=shutil.ignore_patterns(WEIGHTS))
    if any(v.dtype == torch.bfloat16 for v in state.values()):
        config = json.loads((base / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in state.items()}, directory / WEIGHTS, metadata={"format": "pt"})


def read_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read a ``.safetensors`` file, or all of them in a model directory."""
    files = sorted(checkpoint.glob("*.safetensors")) if checkpoint.is_dir() else [checkpoint]
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def fine_tune(run: Run) -> Path:
    """Make a fine-tune, or find it in the cache.

    Returns:
        A folder with ``f32`` and ``bf16``, both complete model directories, and ``result.json``.
    """
    final = assets.cache_dir() / f"finetune-{run.task}-{run.key()}"
    with assets.building(final) as scratch:
        if scratch is not None:
            _fine_tune_into(scratch, run)
    return final


def _fine_tune_into(folder: Path, run: Run) -> None:
    task, data, base = TASKS[run.task], read_task(run.task), assets.minilm()
    before, threads = load_file(base / WEIGHTS), torch.get_num_threads()
    torch.set_num_threads(run.threads)
    try:
        encoder = Encoder(base)
        encoder.load(before)
        with torch.no_grad():
            prototypes = encoder.embed(data.prompts, 32)
        zero_shot = accuracy(encoder, prototypes, data, task.tokens) if run.scored else None
        started = time.perf_counter()
        train(encoder, prototypes, data, run)
        seconds = time.perf_counter() - started
        tuned = accuracy(encoder, prototypes, data, task.tokens) if run.scored else None
    finally:
        torch.set_num_threads(threads)
    state = encoder.state(like=before)
    write_model(base, folder / "f32", state)
    write_model(base, folder / "bf16", to_bf16(state))
    result = {"steps": run.steps, "zero_shot": zero_shot, "fine_tuned": tuned, "seconds": round(seconds, 1)}
    (folder / "result.json").write_text(json.dumps(result) + "\n")


def base_bf16() -> Path:
    """Return MiniLM's model directory with its weights rounded to bfloat16."""
    final = assets.cache_dir() / f"minilm-bf16-{REVISION}"
    with assets.building(final) as scratch:
        if scratch is not None:
            base = assets.minilm()
            write_model(base, scratch / "model", to_bf16(load_file(base / WEIGHTS)))
    return final / "model"


def quick(tasks: Iterable[str] = tuple(TASKS), steps: int = 6) -> dict[str, Path]:
    """Return small but genuine fine-tunes, unscored, in seconds each: task to the folder of :func:`fine_tune`."""
    return {task: fine_tune(Run(task, steps, batch=8, scored=False)) for task in tasks}


def score(checkpoint: Path, task: str) -> float:
    """Return the held-out accuracy on ``task`` of any checkpoint that has MiniLM's tensors."""
    base, data = assets.minilm(), read_task(task)
    encoder = Encoder(base)
    encoder.load(load_file(base / WEIGHTS))
    with torch.no_grad():
        prototypes = encoder.embed(data.prompts, 32)
    encoder.load(read_weights(checkpoint))
    return accuracy(encoder, prototypes, data, TASKS[task].tokens)


def _write_all(out: Path, tasks: Sequence[str], scale: float, *, bf16: bool) -> None:
    """Make ``tasks`` and copy them with their bases to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    sources = {"base": assets.minilm(), **({"base-bf16": base_bf16()} if bf16 else {})}
    results = {}
    print(f"{'task':<12}{'steps':>6}{'zero-shot':>11}{'fine-tuned':>12}{'seconds':>9}")
    for task in tasks:
        folder = fine_tune(Run(task, max(2, round(TASKS[task].steps * scale))))
        sources |= {task: folder / "f32", **({f"{task}-bf16": folder / "bf16"} if bf16 else {})}
        got = results[task] = json.loads((folder / "result.json").read_text())
        row = f"{got['zero_shot']:>11.3f}{got['fine_tuned']:>12.3f}{got['seconds']:>9.1f}"
        print(f"{task:<12}{got['steps']:>6}{row}", flush=True)
    for name, source in sources.items():
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(source, out / name)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    """Make fine-tunes, or score checkpoints."""
    parser = argparse.ArgumentParser(description="Make or score fine-tunes of all-MiniLM-L6-v2 on a CPU.")
    parser.add_argument("--out", type=Path, help="write the model directories here")
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated, of: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the training steps")
    parser.add_argument("--bf16", action="store_true", help="also write bfloat16 copies")
    parser.add_argument("--eval", type=Path, nargs="+", metavar="CHECKPOINT", help="score these instead")
    options = parser.parse_args()
    tasks = options.tasks.split(",")
    if unknown := sorted(set(tasks) - set(TASKS)):
        parser.error(f"unknown task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    for checkpoint in options.eval or ():
        scores = {task: score(checkpoint, task) for task in tasks}
        mean = sum(scores.values()) / len(scores)
        print(f"{checkpoint}  mean {mean:.3f}  " + "  ".join(f"{t} {s:.3f}" for t, s in scores.items()), flush=True)
    if not options.eval:
        if options.out is None:
            parser.error("give --out DIR, or --eval CHECKPOINT")
        _write_all(options.out, tasks, options.scale, bf16=options.bf16)


if __name__ == "__main__":
    main()
