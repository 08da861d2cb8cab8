"""What no merge can be made of is refused by name, before anything is written."""

import shutil

import pytest
import torch

BETWEEN = "slerp is between two tasks"
WRONG = [
    (("--method", "opcm", "-p", "alpha=1"), "opcm: alpha cannot be 1", "alpha is a number from 0 up to but not"),
    (
        ("--method", "opcm-s", "-p", "alpha=1.5"),
        "opcm-s: alpha cannot be 1.5",
        "alpha is a number from 0 up to but not",
    ),
    (("-p", "alpha=-0.1"), "opcm-s: alpha cannot be -0.1", "alpha is a number from 0"),
    (("-p", "alpha=nan"), "opcm-s: alpha cannot be nan", "alpha is a number from 0"),
    (("-p", "norm=0"), "opcm-s: norm cannot be 0", "norm is mean, rss, or a number above 0"),
    (("--method", "ties", "-p", "density=0"), "ties: density cannot be 0", "density is a number above 0 and up to 1"),
    (("--method", "dare", "-p", "density=0"), "dare: density cannot be 0", "density is a number above 0 and up to 1"),
    (("--method", "dare_ties", "-p", "density=1.1"), "dare_ties: density cannot be 1.1", "density is a number above 0"),
    (("--method", "slerp", "-p", "t=2"), "slerp: t cannot be 2", "t is a number from 0"),
    (("--method", "slerp"), f"{BETWEEN}, not 3", "name two, or use --method linear"),
    (("--method", "slerp", "--tasks", "alpha=0.5"), f"{BETWEEN}, not 1", "name two, or use --method linear"),
    (("--method", "slerp", "--tasks", "alpha=0.5,beta"), "slerp takes no coefficients", "pass -p t=0.3"),
    (("--method", "linear", "--tasks", "alpha,beta=-1"), "sum to 0.0", ""),
    (("--method", "mean"), "there is no merge method 'mean'", ""),
    (("--method", "ties", "-p", "alpha=0.5"), "method ties has no parameter alpha", "it takes density"),
]


@pytest.fixture(scope="module")
def three(sandbox, templates, tmp_path_factory):
    made = sandbox(shutil.copytree(templates.root / "two", tmp_path_factory.mktemp("three") / "repo", symlinks=True))
    made.put("gamma", templates.alpha)
    return made


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("wrong", WRONG)
def test_no_work_is_begun(three, refused, tmp_path, wrong, dry):
    options, says, hint = wrong
    refused(three, 2, "checkout", *options, *dry, "-o", tmp_path / "out", says=says, hint=hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["opcm", "opcm-s", "tsv-m"])
def test_spectra_of_equal_values_and_of_few_are_merged(repository, models, tmp_path, method):
    """Equal singular values, a single one, and none: there is nothing to refuse, and a replay gives the same bytes."""
    base = models.base()
    name = "encoder.layer.0.attention.query.weight"
    moves = {
        "equal": torch.eye(12),
        "single": torch.outer(torch.arange(12.0), torch.ones(12)),
        "none": torch.zeros(12, 12),
    }
    repo = repository(models.write(tmp_path / "base", base))
    for task, move in moves.items():
        tuned = models.tuned(base, 1, only="layer.1") | {name: base[name] + 0.01 * move}
        repo.put(task, models.write(tmp_path / task, tuned))

    repo.wvc("checkout", "--method", method, "-o", tmp_path / "out")

    assert bool(models.read(tmp_path / "out")[name].isfinite().all())
    assert repo.json("verify", tmp_path / "out", "--replay")["ok"]
