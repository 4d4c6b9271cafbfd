"""Claims about next_embedding_loss and masked_latent_loss, one test each.

next_embedding_loss:
- It equals a NumPy loop; -1 exactly when every output is parallel to the next embedding; never outside [-1, 1].
- Lengths do not matter, nor the last output, nor the first embedding.
- With stop_gradient the gradient is that of constant targets; without it, targets are pulled as much as outputs.
- float32 under autocast; bad input is refused.

masked_latent_loss:
- It equals a NumPy loop, and scipy's cosine distance where no coordinate differs by more than beta.
- Positive scaling of a cell and anything at visible cells change nothing; 0 and 1 are reached, never left, by
  non-negative features.
- With stop_gradient the gradient is that of constant targets.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from sslcore.objectives import masked_latent_loss, next_embedding_loss


@given(batch=st.integers(1, 4), length=st.integers(2, 6), width=st.integers(1, 5), seed=st.integers(0, 1000))
def test_equals_the_loop_and_stays_in_range(batch, length, width, seed):
    o, s = torch.randn(2, batch, length, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = [cosine(o[b, i].numpy(), s[b, i + 1].numpy()) - 1 for b in range(batch) for i in range(length - 1)]
    loss = next_embedding_loss(o, s)
    assert loss.item() == pytest.approx(np.mean(rows), abs=1e-9)
    assert -1 - 1e-9 <= loss.item() <= 1 + 1e-9
    assert next_embedding_loss(s.roll(-1, 1) * 3, s).item() == pytest.approx(-1)


def test_what_does_not_matter():
    o, s = torch.randn(2, 3, 5, 4)
    loss = next_embedding_loss(o, s)
    scale = torch.rand(2, 3, 5, 1) + 0.5
    torch.testing.assert_close(next_embedding_loss(o * scale[0], s * scale[1]), loss)
    o2, s2 = o.clone(), s.clone()
    o2[:, -1], s2[:, 0] = 7.0, 7.0
    assert torch.equal(next_embedding_loss(o2, s2), loss)


def test_gradient_is_that_of_constant_targets():
    weight = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 5, 4, dtype=torch.float64)

    def gradient(stop, constant=False):
        z = x @ weight
        target = z.detach().clone() if constant else z
        return torch.autograd.grad(next_embedding_loss(z.tanh(), target, stop), weight)[0]

    assert torch.equal(gradient(True), gradient(False, constant=True))
    assert not torch.allclose(gradient(True), gradient(False))
    o, s = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True).unbind(0)
    assert torch.autograd.gradcheck(lambda a, b: next_embedding_loss(a, b, False), (o, s))
    forwards, backwards = next_embedding_loss(o, s, False), next_embedding_loss(s.flip(1), o.flip(1), False)
    torch.testing.assert_close(forwards, backwards)  # without the stop both sides play the same part


def test_float32_under_autocast_and_zero_vectors():
    o, s = torch.randn(2, 2, 3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = next_embedding_loss(o, s)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, next_embedding_loss(o, s))
    half = next_embedding_loss(o.bfloat16(), s.bfloat16())
    torch.testing.assert_close(half, loss, atol=1e-2, rtol=0)
    assert next_embedding_loss(torch.zeros_like(o), s) == 0


@pytest.mark.parametrize(
    ("o", "s", "error", "said"),
    [
        (torch.randn(3, 4), torch.randn(2, 3, 4), ValueError, "outputs: expected 3 dimensions"),
        (torch.randn(2, 3, 4), torch.randn(2, 4, 4), ValueError, "equal shapes"),
        (torch.randn(2, 1, 4), torch.randn(2, 1, 4), ValueError, "at least two places"),
        (torch.randn(0, 3, 4), torch.randn(0, 3, 4), ValueError, "expected images and channels"),
        (torch.ones(2, 3, 4).long(), torch.randn(2, 3, 4), TypeError, "floating-point"),
        (torch.full((2, 3, 4), torch.nan), torch.randn(2, 3, 4), ValueError, "NaN"),
        (torch.randn(2, 3, 4), torch.full((2, 3, 4), torch.inf), ValueError, "infinite"),
    ],
)
def test_bad_input_is_refused(o, s, error, said):
    with pytest.raises(error, match=said):
        next_embedding_loss(o, s)


def hidden_cells(batch, cells, seed):
    mask = torch.rand(batch, cells, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, 0] = True
    return mask


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.floats(0.05, 3.0), st.integers(0, 1000))
def test_masked_latent_loss_equals_the_loop(batch, cells, width, beta, seed):
    p, t = torch.randn(2, batch, cells, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask, costs = hidden_cells(batch, cells, seed), []
    for b, n in np.argwhere(mask.numpy()):
        x, y = p[b, n].numpy(), t[b, n].numpy()
        gap = np.abs(x / np.sqrt(x @ x) - y / np.sqrt(y @ y))
        costs.append(sum(d * d / (2 * beta) if d < beta else d - beta / 2 for d in gap))
    assert masked_latent_loss(p, t, mask, beta).item() == pytest.approx(np.mean(costs), abs=1e-9)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(2, 5), st.integers(0, 1000))
def test_masked_latent_loss_of_non_negative_features_is_one_minus_cosine(batch, cells, width, seed):
    p, t = torch.rand(2, batch, cells, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = hidden_cells(batch, cells, seed)
    rows = [cosine(p[b, n].numpy(), t[b, n].numpy()) for b, n in mask.nonzero().tolist()]
    loss = masked_latent_loss(p, t, mask)
    assert loss.item() == pytest.approx(np.mean(rows), abs=1e-9)
    assert 0 <= loss.item() <= 1
    assert masked_latent_loss(3 * t, t, mask).item() == pytest.approx(0, abs=1e-12)
    scale = torch.rand(2, batch, cells, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(masked_latent_loss(p * scale[0], t * scale[1], mask), loss)
    other = torch.where(mask[..., None], p, p + 5)
    assert torch.equal(masked_latent_loss(other, t, mask), loss)


def test_masked_latent_loss_at_its_ends():
    axes = torch.eye(3)[None]
    everywhere = torch.ones(1, 3, dtype=torch.bool)
    assert masked_latent_loss(axes.roll(1, 1), axes, everywhere).item() == pytest.approx(1.0)
    assert masked_latent_loss(-axes, axes, everywhere).item() == pytest.approx(1.5)  # linear beyond beta
    assert masked_latent_loss(torch.zeros(1, 3, 3), axes, everywhere).item() == pytest.approx(0.5)


def test_masked_latent_loss_gradient_is_that_of_constant_targets():
    p, t = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True).unbind(0)
    mask = hidden_cells(2, 3, 0)
    held = torch.autograd.grad(masked_latent_loss(p, t, mask), (p, t), allow_unused=True)
    constant = torch.autograd.grad(masked_latent_loss(p, t.detach(), mask, stop_gradient=False), p)
    assert held[1] is None and torch.equal(held[0], constant[0])
    assert not held[0][~mask].any() and held[0][mask].any()
    free = torch.autograd.grad(masked_latent_loss(p, t, mask, stop_gradient=False), t)[0]
    assert free[mask].any()
    assert torch.autograd.gradcheck(lambda a, b: masked_latent_loss(a, b, mask, stop_gradient=False), (p, t))


def test_masked_latent_loss_in_float32_under_autocast():
    p, t, mask = torch.randn(2, 3, 8), torch.randn(2, 3, 8), hidden_cells(2, 3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_latent_loss(p, t, mask)
    assert loss.dtype == torch.float32 and torch.equal(loss, masked_latent_loss(p, t, mask))
    torch.testing.assert_close(masked_latent_loss(p.bfloat16(), t.bfloat16(), mask), loss, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("p", "t", "mask", "beta", "error", "said"),
    [
        (torch.randn(3, 4), torch.randn(3, 4), torch.ones(3, 4) > 0, 1, ValueError, "pred: expected 3 dimensions"),
        (torch.randn(2, 3, 4), torch.randn(2, 4, 4), torch.ones(2, 3) > 0, 1, ValueError, "equal shapes"),
        (torch.randn(2, 3, 0), torch.randn(2, 3, 0), torch.ones(2, 3) > 0, 1, ValueError, "expected channels"),
        (torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 4) > 0, 1, ValueError, "mask: expected shape"),
        (torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 3) < 0, 1, ValueError, "at least one True"),
        (torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 3), 1, TypeError, "boolean mask"),
        (torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 3) > 0, 0, ValueError, "beta"),
        (torch.ones(2, 3, 4).long(), torch.randn(2, 3, 4), torch.ones(2, 3) > 0, 1, TypeError, "floating-point"),
        (torch.randn(2, 3, 4), torch.full((2, 3, 4), torch.nan), torch.ones(2, 3) > 0, 1, ValueError, "NaN"),
    ],
)
def test_masked_latent_loss_refuses_bad_input(p, t, mask, beta, error, said):
    with pytest.raises(error, match=said):
        masked_latent_loss(p, t, mask, beta)
