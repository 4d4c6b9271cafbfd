"""Claims about contrastive_divergence, one test each.

- It is the difference of the means plus the weighted mean squares, as NumPy says.
- A constant added to both scores leaves the gap alone; equal scores give exactly 0; the penalty sees the constant.
- For a Gaussian model, samples drawn from it give the gradient of the negative log-likelihood.
- Half precision, autocast and bad input.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.objectives import contrastive_divergence


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize(("num", "fakes"), [(1, 1), (5, 9)])
def test_equals_numpy(num, fakes, l2):
    real, fake = torch.randn(num), torch.randn(fakes)
    a, b = real.double().numpy(), fake.double().numpy()
    terms = contrastive_divergence(real, fake, l2)
    assert terms.gap.item() == pytest.approx(np.sum(b) / fakes - np.sum(a) / num, abs=1e-6)
    assert terms.penalty.item() == pytest.approx(l2 * (np.dot(a, a) / num + np.dot(b, b) / fakes), abs=1e-6)
    torch.testing.assert_close(terms.total, terms.gap + terms.penalty)


@given(shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_only_the_penalty_sees_a_constant(shift, seed):
    real, fake = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before, after = contrastive_divergence(real, fake, 0.1), contrastive_divergence(real + shift, fake + shift, 0.1)
    torch.testing.assert_close(before.gap, after.gap)
    moved = 0.1 * (2 * shift * (real.mean() + fake.mean()) + 2 * shift**2)
    torch.testing.assert_close(after.penalty - before.penalty, moved)
    same = contrastive_divergence(real, real)
    assert same.total.item() == 0.0


def test_gradient_is_that_of_the_likelihood_of_a_gaussian():
    """f(x) = -precision * (x - mean)^2 / 2, whose log Z is known."""
    generator = torch.Generator().manual_seed(0)
    data = 2 + 0.5 * torch.randn(500, generator=generator, dtype=torch.float64)
    mean, precision = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.7))
    likelihood = (precision * (data - mean).square() / 2 + 0.5 * (2 * math.pi / precision).log()).mean()
    exact = torch.autograd.grad(likelihood, (mean, precision))
    draws = 1 + torch.randn(400_000, generator=generator, dtype=torch.float64) / 0.7**0.5
    score = lambda x: -precision * (x - mean).square() / 2  # noqa: E731
    sampled = torch.autograd.grad(contrastive_divergence(score(data), score(draws)).total, (mean, precision))
    torch.testing.assert_close(sampled, exact, rtol=0.01, atol=0.01)


def test_half_precision_and_autocast():
    real, fake = torch.randn(2, 64).bfloat16()
    terms = contrastive_divergence(real.requires_grad_(), fake, 0.1)
    assert terms.total.dtype == torch.float32
    terms.total.backward()
    assert real.grad.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_divergence(real, fake, 0.1).total, terms.total)


@pytest.mark.parametrize(
    ("real", "fake", "l2", "error", "message"),
    [
        (torch.randn(3, 1), torch.randn(3), 0.0, ValueError, "real: expected 1 dim"),
        (torch.randn(3), torch.randn(0), 0.0, ValueError, "fake: expected at least one score"),
        (torch.randn(3), torch.full((3,), math.inf), 0.0, ValueError, "fake: expected finite"),
        (torch.ones(3).long(), torch.randn(3), 0.0, TypeError, "real: expected a floating"),
        (torch.randn(3), torch.randn(3), -1.0, ValueError, "l2: expected"),
        (torch.randn(3), torch.randn(3), math.nan, ValueError, "l2: expected"),
    ],
)
def test_bad_input_is_refused(real, fake, l2, error, message):
    with pytest.raises(error, match=message):
        contrastive_divergence(real, fake, l2)
