"""Claims about next_embedding_loss, one test each.

- It equals a NumPy loop; -1 exactly when every output is parallel to the next embedding; never outside [-1, 1].
- Lengths do not matter, nor the last output, nor the first embedding.
- With stop_gradient the gradient is that of constant targets; without it, targets are pulled as much as outputs.
- float32 under autocast; bad input is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from sslcore.objectives import next_embedding_loss


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
