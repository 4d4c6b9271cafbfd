"""Claims about the collapse meters: known values at both ends, invariances, and no gradient."""

from __future__ import annotations

import math

import pytest
import torch

from sslcore.objectives import effective_rank, embedding_std


def test_collapse_reads_zero():
    for constant in (0.0, 0.1, 1e4):
        same = torch.full((20, 8), constant)
        assert embedding_std(same).item() == pytest.approx(0, abs=1e-5)
        assert effective_rank(same).item() == 0


def test_spread_reads_one_and_full_rank():
    z = torch.randn(5000, 16)
    assert embedding_std(z).item() == pytest.approx(1, abs=0.02)
    assert effective_rank(z).item() == pytest.approx(16, abs=0.1)
    simplex = torch.eye(6)
    assert effective_rank(simplex).item() == pytest.approx(5, rel=1e-5)  # centring takes one direction


@pytest.mark.parametrize("directions", [1, 3])
def test_effective_rank_counts_equal_directions(directions):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * directions).reshape(-1, directions)
    z = signs @ torch.linalg.qr(torch.randn(9, directions))[0].T + 5  # the common offset is not a direction
    assert effective_rank(z).item() == pytest.approx(directions, rel=1e-4)
    assert effective_rank(z * 7).item() == pytest.approx(directions, rel=1e-4)


def test_effective_rank_of_a_known_spectrum():
    z = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(z).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_meters_take_half_precision_and_give_no_gradient():
    z = torch.randn(10, 4).half().requires_grad_()
    for meter in (embedding_std, effective_rank):
        value = meter(z)
        assert value.dtype == torch.float32 and not value.requires_grad
        torch.testing.assert_close(value, meter(z.detach().float() * 3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("meter", [embedding_std, effective_rank])
@pytest.mark.parametrize(
    "bad", [torch.randn(1, 3), torch.randn(0, 3), torch.randn(3), torch.randn(3, 0), torch.full((3, 2), math.nan)]
)
def test_bad_input_is_refused(meter, bad):
    with pytest.raises(ValueError, match="expected"):
        meter(bad)
    with pytest.raises(TypeError, match="floating"):
        meter(torch.ones(3, 2, dtype=torch.long))
