"""Claims about koleo: equal to a loop and to lightly, known values at both ends, and what leaves it unchanged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import KoLeoLoss

from sslcore.objectives import koleo


@pytest.mark.parametrize(("num", "dim"), [(2, 2), (5, 3), (30, 8)])
def test_koleo_equals_the_loop_and_lightly(num, dim):
    z = torch.randn(num, dim) * 5
    unit = [row / np.sqrt(row @ row) for row in z.double().numpy()]
    losses = []
    for i in range(num):
        losses.append(-np.log(min(np.sqrt(((unit[i] - unit[j]) ** 2).sum()) for j in range(num) if j != i)))
    assert koleo(z).item() == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-5)
    assert koleo(z).item() == pytest.approx(KoLeoLoss()(z).item(), rel=1e-4, abs=1e-5)


def test_koleo_known_values_and_gradient():
    assert koleo(torch.tensor([[3.0, 0.0], [-0.1, 0.0]])).item() == pytest.approx(-math.log(2), abs=1e-6)
    assert koleo(torch.eye(4)).item() == pytest.approx(-math.log(2) / 2, abs=1e-6)
    same = torch.ones(3, 4, requires_grad=True)
    value = koleo(same)
    value.backward()
    assert value.item() == pytest.approx(-math.log(1e-8), rel=1e-5) and torch.isfinite(same.grad).all()
    assert torch.autograd.gradcheck(koleo, torch.randn(6, 3, dtype=torch.float64, requires_grad=True))
    z = torch.randn(6, 3, requires_grad=True)
    koleo(z).backward()
    assert koleo(z.detach() - 0.01 * z.grad) < koleo(z.detach())


@given(seed=st.integers(0, 99))
def test_koleo_invariances(seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    lengths = torch.rand(7, 1, generator=generator, dtype=torch.float64) + 0.1
    for other in (z @ rotation, z * lengths, z.flip(0)):
        torch.testing.assert_close(koleo(other), koleo(z))
