import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightvc.merge import linalg
from weightvc.merge.table import create
from weightvc.objects.tensors import TensorSpec
from weightvc.util.errors import BadInput, UsageError

PROJECTED = {"square.weight", "tall.weight", "wide.weight"}
BOTH = pytest.mark.parametrize("name", ["opcm", "opcm-s"])


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def clean(name, C, D, alpha=0.5):
    """What one step adds to C."""
    return create(name, {"alpha": alpha}).step(C.clone(), D.clone(), project=True).state - C


# the published rule


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.8])
def test_opcm_is_the_published_recursion(models, oracle, drive, apart, alpha):
    base, tasks = models(5)
    merged, ranks = drive(create("opcm", {"alpha": alpha}), base, tasks)
    assert apart(merged, oracle(base, tasks, PROJECTED, alpha)) < 1e-6
    assert {name for name, found in ranks.items() if found[1] is not None} == PROJECTED
    assert (max(ranks["square.weight"][1:]) > 0) == (alpha > 0)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_rank_deficient_sums_keep_what_lies_outside_their_span(models, oracle, drive, apart, rank):
    base, tasks = models(4, rank=rank)
    merged, _ = drive(create("opcm", {}), base, tasks)
    assert apart(merged, oracle(base, tasks, PROJECTED, 0.5, null=linalg.NULL)) < 1e-6
    assert apart(merged, oracle(base, tasks, PROJECTED, 0.5)) > 1e-3  # the reference removes an arbitrary part


def test_one_step_by_hand():
    C, D = torch.diag(tensor(4.0, 3.0, 1.0)), tensor([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0])
    # sums of singular values 4, 7, 8: at most 0.5 * 8 is r = 1, at most 0.9 * 8 is r = 2
    assert torch.allclose(clean("opcm", C, D, 0.5), tensor([0.0, 2, 3], [4, 0, 6], [7, 8, 0]), atol=1e-14)
    assert torch.allclose(clean("opcm", C, D, 0.9), tensor([0.0, 0, 3], [0, 0, 6], [7, 8, 0]), atol=1e-14)
    assert torch.allclose(clean("opcm-s", C, D, 0.9), tensor([0.0, 0, 3], [0, 0, 6], [7, 8, 0]), atol=1e-14)
    # the tail diag(0, 3, 1) has the share (3 * 5 + 1 * 9) / (9 + 1) = 2.4 of D
    assert torch.allclose(clean("opcm-s", C, D, 0.5), tensor([0.0, 2, 3], [4, -2.2, 6], [7, 8, 6.6]), atol=1e-14)


def test_the_first_singular_value_alone_may_exceed_alpha():
    C, D = torch.diag(tensor(9.0, 1.0)), tensor([1.0, 2.0], [3.0, 4.0])
    step = create("opcm", {}).step(C, D, project=True)
    assert step.rank == 0
    assert torch.allclose(step.state, tensor([9.0, 2.0], [3.0, 1.0]), atol=1e-14)


# properties of both rules


@BOTH
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    rank=st.integers(1, 24),
    alpha=st.floats(0.0, 0.999),
    seed=st.integers(0, 2**32),
)
def test_what_is_added_is_orthogonal_to_the_sum(name, shape, rank, alpha, seed):
    random = torch.Generator().manual_seed(seed)
    rows, cols = shape
    rank = min(rank, rows, cols)
    C = torch.randn(rows, rank, generator=random, dtype=torch.float64)
    C = C @ torch.randn(rank, cols, generator=random, dtype=torch.float64)
    D = torch.randn(rows, cols, generator=random, dtype=torch.float64)
    state, r = create(name, {"alpha": alpha}).step(C.clone(), D.clone(), project=True)
    assert 0 <= r <= rank
    inner = float(((state - C) * C).sum()) / float(C.norm() * D.norm())
    s = torch.linalg.svdvals(C)
    spread = float(s[0] / s[s > linalg.NULL * s[0]][-1])  # which the Gram matrix squares
    assert abs(inner) < max(1e-9, 1e-15 * spread**2)


def test_opcm_s_is_orthogonal_to_rounding_and_clears_its_block(matrix):
    for seed, shape in enumerate([(24, 24), (40, 15), (15, 40)]):
        C, D = matrix(*shape, seed=seed), matrix(*shape, seed=seed + 50)
        state, r = create("opcm-s", {}).step(C.clone(), D.clone(), project=True)
        added = state - C
        assert abs(float((added * C).sum())) <= 1e-12 * float(C.norm() * D.norm())
        U, s, Vh = torch.linalg.svd(C, full_matrices=False)
        assert r > 1
        assert float((U[:, :r].mT @ added @ Vh[:r].mT).abs().max()) < 1e-12
        share = float((U[:, r:] * s[r:] * (D @ Vh[r:].mT)).sum() / s[r:].square().sum())
        wanted = D - U[:, :r] @ (U[:, :r].mT @ D @ Vh[:r].mT) @ Vh[:r] - share * (U[:, r:] * s[r:]) @ Vh[r:]
        assert float((added - wanted).norm()) < 1e-12 * float(D.norm())


@BOTH
def test_projecting_twice_removes_nothing_more(name, matrix, apart):
    C, D = matrix(18, 11, seed=1), matrix(18, 11, seed=2)
    once = clean(name, C, D)
    assert apart(once, D) > 1e-2
    assert apart(clean(name, C, once), once) < 1e-10


@BOTH
@pytest.mark.parametrize("shape", [(16, 16), (20, 9)])
def test_transposed_tensors_give_the_transposed_merge(name, shape, matrix, apart):
    vectors = [matrix(*shape, seed=seed) for seed in range(4)]
    method = create(name, {})
    straight = turned = None
    for vector in vectors:
        straight = method.step(straight, vector.clone(), project=True).state
        turned = method.step(turned, vector.mT.contiguous(), project=True).state
    assert apart(turned.mT, straight) < 1e-9


@BOTH
@pytest.mark.parametrize("factor", [1e-30, 3.0, 1e30])
def test_scaling_every_delta_scales_the_merged_delta(name, factor, models, drive, apart):
    base, tasks = models(4)
    zero = {key: torch.zeros_like(value) for key, value in base.items()}
    deltas = [{key: task[key] - base[key] for key in base} for task in tasks]
    method = create(name, {})
    merged, ranks = drive(method, zero, deltas)
    scaled, same = drive(method, zero, [{key: factor * value for key, value in delta.items()} for delta in deltas])
    assert apart({key: value / factor for key, value in scaled.items()}, merged) < 1e-9
    assert ranks == same


@BOTH
def test_a_duplicate_adds_nothing_to_matrices_and_doubles_the_others(name, models):
    method = create(name, {})
    C = models(1)[1][0]["tall.weight"]
    assert float(clean(name, C, C).norm() / C.norm()) < 1e-10
    assert torch.equal(method.step(C.clone(), C.clone(), project=False).state, 2 * C)


@BOTH
def test_equal_singular_values_are_never_separated(name, matrix):
    C = torch.linalg.qr(matrix(12, 12, seed=4))[0]
    D = matrix(12, 12, seed=5)
    step = create(name, {}).step(C.clone(), D.clone(), project=True)
    assert step.rank == 0
    if name == "opcm-s":  # then only the component along C itself goes
        assert torch.allclose(step.state - C, D - (C * D).sum() / 12 * C, atol=1e-13)


@BOTH
def test_alpha_next_to_one_takes_the_whole_span(name, matrix):
    C, D = matrix(9, 6, seed=1), matrix(9, 6, seed=2)
    step = create(name, {"alpha": math.nextafter(1.0, 0.0)}).step(C.clone(), D.clone(), project=True)
    U = torch.linalg.svd(C, full_matrices=False)[0]
    assert step.rank == 6
    assert torch.allclose(step.state - C, D - U @ (U.mT @ D), atol=1e-12)


def test_opcm_s_amplifies_no_rounding_and_opcm_does(apart):
    """The reason for the stable rule: inputs moved by one part in 1e15, ten tasks later."""
    random = torch.Generator().manual_seed(3)
    vectors = [torch.randn(48, 48, generator=random, dtype=torch.float64) for _ in range(10)]
    moved = [v * (1 + 1e-15 * torch.randn(v.shape, generator=random, dtype=torch.float64)) for v in vectors]
    change = {}
    for name in ("opcm", "opcm-s"):
        states = []
        for inputs in (vectors, moved):
            state = None
            for vector in inputs:
                state = create(name, {}).step(state, vector.clone(), project=True).state
            states.append(state)
        change[name] = apart(*states)
    assert change["opcm-s"] < 1e-13
    assert change["opcm"] > 100 * change["opcm-s"]


# trivial steps


@BOTH
def test_a_zero_vector_is_an_identity_on_bits(name, matrix):
    state = matrix(8, 8, seed=1)
    before = state.clone()
    step = create(name, {}).step(state, torch.zeros(8, 8, dtype=torch.float64), project=True)
    assert step.rank is None
    assert torch.equal(step.state.view(torch.int64), before.view(torch.int64))


@BOTH
@pytest.mark.parametrize("tiny", [0.0, 1e-200])
def test_a_vanishing_sum_protects_no_directions(name, tiny, matrix):
    vector = matrix(8, 6, seed=1)
    state = torch.full((8, 6), tiny, dtype=torch.float64)
    step = create(name, {}).step(state, vector.clone(), project=True)
    assert step.rank is None
    assert torch.equal(step.state, vector)


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_refused(name, bad, which, matrix):
    pair = [matrix(5, 5, seed=1), matrix(5, 5, seed=2)]
    pair[which][2, 3] = bad
    with pytest.raises(BadInput, match="NaN, infinite or enormous values") as error:
        create(name, {}).step(*pair, project=True)
    assert "--method task_arithmetic" in error.value.hint


@BOTH
def test_the_scale_gives_the_mean_norm_of_the_tasks(name):
    method = create(name, {"norm": "mean"})
    assert method.scaled
    assert method.scale([3.0, 5.0], 8.0) == 0.5
    assert method.scale([0.1], 0.1) == 1.0
    assert method.scale([0.0, 0.0], 0.0) == 1.0


@pytest.mark.parametrize(("name", "times"), [("opcm", 1.0), ("opcm-s", 1.8)])
def test_the_default_scale_is_the_published_one_for_the_published_rule_only(name, times):
    assert create(name, {}).scale([3.0, 5.0], 8.0) == times * 0.5
    assert create(name, {}).scale([0.1], 0.1) == 1.0


def test_states_are_those_of_methods_that_step_alike():
    rule = create("opcm-s", {}).step_rule
    assert rule == "opcm-s alpha=0.5 precision='float64'"
    assert create("opcm-s", {"norm": "rss", "other": ""}).step_rule == rule
    assert len({rule, *(create(name, params).step_rule for name, params in (
        ("opcm-s", {"alpha": 0.25}), ("opcm-s", {"precision": "mixed"}), ("opcm", {}), ("opcm", {"alpha": 0.25}),
    ))}) == 5  # fmt: skip


# which tensors


@pytest.mark.parametrize(
    "tensor_name",
    [
        "embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight", "wte.weight", "transformer.wpe.weight",
        "model.embed_tokens.weight", "lm_head.weight", "shared.weight", "cls.predictions.decoder.weight",
        "predictions.decoder.weight", "gpt_neox.embed_in.weight", "embed_out.weight", "tok_emb.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "proj_out.weight",
        "layers.0.relative_position_bias_table", "generator_lm_head.weight",
        "lm_head", "wte", "pos_emb", "visual.positional_embedding", "position_bias",
    ],
)  # fmt: skip
def test_tables_and_tied_heads_are_not_projected(tensor_name):
    assert not create("opcm-s", {}).projects(TensorSpec(tensor_name, "F32", (8, 8)))
    assert create("opcm-s", {"other": ""}).projects(TensorSpec(tensor_name, "F32", (8, 8)))


@pytest.mark.parametrize(
    "tensor_name",
    [
        "encoder.layer.0.attention.self.query.weight", "h.0.mlp.c_proj.weight", "model.layers.3.mlp.gate_proj.weight",
        "classifier.weight", "cls.predictions.transform.dense.weight", "layers.0.mlp.shared_experts.up_proj.weight",
        "model.layers.1.mlp.shared_expert_gate.weight", "decoder.block.0.layer.1.EncDecAttention.q.weight",
        "transformer_blocks.0.proj_out.weight", "member.weight", "decoder.layers.0.composition.weight",
    ],
)  # fmt: skip
def test_other_matrices_are_projected(tensor_name):
    assert create("opcm-s", {}).projects(TensorSpec(tensor_name, "F32", (8, 8)))


@pytest.mark.parametrize("shape", [(), (8,), (1, 8), (8, 1), (0, 8), (2, 2, 2), (4, 3, 3, 3)])
def test_what_is_no_matrix_is_not_projected(shape):
    assert not create("opcm", {}).projects(TensorSpec("fc.weight", "F32", shape))


def test_other_names_what_is_not_projected():
    method = create("opcm", {"other": "?est.*,head.*"})
    assert not method.projects(TensorSpec("head.weight", "F32", (4, 4)))
    assert not method.projects(TensorSpec("test.weight", "F32", (4, 4)))
    assert method.projects(TensorSpec("lm_head.weight", "F32", (4, 4)))
    assert method.projects(TensorSpec("Head.weight", "F32", (4, 4)))


@pytest.mark.parametrize(
    ("patterns", "matches"), [("*a" * 500, False), ("(a+)+$", False), ("*" * 1000, True), ("[a-z]*" * 166, True)]
)
def test_no_pattern_runs_for_ever(patterns, matches):
    method = create("opcm", {"other": patterns})
    assert method.projects(TensorSpec("a" * 1023 + "!", "F32", (4, 4))) is not matches


# reproducibility and memory


@BOTH
def test_bytes_are_equal_from_run_to_run_and_in_threads(name, matrix):
    shapes = [(64, 64), (96, 40), (40, 96), (130, 67)]
    vectors = [[matrix(*shape, seed=seed) for seed in range(4)] for shape in shapes]
    method = create(name, {})

    def fold(at: int):
        state = None
        for vector in vectors[at]:
            state = method.step(state, vector.clone(), project=True).state
        return state

    alone = [fold(at) for at in range(len(shapes))]
    with ThreadPoolExecutor(3, initializer=linalg.pin_thread) as pool:
        for found, wanted in zip(pool.map(fold, [0, 1, 2, 3] * 5), alone * 5, strict=True):
            assert torch.equal(found, wanted)


@BOTH
def test_where_a_matrix_lies_in_memory_changes_no_bit(name, matrix):
    C, D = matrix(33, 21, seed=1), matrix(33, 21, seed=2)
    wanted = create(name, {}).step(C.clone(), D.clone(), project=True).state
    for shift in (1, 3):
        pair = [torch.empty(C.numel() + shift, dtype=torch.float64)[shift:].view(33, 21) for _ in range(2)]
        pair[0].copy_(C)
        pair[1].copy_(D)
        assert torch.equal(create(name, {}).step(*pair, project=True).state, wanted)


MEASURE = """
import sys
import torch
from weightvc.merge.table import create

def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))

torch.set_num_threads(1)
method, n = create(sys.argv[1], {}), 800
random = lambda n: torch.randn(n, n, dtype=torch.float64)
method.step(random(64), random(64), project=True)
before = memory("VmRSS")
pair = [random(n), random(n)]
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")
method.step(*pair, project=True)
print((memory("VmHWM") - before) / (8 * n * n))
"""


@BOTH
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_needs_less_than_eight_matrices(name):
    run = subprocess.run([sys.executable, "-c", MEASURE, name], check=True, capture_output=True, text=True)
    assert 2.0 < float(run.stdout) < 8.0


@pytest.mark.parametrize("name", ["opcm", "opcm-s"])
def test_the_norm_of_the_merge_is_what_norm_says(name, drive, models):
    base, tasks = models(3)
    norms = [math.sqrt(sum(float((task[key] - base[key]).square().sum()) for key in base)) for task in tasks]
    wanted = {"mean": sum(norms) / 3, "rss": math.sqrt(sum(norm**2 for norm in norms)), "2.5": 2.5 * sum(norms) / 3}

    for norm, length in wanted.items():
        merged, _ = drive(create(name, {"norm": norm}), base, tasks)
        found = math.sqrt(sum(float((merged[key] - base[key]).square().sum()) for key in base))
        assert found == pytest.approx(length, rel=1e-12)


def test_one_task_keeps_its_own_norm_by_any_rule():
    for norm in ("mean", "rss", 2.5):
        assert create("opcm-s", {"norm": norm}).scale([0.0, 3.0], 3.0) == 1.0
    assert create("opcm-s", {"norm": "rss"}).scale([0.0, 0.0], 0.0) == 1.0


@pytest.mark.parametrize("given", ["0", -1.0, "inf", "nan", "max", True])
def test_norms_that_cannot_be(given):
    with pytest.raises(UsageError, match="opcm: norm cannot be") as error:
        create("opcm", {"norm": given})
    assert error.value.hint == "norm is mean, rss, or a number above 0"
