"""Claims about barlow_twins and vicreg, one test each.

- They equal loops over pairs of dimensions in NumPy, and lightly (same halving of the variance term, same epsilons).
- Both sides of the shortcut, D x D and N x N, give the same number: N above, at and below D.
- Collapsed embeddings cost D, and 24.75; copies of one dimension cost lambd * D * (D - 1).
- Barlow Twins ignores a positive scale and a shift of each dimension, VICReg a shift only; a rotation changes both.
- Gradients are those of finite differences and finite at constant dimensions.
- The terms add up; each weight scales its own term; wrong input is refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import BarlowTwinsLoss, VICRegLoss

from sslcore.objectives import barlow_twins, vicreg

SIZES = [(2, 1), (3, 7), (6, 6), (12, 5), (4, 33)]


def slow_barlow(z0, z1, lambd):
    a, b = (
        np.stack([(c - c.mean()) / np.sqrt(((c - c.mean()) ** 2).mean() + 1e-5) for c in z.numpy().T]) for z in (z0, z1)
    )
    dims, num = a.shape
    on, off = 0.0, 0.0
    for i in range(dims):
        for j in range(dims):
            correlation = sum(a[i, n] * b[j, n] for n in range(num)) / num
            if i == j:
                on += (correlation - 1) ** 2
            else:
                off += correlation**2
    return on, lambd * off


def slow_vicreg(z0, z1, sim, std, cov):
    num, dims = z0.shape
    invariance = sum((z0[n, d] - z1[n, d]) ** 2 for n in range(num) for d in range(dims)).item() / (num * dims)
    variance = covariance = 0.0
    for z in (z0.numpy(), z1.numpy()):
        c = np.cov(z.T).reshape(dims, dims)
        variance += sum(max(0.0, 1 - math.sqrt(c[d, d] + 1e-4)) for d in range(dims)) / dims / 2
        covariance += sum(c[i, j] ** 2 for i in range(dims) for j in range(dims) if i != j) / dims
    return sim * invariance, std * variance, cov * covariance


def views(num, dim, dtype=torch.float64, scale=0.5):
    return torch.randn(2, num, dim, dtype=dtype) * scale + 0.3


@pytest.mark.parametrize("lambd", [0.0, 5e-3, 1.0])
@pytest.mark.parametrize(("num", "dim"), SIZES)
def test_barlow_equals_the_loop_and_lightly(num, dim, lambd):
    z0, z1 = views(num, dim)
    terms = barlow_twins(z0, z1, lambd)
    on, off = slow_barlow(z0, z1, lambd)
    assert terms.invariance.item() == pytest.approx(on, rel=1e-8, abs=1e-10)
    assert terms.redundancy.item() == pytest.approx(off, rel=1e-8, abs=1e-10)
    if dim > 1:
        reference = BarlowTwinsLoss(lambda_param=lambd)(z0, z1).item()
        assert terms.total.item() == pytest.approx(reference, rel=1e-8)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 2.0, 3.0)])
@pytest.mark.parametrize(("num", "dim"), SIZES)
def test_vicreg_equals_the_loop_and_lightly(num, dim, weights):
    z0, z1 = views(num, dim)
    terms = vicreg(z0, z1, *weights)
    for term, expected in zip(terms[1:], slow_vicreg(z0, z1, *weights), strict=True):
        assert term.item() == pytest.approx(expected, rel=1e-8, abs=1e-10)
    assert terms.total.item() == pytest.approx(VICRegLoss(*weights)(z0, z1).item(), rel=1e-8)


@pytest.mark.parametrize(("num", "dim"), [(8, 64), (64, 8)])
def test_float32_gradients_equal_lightly(num, dim):
    z0, z1 = views(num, dim, torch.float32)
    for ours, theirs in ((barlow_twins, BarlowTwinsLoss()), (vicreg, VICRegLoss())):
        a, b = z0.clone().requires_grad_(), z0.clone().requires_grad_()
        value, reference = ours(a, z1).total, theirs(b, z1)
        value.backward()
        reference.backward()
        torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
@pytest.mark.parametrize(("num", "dim"), [(4, 60), (60, 4)])
def test_the_smaller_matrix_is_formed(loss, num, dim):
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        values = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.values = max(self.values, result.numel())
            return result

    z0, z1 = torch.randn(2, num, dim, requires_grad=True)
    with Largest() as seen:
        loss(z0, z1).total.backward()
    assert seen.values <= 2 * num * dim  # the two views together; the larger square would be 3600


def test_collapsed_values():
    for constant in (0.0, 0.1, 3.0):
        same = torch.full((6, 8), constant)
        assert vicreg(same, same).total.item() == pytest.approx(24.75, rel=1e-5)
        assert barlow_twins(same, same).total.item() == pytest.approx(8, rel=1e-5)


def test_copies_of_one_dimension():
    z = torch.randn(50, 1, dtype=torch.float64).expand(50, 6) * 100
    terms = barlow_twins(z, z, lambd=0.1)
    assert terms.invariance.item() == pytest.approx(0, abs=1e-8)
    assert terms.redundancy.item() == pytest.approx(0.1 * 6 * 5, rel=1e-6)


def test_perfect_embeddings_cost_nothing():
    hadamard = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64) * 100
    assert barlow_twins(hadamard, hadamard).total.item() == pytest.approx(0, abs=1e-6)
    assert vicreg(hadamard, hadamard).total.item() == pytest.approx(0, abs=1e-6)


@given(num=st.integers(2, 9), dim=st.integers(2, 9), seed=st.integers(0, 999))
def test_invariances(num, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    z0, z1 = torch.randn(2, num, dim, generator=generator, dtype=torch.float64)
    z0, z1 = z0 * 100, z1 * 100  # spreads well above the epsilons, which are what breaks the scale invariance
    order, dims = torch.randperm(num, generator=generator), torch.randperm(dim, generator=generator)
    shift = torch.randn(dim, generator=generator, dtype=torch.float64)
    scale = torch.rand(dim, generator=generator, dtype=torch.float64) + 0.5
    for loss in (barlow_twins, vicreg):
        value = loss(z0, z1).total
        torch.testing.assert_close(loss(z0[order], z1[order]).total, value)
        torch.testing.assert_close(loss(z0[:, dims], z1[:, dims]).total, value)
        torch.testing.assert_close(loss(z0 + shift, z1 + shift).total, value)
        torch.testing.assert_close(loss(z1, z0).total, value)
    spread = min(z.std(dim=0).min().item() for z in (z0, z1))
    if spread > 10:
        value = barlow_twins(z0, z1).total
        torch.testing.assert_close(barlow_twins(z0 * scale + shift, z1).total, value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_axes_matter(loss):
    z0, z1 = views(20, 4) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    value, rotated = loss(z0, z1).total, loss(z0 @ rotation, z1 @ rotation).total
    assert abs(value - rotated) > 1e-3 * value


def test_vicreg_minds_scale():
    z0, z1 = views(20, 4)
    assert abs(vicreg(z0, z1).total - vicreg(2 * z0, 2 * z1).total) > 1e-2


@pytest.mark.parametrize(("num", "dim"), [(5, 3), (3, 5)])
def test_gradients_equal_finite_differences(num, dim):
    z0, z1 = views(num, dim)
    z0.requires_grad_(), z1.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: tuple(barlow_twins(a, b, 0.3)), (z0, z1))
    assert torch.autograd.gradcheck(lambda a, b: tuple(vicreg(a, b)), (z0, z1))


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
@pytest.mark.parametrize("shape", [(4, 3), (3, 8)])
def test_constant_dimensions_give_finite_gradients(loss, shape):
    z0, z1 = torch.zeros(shape, requires_grad=True), torch.randn(shape)
    value = loss(z0, z1).total
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z0.grad).all()


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_half_precision_and_autocast(loss):
    z0, z1 = torch.randn(2, 6, 20).half()
    terms = loss(z0, z1)
    assert terms.total.dtype == torch.float32
    torch.testing.assert_close(tuple(terms), tuple(loss(z0.float(), z1.float())))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(tuple(loss(z0, z1)), tuple(terms), rtol=0, atol=0)
    assert loss(z0.double(), z1).total.dtype == torch.float64


def test_terms_add_up_and_weights_scale_their_own_term():
    z0, z1 = views(7, 4)
    base = vicreg(z0, z1, 1.0, 1.0, 1.0)
    assert base.total == base.invariance + base.variance + base.covariance
    for index, weights in enumerate([(3.0, 1.0, 1.0), (1.0, 3.0, 1.0), (1.0, 1.0, 3.0)], start=1):
        changed = vicreg(z0, z1, *weights)
        for term in (1, 2, 3):
            torch.testing.assert_close(changed[term], base[term] * (3 if term == index else 1))
    terms, doubled = barlow_twins(z0, z1, 0.1), barlow_twins(z0, z1, 0.2)
    assert terms.total == terms.invariance + terms.redundancy and terms.invariance == doubled.invariance
    torch.testing.assert_close(doubled.redundancy, 2 * terms.redundancy)


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
@given(data=st.data())
def test_bad_shapes_are_refused(loss, data):
    shapes = st.lists(st.integers(0, 4), min_size=0, max_size=3)
    shape0, shape1 = data.draw(shapes), data.draw(shapes)
    z0, z1 = torch.randn(shape0), torch.randn(shape1)
    if shape0 == shape1 and len(shape0) == 2 and shape0[0] >= 2 and shape0[1] >= 1:
        assert torch.isfinite(loss(z0, z1).total)
    else:
        with pytest.raises(ValueError, match="expected"):
            loss(z0, z1)


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_bad_values_and_types_are_refused(loss):
    z = torch.randn(4, 3)
    for bad, error in ((z * math.nan, ValueError), (z.long(), TypeError), (None, TypeError)):
        with pytest.raises(error, match="expected"):
            loss(z, bad)


@given(weight=st.one_of(st.floats(max_value=-1e-9), st.just(math.nan), st.just(math.inf)))
def test_bad_weights_are_refused(weight):
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match="lambd"):
        barlow_twins(z, z, lambd=weight)
    for name in ("sim", "std", "cov"):
        with pytest.raises(ValueError, match=name):
            vicreg(z, z, **{name: weight})
