"""Claims about sinkhorn_knopp, power_law_prior, swapped_prediction and prototype_usage, one test each.

- Codes equal a NumPy loop over rows and columns, lightly's, and, converged, the optimal transport plan.
- The scaling twin equals the logarithmic form wherever it is chosen, and is not chosen where it would lose digits.
- epsilon -> 0 gives the best assignment, epsilon -> infinity the prior; rows sum to 1, shares approach the prior.
- A constant per prototype changes nothing; a constant per image changes nothing once converged.
- The loss equals the double loop and lightly; no gradient reaches the codes; crops may be permuted together.
- Usage is 1 for one winner and K for equal shares. Bad input is refused.
(The values over several ranks are tested in tests/test_distributed.py.)
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import SwaVLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from scipy.optimize import linear_sum_assignment

from sslcore.kernels import scaling
from sslcore.objectives import power_law_prior, prototype_usage, sinkhorn_knopp, swapped_prediction
from sslcore.objectives.clustering import balanced_softmax
from sslcore.objectives.self_distillation import cross_entropy_between_crops


def cosines(images: int, prototypes: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, 8, generator=generator, dtype=dtype)
    c = torch.randn(prototypes, 8, generator=generator, dtype=dtype)
    return torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(c, dim=1).T


def loop(scores: np.ndarray, epsilon: float, num_iters: int, prior: np.ndarray) -> np.ndarray:
    codes = np.exp(scores / epsilon)
    for _ in range(num_iters):
        for k in range(codes.shape[1]):
            codes[:, k] *= prior[k] / codes[:, k].sum()
        for b in range(codes.shape[0]):
            codes[b] /= len(codes) * codes[b].sum()
    return len(codes) * codes


@pytest.mark.parametrize("num_iters", [1, 3, 10])
@pytest.mark.parametrize(("images", "prototypes"), [(1, 1), (5, 3), (7, 11), (1, 4), (6, 1)])
def test_codes_equal_the_loop_and_lightly(images, prototypes, num_iters):
    scores, prior = cosines(images, prototypes), np.full(prototypes, 1 / prototypes)
    codes = sinkhorn_knopp(scores, 0.05, num_iters)
    np.testing.assert_allclose(codes, loop(scores.numpy(), 0.05, num_iters, prior), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(codes, lightly_sinkhorn(scores, iterations=num_iters, epsilon=0.05))
    shares = np.arange(1, prototypes + 1) ** -0.5
    codes = sinkhorn_knopp(scores, 0.1, num_iters, prior=torch.from_numpy(3 * shares))
    np.testing.assert_allclose(codes, loop(scores.numpy(), 0.1, num_iters, shares / shares.sum()), rtol=1e-9)


@given(
    images=st.integers(1, 9), prototypes=st.integers(1, 9), seed=st.integers(0, 99), epsilon=st.floats(0.04, 5.0),
    num_iters=st.integers(1, 20), exponent=st.floats(0, 2),
)  # fmt: skip
def test_scaling_twin_equals_the_logarithmic_form(images, prototypes, seed, epsilon, num_iters, exponent):
    logits = cosines(images, prototypes, seed, torch.float32) / epsilon
    log_prior = power_law_prior(prototypes, exponent).log()
    assert scaling.supports(logits)
    twin = scaling.balanced_softmax(logits, num_iters, log_prior)
    torch.testing.assert_close(twin, balanced_softmax(logits, num_iters, log_prior), rtol=1e-4, atol=1e-6)


def test_twin_is_chosen_by_the_range_of_the_logits(monkeypatch):
    calls = []
    monkeypatch.setattr(scaling, "balanced_softmax", lambda *a: calls.append(a) or balanced_softmax(*a))
    scores = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    sinkhorn_knopp(scores, 0.05)
    assert len(calls) == 1
    sinkhorn_knopp(scores, 0.03)
    assert len(calls) == 1


@pytest.mark.parametrize("seed", range(5))
def test_small_epsilon_gives_the_best_assignment(seed):
    scores = cosines(6, 6, seed)
    rows, columns = linear_sum_assignment(-scores.numpy())
    shares = [float(sinkhorn_knopp(scores, epsilon, 5000)[rows, columns].min()) for epsilon in (0.1, 0.01, 0.001)]
    assert shares == sorted(shares) and shares[-1] > 0.99
    assert (scores.argmax(1).numpy() != columns).any()  # not simply each image's favourite


@given(seed=st.integers(0, 99), exponent=st.floats(0, 2))
def test_large_epsilon_gives_the_prior_and_collapsed_embeddings_give_it_exactly(seed, exponent):
    prior = power_law_prior(6, exponent).double()
    torch.testing.assert_close(sinkhorn_knopp(cosines(7, 6, seed), 1e8), torch.full((7, 6), 1 / 6).double())
    torch.testing.assert_close(sinkhorn_knopp(cosines(7, 6, seed), 1e8, prior=prior), prior.expand(7, 6))
    collapsed = cosines(1, 6, seed).expand(7, 6)
    torch.testing.assert_close(sinkhorn_knopp(collapsed, 0.05, 1, prior=prior), prior.expand(7, 6))


@given(seed=st.integers(0, 99), num_iters=st.integers(1, 10), epsilon=st.sampled_from([1e-4, 0.02, 0.05, 1.0]))
def test_rows_sum_to_one_after_any_number_of_steps(seed, num_iters, epsilon):
    codes = sinkhorn_knopp(cosines(12, 5, seed, torch.float32), epsilon, num_iters)
    assert codes.min() >= 0 and torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(12), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.25, 1.0])
def test_shares_approach_the_prior_with_more_steps(exponent):
    scores, prior = cosines(64, 10), power_law_prior(10, exponent).double()
    errors = [
        float((sinkhorn_knopp(scores, 0.05, steps, prior=prior).mean(0) / prior - 1).abs().max())
        for steps in (1, 3, 10, 100, 1000)
    ]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and errors[-1] < 1e-6
    plain = scores.div(0.05).softmax(1).mean(0)  # the control: softmax keeps no shares
    assert float((plain * 10 - 1).abs().max()) > 0.1


def test_converged_codes_are_the_entropic_transport_plan():
    """Optimality: the plan is exp(s / epsilon) times row and column factors, and no exchange of mass improves it."""
    scores, epsilon = cosines(6, 4), 0.5
    plan = sinkhorn_knopp(scores, epsilon, 5000) / 6
    torch.testing.assert_close(plan.sum(0), torch.full((4,), 0.25, dtype=torch.float64))

    def value(p: torch.Tensor) -> float:
        return float((p * scores).sum() + epsilon * torch.special.entr(p).sum())

    best = value(plan)
    for a in range(5):
        for k in range(3):
            change = torch.zeros(6, 4, dtype=torch.float64)
            change[a, k] = change[a + 1, k + 1] = 1e-3
            change[a + 1, k] = change[a, k + 1] = -1e-3
            assert max(value(plan + change), value(plan - change)) < best


@given(seed=st.integers(0, 99), num_iters=st.integers(1, 5), size=st.floats(0.1, 1.0))
def test_offsets_of_prototypes_never_matter_and_offsets_of_images_fade(seed, num_iters, size):
    scores = cosines(9, 5, seed)
    generator = torch.Generator().manual_seed(seed)
    columns = size * torch.randn(5, generator=generator, dtype=torch.float64)
    rows = size * torch.randn(9, 1, generator=generator, dtype=torch.float64)
    codes = sinkhorn_knopp(scores, 0.2, num_iters)
    torch.testing.assert_close(sinkhorn_knopp(scores + columns, 0.2, num_iters), codes)
    torch.testing.assert_close(sinkhorn_knopp(scores + 0.7, 0.2, num_iters), codes)
    converged = sinkhorn_knopp(scores, 0.2, 500)
    torch.testing.assert_close(sinkhorn_knopp(scores + rows, 0.2, 500), converged, rtol=1e-4, atol=1e-6)


def test_image_offsets_do_matter_before_convergence():
    scores = cosines(9, 5)
    shifted = scores + torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    assert (sinkhorn_knopp(scores, 0.2, 1) - sinkhorn_knopp(shifted, 0.2, 1)).abs().max() > 0.05


def test_prior_belongs_to_the_index():
    scores, order = cosines(8, 5), torch.tensor([4, 2, 0, 1, 3])
    equal, prior = sinkhorn_knopp(scores), power_law_prior(5, 1.0)
    torch.testing.assert_close(sinkhorn_knopp(scores[:, order]), equal[:, order])
    permuted = sinkhorn_knopp(scores[:, order], prior=prior)
    assert (permuted - sinkhorn_knopp(scores, prior=prior)[:, order]).abs().max() > 0.05
    torch.testing.assert_close(sinkhorn_knopp(scores, prior=power_law_prior(5, 0.0)), equal)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_autocast_compute_in_float32(dtype):
    scores = cosines(16, 8).to(dtype)
    expected = sinkhorn_knopp(scores.double(), 0.03)
    codes = sinkhorn_knopp(scores, 0.03)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.double(), expected, rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sinkhorn_knopp(scores, 0.03), codes)


def test_codes_carry_no_gradient_and_scores_stay():
    scores = cosines(4, 3).requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn_knopp(scores).requires_grad and torch.equal(scores, before)


def test_compiled_codes_are_the_same():
    scores = cosines(6, 5, dtype=torch.float32)
    compiled = torch.compile(sinkhorn_knopp, backend="eager")(scores, 0.05, 3)
    torch.testing.assert_close(compiled, sinkhorn_knopp(scores, 0.05, 3))


@pytest.mark.parametrize(("crops", "assigning"), [(2, 1), (2, 2), (6, 2), (5, 3)])
def test_loss_equals_the_double_loop_and_lightly(crops, assigning):
    scores = torch.stack([cosines(4, 6, seed) for seed in range(crops)])
    codes = torch.stack([sinkhorn_knopp(s) for s in scores[:assigning]])
    powers = np.exp(scores.numpy() / 0.1)
    pairs = [
        -(codes[a].numpy() * np.log(powers[v] / powers[v].sum(1)[:, None])).sum(1)
        for a in range(assigning)
        for v in range(crops)
        if v != a
    ]
    loss = swapped_prediction(scores, codes, 0.1)
    assert float(loss) == pytest.approx(np.mean(pairs), rel=1e-9)
    log_probs = (scores / 0.1).log_softmax(2)
    torch.testing.assert_close(cross_entropy_between_crops(codes, log_probs), loss)
    if assigning == 2:
        reference = SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
        assert float(loss) == pytest.approx(float(reference(list(scores[:2]), list(scores[2:]))), rel=1e-6)


def test_loss_of_uniform_codes_is_at_least_the_log_of_k():
    codes = torch.full((2, 3, 30), 1 / 30)
    assert float(swapped_prediction(torch.full((4, 3, 30), 0.7), codes)) == pytest.approx(math.log(30), rel=1e-5)
    assert float(swapped_prediction(torch.randn(4, 3, 30), codes)) > math.log(30)


def test_loss_ignores_the_order_of_images_prototypes_and_repeated_crops():
    scores = torch.randn(4, 5, 6, dtype=torch.float64)
    codes = sinkhorn_knopp(scores[:2].flatten(0, 1)).unflatten(0, (2, 5))
    loss, images, prototypes = swapped_prediction(scores, codes), torch.randperm(5), torch.randperm(6)
    torch.testing.assert_close(swapped_prediction(scores[:, images], codes[:, images]), loss)
    torch.testing.assert_close(swapped_prediction(scores[..., prototypes], codes[..., prototypes]), loss)
    same = scores[:1].expand(2, 5, 6)
    few, many = torch.cat([same, scores[2:3]]), torch.cat([same, scores[2:3].expand(7, 5, 6)])
    terms = [swapped_prediction(part, codes) for part in (few, many)]
    assert float(terms[1] / terms[0]) < 1.6  # a mean over crops, not a sum


def test_gradient_reaches_the_scores_only():
    scores = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.rand(2, 2, 4, dtype=torch.float64).softmax(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: swapped_prediction(s, codes, 0.5), scores)
    swapped_prediction(scores, codes).backward()
    assert codes.grad is None and bool(scores.grad.any())


@given(winners=st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_usage_counts_prototypes(winners):
    onehot = torch.eye(7)[torch.tensor(winners)]
    share = np.bincount(winners, minlength=7) / len(winners)
    share = share[share > 0]
    assert float(prototype_usage(onehot)) == pytest.approx(float(np.exp(-(share * np.log(share)).sum())), rel=1e-5)
    assert float(prototype_usage(torch.full((4, 7), 1 / 7))) == pytest.approx(7, rel=1e-5)
    assert float(prototype_usage(torch.eye(7))) == pytest.approx(7, rel=1e-5)


SCORES, CROPS, CODES = torch.randn(4, 3), torch.randn(2, 4, 3), torch.rand(1, 4, 3)
ZERO, WHOLE = torch.tensor([1.0, 0.0, 1.0]), torch.ones(3, dtype=torch.int)
BAD = {
    "rank": (ValueError, "2 dimensions", lambda: sinkhorn_knopp(torch.randn(4))),
    "empty": (ValueError, "B >= 1", lambda: sinkhorn_knopp(torch.randn(0, 3))),
    "integers": (TypeError, "floating-point", lambda: sinkhorn_knopp(torch.ones(4, 3, dtype=torch.long))),
    "nan": (ValueError, "finite", lambda: sinkhorn_knopp(SCORES * math.nan)),
    "epsilon": (ValueError, "epsilon: expected", lambda: sinkhorn_knopp(SCORES, 0.0)),
    "infinite epsilon": (ValueError, "epsilon: expected", lambda: sinkhorn_knopp(SCORES, math.inf)),
    "steps": (ValueError, "num_iters: expected at least 1, got 0", lambda: sinkhorn_knopp(SCORES, 0.1, 0)),
    "prior's shape": (ValueError, r"shape \(3,\), got \(4,\)", lambda: sinkhorn_knopp(SCORES, prior=torch.ones(4))),
    "prior's zero": (ValueError, "shares above 0", lambda: sinkhorn_knopp(SCORES, prior=ZERO)),
    "prior's type": (TypeError, "prior: expected", lambda: sinkhorn_knopp(SCORES, prior=WHOLE)),
    "law": (ValueError, "exponent", lambda: power_law_prior(3, -1.0)),
    "no prototypes": (ValueError, "num_prototypes", lambda: power_law_prior(0)),
    "loss rank": (ValueError, "3 dimensions", lambda: swapped_prediction(SCORES, CODES)),
    "loss shapes": (ValueError, "one batch size B", lambda: swapped_prediction(CROPS, CODES[..., :2])),
    "too many codes": (ValueError, "V >= A", lambda: swapped_prediction(CROPS, torch.rand(3, 4, 3))),
    "one crop": (ValueError, "V >= A", lambda: swapped_prediction(CROPS[:1], CODES)),
    "loss nan": (ValueError, "codes: expected finite", lambda: swapped_prediction(CROPS, CODES * math.nan)),
    "loss temperature": (ValueError, "temperature", lambda: swapped_prediction(CROPS, CODES, 0.0)),
    "usage rank": (ValueError, "2 dimensions", lambda: prototype_usage(torch.rand(3))),
    "usage empty": (ValueError, "N >= 1", lambda: prototype_usage(torch.rand(0, 3))),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
