import pytest
import torch

from weightvc.merge import linalg, mixed
from weightvc.merge.table import create


def heavy(rows, cols, seed):
    """A heavy tail over a Gaussian bulk, of norm 1."""
    random = torch.Generator().manual_seed(seed)
    short = min(rows, cols)
    left, right = (
        torch.linalg.qr(torch.randn(n, short, generator=random, dtype=torch.float64))[0] for n in (rows, cols)
    )
    tail = (left * torch.arange(1, short + 1, dtype=torch.float64) ** -0.7) @ right.mT
    bulk = torch.randn(rows, cols, generator=random, dtype=torch.float64)
    made = tail / tail.norm() + 0.5 * bulk / bulk.norm()
    return made / made.norm()


def fold(precision, vectors, alpha=0.5):
    method = create("opcm-s", {"precision": precision, "alpha": alpha})
    state, ranks = None, []
    for vector in vectors:
        state, rank = method.step(state, vector.clone(), project=True)
        ranks.append(rank)
    return state, ranks


@pytest.fixture
def found(monkeypatch):
    """Whether each decomposition could be done by way of float32."""
    seen, refined = [], mixed._refined

    def spy(C, alpha):
        result = refined(C, alpha)
        seen.append(result is not None)
        return result

    monkeypatch.setattr(mixed, "_refined", spy)
    return seen


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(128, 128), (256, 64), (64, 256)])
def test_five_tasks_are_within_1e_5_of_float64(shape, alpha, apart, found):
    vectors = [heavy(*shape, seed) for seed in range(5)]
    exact, ranks = fold("float64", vectors, alpha)
    faster, same = fold("mixed", vectors, alpha)
    assert 0 < apart(faster, exact) < 1e-5
    assert same == ranks
    assert sum(found) >= 3  # by float32, and not because that was given up


@pytest.mark.parametrize("size", [1e-60, 1e-30, 1e30, 1e60])
def test_float32_holds_values_of_any_size(size, apart):
    vectors = [heavy(96, 64, seed) for seed in range(3)]
    plain, _ = fold("mixed", vectors)
    scaled, _ = fold("mixed", [size * vector for vector in vectors])
    assert apart(scaled / size, plain) < 1e-5


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_rank_deficient_sums_are_split_as_in_float64(rank, matrix, apart):
    vectors = [matrix(48, 32, seed=seed, rank=rank) for seed in range(4)]
    exact, ranks = fold("float64", vectors)
    faster, same = fold("mixed", vectors)
    assert same == ranks
    assert apart(faster, exact) < 1e-5


def test_a_first_value_above_alpha_is_left_to_float64(found, apart):
    vectors = [torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64)), torch.rand(2, 2, dtype=torch.float64)]
    assert fold("mixed", vectors)[1] == [None, 0]
    assert found == [False]
    assert apart(fold("mixed", vectors)[0], fold("float64", vectors)[0]) < 1e-6


def spread(values, seed=3):
    """A matrix with these singular values, in random bases."""
    random = torch.Generator().manual_seed(seed)
    bases = (torch.randn(len(values), len(values), generator=random, dtype=torch.float64) for _ in range(2))
    left, right = (torch.linalg.qr(base)[0] for base in bases)
    return (left * torch.tensor(values, dtype=torch.float64)) @ right.mT


def test_a_close_split_is_left_to_float64():
    s = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert mixed._split_rank(s, sum(s[:3]) / sum(s)) is None  # by rounding 2 or 3
    assert mixed._split_rank(s, sum(s[:3]) / sum(s) + 1e-4) == 3
    assert mixed._split_rank(s, 0.1) is None
    assert mixed._split_rank([1.0, 1e-9], 0.999) is None


@pytest.mark.parametrize(("gap", "sure"), [(1e-1, True), (1e-5, True), (1e-7, False)])
def test_a_span_that_float32_cannot_tell_from_the_next_is_left_to_float64(gap, sure):
    values = [1.0, 0.5, 0.5 - gap, 0.4, 0.3, 0.2, 0.1]
    C = spread(values)
    alpha = 1.6 / sum(values)
    found = mixed._refined(C, alpha)
    assert (found is not None) == sure
    top, rest = linalg.leading_span(C, alpha)
    assert top.shape[1] == 2
    if found is not None:
        assert torch.allclose(found[0] @ found[0].mT, top @ top.mT, atol=1e-5)
        assert found[1] == pytest.approx(rest, rel=1e-6)


def test_bytes_are_equal_from_run_to_run_and_wherever_memory_starts():
    vectors = [heavy(96, 40, seed) for seed in range(3)]
    wanted, _ = fold("mixed", vectors)
    method, state = create("opcm-s", {"precision": "mixed"}), None
    for vector in vectors:
        shifted = torch.empty(vector.numel() + 1, dtype=torch.float64)[1:].view(vector.shape).copy_(vector)
        state = method.step(state, shifted, project=True).state
    assert torch.equal(state, wanted)


@pytest.mark.parametrize(("tilt", "steps"), [(1e-4, 1), (2e-2, 2), (0.5, 1)])
def test_a_span_is_turned_once_twice_or_not_at_all(tilt, steps, monkeypatch):
    """Eigenvectors that are off by a known angle, as float32 leaves them where eigenvalues are close."""
    C = spread([1.0, 0.9, 0.8, 0.4, 0.3, 0.2])
    values, vectors = torch.linalg.eigh(C.mT @ C)
    turn = torch.eye(6, dtype=torch.float64)
    turn[2:4, 2:4] = torch.linalg.matrix_exp(torch.tensor([[0.0, tilt], [-tilt, 0.0]], dtype=torch.float64))
    answer = (values.float() / (C.mT @ C).diagonal().max(), (vectors @ turn).float())
    seen, step = [], mixed._turn
    monkeypatch.setattr(torch.linalg, "eigh", lambda _: answer)
    monkeypatch.setattr(mixed, "_turn", lambda *given: seen.append(1) or step(*given))
    found = mixed._refined(C, 0.8)
    assert len(seen) == steps
    assert (found is not None) == (tilt < 0.1)
    if found is not None:
        top = vectors[:, -3:]
        assert torch.allclose(found[0] @ found[0].mT, top @ top.mT, atol=2e-5)
