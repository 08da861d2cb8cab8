"""Measure what merges of real fine-tunes are worth: held-out accuracy on every task, before and after a revert.

Run:
    python benchmarks/quality.py                                # all six fine-tunes and methods, an hour with training
    python benchmarks/quality.py --methods opcm-s,tsv-m --check
    python benchmarks/quality.py --quick                        # fine-tunes of six steps, few texts: shows that it runs

The fine-tunes of ``finetunes.py`` are added to a repository of their own and merged by every method of the table, all
at coefficient 1, with the method's own defaults and with the settings of ``SETTINGS``. "kept" is the mean accuracy as
a share of that of the fine-tunes, each on its own task. Then each task is taken out in turn: "worst" is the largest
loss of the others' mean accuracy that this brings, negative where they only gain. What remains is merged anew from
the recipe without the task, which is the model that `wvc revert` builds. ``--check`` exits 1 when the default method,
as it is, keeps less than 0.96 or loses more than 0.01 by a revert.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import assets
import torch
from finetunes import Encoder, Run, accuracy, fine_tune, quick, read_weights
from memory import ENV
from texts import TASKS, Data, read_task

import weightvc
from weightvc.merge.table import METHODS
from weightvc.objects.recipe import DEFAULT_METHOD, Scalar

SETTINGS: Mapping[str, Sequence[Mapping[str, Scalar]]] = {
    "opcm-s": [{"norm": norm} for norm in ("mean", "1.4", "2.2", "rss")],
    "opcm": [{"norm": norm} for norm in ("1.8",)],
    "task_arithmetic": [{"scaling": scaling} for scaling in (0.3, 0.5, 0.7)],
    "ties": [{"scaling": scaling} for scaling in (1.5, 2.0)],
    "dare": [{"scaling": scaling} for scaling in (0.3, 0.5, 0.7)],
    "dare_ties": [{"scaling": 0.5}],
    "magmax": [{"scaling": 0.7}],
    "mdm-oc": [],
}
"""Parameters to try beside a method's defaults."""

TWO_ONLY = ("slerp",)
"""Methods that take exactly two tasks, and so have no place here."""

KEPT, LOST = 0.96, 0.01

State = Mapping[str, torch.Tensor]


class Scorer:
    """Scores any weights of MiniLM on some tasks.

    Args:
        tasks: Names in :data:`texts.TASKS`.
        count: Held-out texts of each, at most.
    """

    def __init__(self, tasks: Sequence[str], count: int) -> None:
        base = assets.minilm()
        self.encoder = Encoder(base)
        self.encoder.load(read_weights(base))
        self.tasks: dict[str, tuple[Data, torch.Tensor]] = {}
        for task in tasks:
            data = read_task(task)
            with torch.no_grad():
                prototypes = self.encoder.embed(data.prompts, 32)
            self.tasks[task] = Data(data.train, data.held_out[:count], data.prompts), prototypes

    def __call__(self, state: State, tasks: Sequence[str] | None = None) -> dict[str, float]:
        """Return the accuracy of ``state`` on ``tasks``, all by default."""
        self.encoder.load(state)
        return {
            task: accuracy(self.encoder, prototypes, data, TASKS[task].tokens)
            for task, (data, prototypes) in self.tasks.items()
            if tasks is None or task in tasks
        }


@dataclass(frozen=True, slots=True)
class Row:
    """What one merge, and its remainders after a revert, are worth; ``losses`` has a number for each task taken out."""

    label: str
    scores: Mapping[str, float]
    losses: Mapping[str, float]

    def text(self, alone: float) -> str:
        """Return its line of the table; ``alone`` is the fine-tunes' mean."""
        mean = fmean(self.scores.values())
        worst = f"{max(self.losses.values()):>8.3f}" if self.losses else f"{'':>8}"
        return f"{self.label:<30}{_columns(self.scores)}{mean:>8.3f}{mean / alone:>8.3f}{worst}"


def _columns(scores: Mapping[str, float]) -> str:
    return "".join(f"{score:>11.3f}" for score in scores.values())


def rows(methods: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Scalar]]]:
    """Return methods with their parameters, the defaults first."""
    for method in methods:
        yield method, {}
        for params in SETTINGS.get(method, ()):
            yield method, params


def measure(
    repo: weightvc.Repository, scorer: Scorer, method: str, params: Mapping[str, Scalar], *, revert: bool
) -> Row:
    """Merge all tasks, and all but each in turn, and score what comes of it."""
    tasks = list(scorer.tasks)

    def merged(names: Sequence[str]) -> State:
        return dict(repo.materialize(names, method=method, params=params))

    scores, losses = scorer(merged(tasks)), {}
    for gone in tasks if revert else ():
        others = [task for task in tasks if task != gone]
        before = fmean(scores[task] for task in others)
        losses[gone] = before - fmean(scorer(merged(others), others).values())
    label = " ".join([method, *(f"{name}={value}" for name, value in params.items())])
    return Row(label, scores, losses)


def _repository(folder: Path, tuned: Mapping[str, Path]) -> weightvc.Repository:
    os.environ.update(ENV)
    weightvc.initialize(folder, assets.minilm())
    repo = weightvc.open(folder)
    for task, checkpoint in tuned.items():
        repo.add(checkpoint, task)
    repo.commit("Add all tasks")
    return repo


def _options() -> argparse.Namespace:
    most = [name for name in METHODS if name not in TWO_ONLY]
    parser = argparse.ArgumentParser(description="Measure the accuracy of merged fine-tunes.")
    parser.add_argument("--quick", action="store_true", help="take fine-tunes of six steps, 100 texts, no settings")
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--methods", default=",".join(most), help="comma-separated (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=500, help="held-out texts of a task (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if the default method misses its bars")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = _options()
    tasks = options.tasks.split(",")
    made = quick(tasks) if options.quick else {task: fine_tune(Run(task, TASKS[task].steps)) for task in tasks}
    tuned = {task: folder / "f32" for task, folder in made.items()}
    scorer = Scorer(tasks, 100 if options.quick else options.texts)
    print(f"{'':<30}{''.join(f'{task:>11}' for task in tasks)}{'mean':>8}{'kept':>8}{'worst':>8}")
    own = {task: scorer(read_weights(tuned[task]), [task])[task] for task in tasks}
    alone = fmean(own.values())
    print(Row("base", scorer(read_weights(assets.minilm())), {}).text(alone))
    print(Row("each task's own fine-tune", own, {}).text(alone), flush=True)
    default = None
    with tempfile.TemporaryDirectory(prefix="wvc-quality-") as scratch:
        repo = _repository(Path(scratch) / "repo", tuned)
        for method, params in rows(options.methods.split(",")):
            if options.quick and params:
                continue
            row = measure(repo, scorer, method, params, revert=not params)
            print(row.text(alone), flush=True)
            default = row if method == DEFAULT_METHOD and not params else default
    if default is not None:
        print(f"\n{default.label}, by the task taken out: loss of the others' mean\n{'':<30}{_columns(default.losses)}")
        kept, worst = fmean(default.scores.values()) / alone, max(default.losses.values())
        if options.check and (kept < KEPT or worst > LOST):
            sys.exit(f"{default.label} keeps {kept:.3f} (at least {KEPT}) and loses {worst:.3f} (at most {LOST})")


if __name__ == "__main__":
    main()
