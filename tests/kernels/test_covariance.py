"""Claims about the closed forms behind barlow_twins and vicreg: equal to the plain objectives on both sides; small."""

from __future__ import annotations

import functools

import pytest
import torch

from sslcore.kernels import covariance
from sslcore.objectives import barlow_twins, redundancy, vicreg

SHAPES = [(2, 1), (3, 7), (6, 6), (5, 8), (12, 5), (4, 33)]  # both sides; (5, 8) differs between one matrix and two
OBJECTIVES = [functools.partial(barlow_twins, lambd=0.1), vicreg]


def run(monkeypatch, loss, z0, z1, threshold):
    monkeypatch.setattr(redundancy, "TWIN_VALUES", threshold)
    leaves = [z.clone().requires_grad_() for z in (z0, z1)]
    terms = loss(*leaves)
    (3 * terms[1] + 2 * terms[2] + terms.total).backward()
    return [*(term.detach() for term in terms), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("strip_values", [1, 20, 2**20])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_form(monkeypatch, shape, strip_values, loss):
    for name in ("spread", "correlation"):
        monkeypatch.setattr(
            covariance, name, functools.partial(getattr(covariance, name), strip_values=strip_values)
        )
    z0, z1 = torch.randn(2, *shape, dtype=torch.float64) * 0.5 + 0.3
    torch.testing.assert_close(run(monkeypatch, loss, z0, z1, 0), run(monkeypatch, loss, z0, z1, 2**60))


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(40, 9), (9, 40)])
def test_float32_at_any_scale(monkeypatch, shape, scale, loss):
    z0, z1 = torch.randn(2, *shape) * scale
    for result, expected in zip(*(run(monkeypatch, loss, z0, z1, bound) for bound in (0, 2**60)), strict=True):
        assert (result - expected).abs().max() <= 1e-4 * expected.abs().max().clamp_min(1e-30)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_the_same_tensor_twice_and_constant_columns(monkeypatch, loss):
    z = torch.randn(6, 4, dtype=torch.float64)
    z[:, 0] = 2.0
    results = []
    for bound in (0, 2**60):
        monkeypatch.setattr(redundancy, "TWIN_VALUES", bound)
        leaf = z.clone().requires_grad_()
        value = loss(leaf, leaf).total
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("shape", [(5, 3), (3, 8)])
def test_gradients_equal_finite_differences(shape):
    z0, z1 = torch.randn(2, *shape, dtype=torch.float64)
    z0.requires_grad_(), z1.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: covariance.spread(z, strip_values=8), z0)
    assert torch.autograd.gradcheck(lambda a, b: covariance.correlation(a, b, 1e-3, strip_values=8), (z0, z1))
    (grad,) = torch.autograd.grad(covariance.spread(z0)[1], z0, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_one_side_without_gradient(loss):
    z0, z1 = torch.randn(2, 200, 100)
    z0.requires_grad_()
    loss(z0, z1).total.backward()
    assert z1.grad is None and torch.isfinite(z0.grad).all()


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_keeps_little_but_its_inputs(loss):
    """Bytes that autograd keeps between forward and backward, beyond the two views."""
    z0, z1 = (torch.randn(32, 1024, requires_grad=True) for _ in range(2))
    own, kept = {z0.data_ptr(), z1.data_ptr()}, {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = loss(z0, z1)
    assert sum(kept.values()) < 32 * 1024 / 2  # a few rows of D numbers and two 32 x 32 matrices
    terms.total.backward()
