"""Claims about masked_code_loss, gumbel_softmax and dvae_loss, one test each.

- The code loss equals a NumPy loop and torch's own cross-entropy of the hidden rows; equal logits cost ln V.
- Scores and codes at visible patches do not count, other names for the codes change nothing, hidden rows alone do.
- Gumbel draws follow softmax(logits) at any temperature, tend to one-hot, and pass a gradient when hard.
- The kl is 0 for a uniform q and ln V for a sure one, and equals scipy's; no gradient reaches the images.
- Bad shapes, codes, masks, temperatures, types and NaN are refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from sslcore.objectives import dvae_loss, gumbel_softmax, masked_code_loss


def case(batch=3, patches=6, vocabulary=5, hidden=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, patches, vocabulary, dtype=torch.float64, generator=generator)
    codes = torch.randint(vocabulary, (batch, patches), generator=generator)
    rank = torch.rand(batch, patches, generator=generator).argsort(1).argsort(1)
    counts = torch.randint(1, patches + 1, (batch, 1), generator=generator) if hidden is None else hidden
    return logits, codes, rank < counts


@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 7), st.integers(0, 999))
def test_equals_the_loop_and_torch(batch, patches, vocabulary, seed):
    logits, codes, mask = case(batch, patches, vocabulary, seed=seed)
    costs = []
    for scores, code, hidden in zip(logits.flatten(0, 1).numpy(), codes.flatten(), mask.flatten(), strict=True):
        if hidden:
            costs.append(np.log(np.exp(scores).sum()) - scores[code])
    loss = masked_code_loss(logits, codes, mask)
    assert loss.item() == pytest.approx(np.mean(costs), rel=1e-9)
    torch.testing.assert_close(loss, F.cross_entropy(logits[mask], codes[mask]))


@pytest.mark.parametrize(("vocabulary", "value"), [(8192, 9.0109), (512, 6.2383)])
def test_equal_logits_cost_the_log_of_the_vocabulary(vocabulary, value):
    codes = torch.randint(vocabulary, (2, 3))
    loss = masked_code_loss(torch.full((2, 3, vocabulary), 0.7), codes, torch.ones(2, 3).bool())
    assert loss.item() == pytest.approx(math.log(vocabulary), abs=1e-4) == pytest.approx(value, abs=1e-4)


@given(st.integers(0, 999))
def test_invariances(seed):
    logits, codes, mask = case(seed=seed)
    value = masked_code_loss(logits, codes, mask)
    noisy = torch.where(mask[..., None], logits, torch.randn_like(logits))
    other = torch.where(mask, codes, (codes + 1) % 5)
    torch.testing.assert_close(masked_code_loss(noisy, other, mask), value, rtol=0, atol=0)
    names = torch.randperm(5)
    renamed = torch.empty_like(logits).index_copy_(2, names, logits)
    torch.testing.assert_close(masked_code_loss(renamed, names[codes], mask), value)
    order = torch.randperm(len(logits))
    torch.testing.assert_close(masked_code_loss(logits[order], codes[order], mask[order]), value)
    assert value > 0


@given(st.integers(1, 6), st.integers(0, 99))
def test_hidden_rows_alone_give_the_same(hidden, seed):
    logits, codes, mask = case(hidden=hidden, seed=seed)
    rows = logits[mask].view(3, hidden, 5)
    torch.testing.assert_close(masked_code_loss(rows, codes, mask), masked_code_loss(logits, codes, mask))


def test_gradient_reaches_hidden_scores_only():
    logits, codes, mask = case(hidden=2)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_code_loss(x, codes, mask), logits)
    masked_code_loss(logits, codes, mask).backward()
    assert logits.grad[~mask].abs().max() == 0 and logits.grad[mask].abs().min() > 0
    torch.testing.assert_close(logits.grad.sum(2), torch.zeros(3, 6).double())


def test_half_precision_is_computed_in_full():
    logits, codes, mask = case()
    half = logits.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = masked_code_loss(half, codes, mask)
        terms = dvae_loss(torch.zeros(3, 1, 4, 4).bfloat16(), torch.ones(3, 1, 4, 4).bfloat16(), half)
    assert loss.dtype == terms.total.dtype == torch.float32
    torch.testing.assert_close(loss, masked_code_loss(half.float(), codes, mask))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_winners_follow_the_softmax(temperature):
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = torch.rand(40_000, 4, generator=torch.Generator().manual_seed(1))
    soft = gumbel_softmax(wanted.log().expand(40_000, 4), uniform, temperature)
    share = soft.argmax(1).bincount(minlength=4) / 40_000
    assert (share - wanted).abs().max() < 0.0125  # five standard errors of a share of one half
    torch.testing.assert_close(soft.sum(1), torch.ones(40_000))


@given(st.integers(0, 99), st.floats(0.2, 5.0))
def test_gumbel_softmax_equals_numpy(seed, temperature):
    generator = np.random.default_rng(seed)
    logits, uniform = generator.normal(size=(2, 3, 4)), generator.uniform(0.01, 0.99, size=(2, 3, 4))
    weight = (np.exp(logits) / -np.log(uniform)) ** (1 / temperature)
    soft = gumbel_softmax(torch.tensor(logits), torch.tensor(uniform), torch.tensor(temperature))
    np.testing.assert_allclose(soft.numpy(), weight / weight.sum(-1, keepdims=True), rtol=1e-6)


def test_cold_draws_are_one_hot_and_the_ends_of_the_uniform_are_finite():
    logits = torch.randn(50, 6)
    uniform = torch.rand(50, 6)
    uniform[0, 0], uniform[1, 1] = 0.0, 1.0
    soft = gumbel_softmax(logits, uniform, 1e-4)
    assert torch.isfinite(soft).all() and soft[0, 0] == 0 and soft[1, 1] == 1
    torch.testing.assert_close(soft.max(1).values, torch.ones(50), atol=1e-2, rtol=0)


def test_hard_draws_have_the_soft_gradient():
    uniform, weight = torch.rand(5, 4), torch.randn(5, 4)
    first, second = (torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    hard, soft = gumbel_softmax(first, uniform, 0.7, hard=True), gumbel_softmax(second, uniform, 0.7)
    assert torch.equal(hard.round(), F.one_hot(soft.argmax(1), 4).float()) and (hard.sum(1) - 1).abs().max() < 1e-6
    (hard * weight).sum().backward(), (soft * weight).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


@given(st.integers(0, 99), st.floats(0.0, 2.0))
def test_dvae_terms_equal_scipy(seed, beta):
    generator = np.random.default_rng(seed)
    images, painted = generator.normal(size=(2, 2, 3, 4, 4))
    logits = generator.normal(size=(2, 6, 5))
    terms = dvae_loss(torch.tensor(painted), torch.tensor(images), torch.tensor(logits), beta)
    q = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    kl = np.mean([entropy(row, np.full(5, 0.2)) for row in q.reshape(-1, 5)])
    error = np.mean((painted - images) ** 2)
    assert terms.kl.item() == pytest.approx(kl, rel=1e-6)
    assert terms.reconstruction.item() == pytest.approx(error, rel=1e-9)
    assert terms.total.item() == pytest.approx(error + beta * kl, rel=1e-6)


def test_kl_lies_between_a_fair_and_a_sure_choice():
    images = torch.zeros(2, 1, 4, 4)
    for logits, value in ((torch.full((2, 3, 8), 1.3), 0.0), (100.0 * F.one_hot(torch.arange(3), 8), math.log(8))):
        kl = dvae_loss(images, images, logits.float().expand(2, 3, 8)).kl
        assert kl.item() == pytest.approx(value, abs=1e-5)


def test_no_gradient_reaches_the_images():
    images, painted = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(2, 1, 4, 4, requires_grad=True)
    logits = torch.randn(2, 3, 8, requires_grad=True)
    dvae_loss(painted, images, logits, 0.5).total.backward()
    assert images.grad is None and painted.grad.abs().sum() > 0 and logits.grad.abs().sum() > 0


def test_bad_input_raises():
    logits, codes, mask = case(hidden=2)
    for change, error, words in (
        ({"logits": logits[0]}, ValueError, "logits: expected 3 dimensions"),
        ({"logits": logits.long()}, TypeError, "floating-point"),
        ({"logits": logits[:2]}, ValueError, "logits: expected"),
        ({"logits": logits[:, :3]}, ValueError, "hidden"),
        ({"logits": logits[..., :1]}, ValueError, "V >= 2"),
        ({"logits": logits * math.nan}, ValueError, "finite"),
        ({"codes": codes.int()}, TypeError, "codes: expected int64"),
        ({"codes": codes + 5}, ValueError, "codes: expected 0 to 4"),
        ({"codes": codes - 5}, ValueError, "codes: expected 0 to 4"),
        ({"codes": codes[:, :3]}, ValueError, "logits: expected"),
        ({"mask": mask.float()}, TypeError, "boolean"),
        ({"mask": mask & False}, ValueError, "empty mask"),
        ({"mask": mask[:, :3]}, ValueError, "mask: expected shape"),
    ):
        with pytest.raises(error, match=words):
            masked_code_loss(**{"logits": logits, "codes": codes, "mask": mask, **change})
    uniform = torch.rand(2, 3)
    for change, error, words in (
        ({"logits": torch.zeros(2, 4)}, ValueError, "equal shapes"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"temperature": torch.tensor(-1.0)}, ValueError, "temperature"),
        ({"logits": torch.full((2, 3), math.inf)}, ValueError, "finite"),
        ({"uniform": torch.zeros(2, 3).long()}, TypeError, "uniform"),
        ({"logits": torch.zeros(2, 1), "uniform": torch.rand(2, 1)}, ValueError, "V >= 2"),
    ):
        with pytest.raises(error, match=words):
            gumbel_softmax(**{"logits": torch.zeros(2, 3), "uniform": uniform, "temperature": 1.0, **change})
    images, scores = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 8)
    for change, error, words in (
        ({"reconstruction": torch.zeros(2, 1, 4, 5)}, ValueError, "equal shapes"),
        ({"logits": torch.zeros(3, 3, 8)}, ValueError, "logits: expected"),
        ({"logits": torch.zeros(2, 8)}, ValueError, "logits: expected 3"),
        ({"beta": -1.0}, ValueError, "beta"),
        ({"images": images * math.nan}, ValueError, "finite"),
        ({"images": images.long()}, TypeError, "images"),
    ):
        with pytest.raises(error, match=words):
            dvae_loss(**{"reconstruction": images, "images": images, "logits": scores, **change})
