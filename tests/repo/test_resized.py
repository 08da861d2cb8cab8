"""Tables of tokens that have more rows than the base's."""

import pytest
import torch

ROWS = "embeddings.word_embeddings.weight"


def build(repo, path, *options):
    return repo.json("checkout", "-o", path, *options)


@pytest.fixture
def resized(repository, models, tmp_path):
    """A repository with a task, and one that has more rows in its table of tokens."""
    base = models.base()
    repo = repository(models.write(tmp_path / "base", base))
    repo.put("a", models.write(tmp_path / "a", models.tuned(base, 1)))
    more = models.tuned(base, 7) | {ROWS: torch.cat([base[ROWS], base[ROWS][:2]])}
    repo.put("more", models.write(tmp_path / "more", more))
    return repo


def test_a_table_of_another_size_is_refused_unless_the_base_is_to_stay(resized, refused, models, tmp_path):
    says = f"task more: {ROWS} has 42 rows and the base's 40, and nothing says which row is which token"
    pattern = r"embeddings\.word_embeddings\.weight=base"
    hint = (
        f"pass --rule '{pattern}' to keep the base's, or =METHOD to merge those of its size; the other goes to "
        "heads/more.safetensors"
    )
    refused(resized, 3, "checkout", "--tasks", "a,more", "-o", tmp_path / "out", says=says, hint=hint)

    build(resized, tmp_path / "out", "--tasks", "a,more", "--rule", pattern)

    assert torch.equal(models.read(tmp_path / "out")[ROWS], models.base()[ROWS])
    assert models.read(tmp_path / "out/heads/more.safetensors")[ROWS].shape == (42, 12)
    build(resized, tmp_path / "merged", "--tasks", "a,more", "--rule", pattern.replace("=base", "=linear"))
    assert not torch.equal(models.read(tmp_path / "merged")[ROWS], models.base()[ROWS])
    assert models.read(tmp_path / "merged/heads/more.safetensors")[ROWS].shape == (42, 12)
    build(resized, tmp_path / "alone", "--tasks", "more")
    build(resized, tmp_path / "nothing", "--tasks", "a,more=0")


def test_a_comparison_names_the_recipe_that_decides_it(resized, refused):
    rule = r"embeddings\.word_embeddings\.weight=base"
    hint = (
        "compare single tasks, or a recipe that decides it: to `wvc recipe save NAME` "
        f"pass --rule '{rule}' to keep the base's"
    )
    refused(resized, 3, "diff", "HEAD", "a", says="HEAD: task more: ", hint=hint)
    resized.wvc("recipe", "save", "both", "--tasks", "a,more", "--rule", rule)
    resized.wvc("commit", "-m", "Save it")
    assert resized.json("diff", "both", "a")["total"]["differing"] > 0
    assert resized.json("diff", "more", "a")["apart"] == 1


@pytest.mark.parametrize("side", ["base", "task"])
def test_a_table_of_another_size_is_known_whatever_prefix_names_have(repository, models, refused, tmp_path, side):
    base = models.base()
    more = models.tuned(base, 7) | {ROWS: torch.cat([base[ROWS], base[ROWS][:2]])}
    named = {key: {f"bert.{name}": tensor for name, tensor in held.items()} if key == side else held for key, held in
             (("base", base), ("task", more))}  # fmt: skip
    repo = repository(models.write(tmp_path / "base", named["base"]))
    repo.put("more", models.write(tmp_path / "more", named["task"]))

    refused(repo, 3, "checkout", "--tasks", "more=0.5", says="has 42 rows and the base's 40", hint="pass --rule '")


def test_a_classifier_of_another_size_stays_apart(repository, models, tmp_path):
    base = models.base() | {"classifier.weight": torch.ones(2, 12)}
    repo = repository(models.write(tmp_path / "base", base))
    repo.put("more", models.write(tmp_path / "more", models.tuned(base, 7) | {"classifier.weight": torch.ones(3, 12)}))

    build(repo, tmp_path / "out", "--tasks", "more=0.5")

    assert models.read(tmp_path / "out")["classifier.weight"].shape == (2, 12)
