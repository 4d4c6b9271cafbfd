"""Claims about sigreg and epps_pulley, one test each.

- The statistic equals a NumPy loop, and its O(N^2) closed form on the whole line to within the quadrature.
- Gaussian samples give 1.0525 on average, whatever N is; zeros give 0.402 N; the scale of a Gaussian has a closed form.
- It ignores the order and the sign of samples, and a shift of a sample by one period of the knots; its gradient is
  bounded however far away a sample is.
- What moments cannot see it sees: +-1 samples have mean 0 and variance 1 and cost in proportion to N.
- sigreg equals lightly on the same directions; views are tested one by one; rotation changes it in no direction.
- The twin is chosen for large inputs and agrees; half precision, autocast and float64 are as elsewhere.
- Directions come from the generator, are of length one and take no gradient. Bad input is refused.
"""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import SIGReg
from torch import Tensor

from sslcore.objectives import epps_pulley, random_slices, sigreg

module = importlib.import_module("sslcore.objectives.sigreg")
PERIOD = 2 * math.pi * 16 / 3


def slow_statistic(column: np.ndarray, num_knots: int = 17, t_max: float = 3.0) -> float:
    knots = np.linspace(0, t_max, num_knots)
    values = []
    for t in knots:
        gap = np.exp(1j * t * column).mean() - np.exp(-(t**2) / 2)
        values.append(np.exp(-(t**2) / 2) * abs(gap) ** 2)
    return float(len(column) * 2 * np.trapezoid(values, knots))


def closed_form(column: np.ndarray) -> float:
    num, gaps = len(column), column[:, None] - column[None]
    pairs, singles = np.exp(-(gaps**2) / 2).sum() / num, np.exp(-(column**2) / 4).sum()
    return math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * singles + num / math.sqrt(3))


@pytest.mark.parametrize(("num_knots", "t_max"), [(2, 1.0), (5, 3.0), (17, 3.0), (41, 5.0)])
def test_statistic_equals_the_loop(num_knots, t_max):
    u = torch.randn(3, 11, 4, dtype=torch.float64) * 2 + 0.5
    values = epps_pulley(u, num_knots, t_max)
    assert values.shape == (3, 4)
    for v in range(3):
        for s in range(4):
            assert values[v, s].item() == pytest.approx(slow_statistic(u[v, :, s].numpy(), num_knots, t_max), rel=1e-9)
        torch.testing.assert_close(epps_pulley(u[v], num_knots, t_max), values[v])


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_statistic_equals_the_closed_form_on_the_whole_line(scale):
    u = torch.randn(256, 3, dtype=torch.float64) * scale + 0.2
    for s in range(3):
        exact = closed_form(u[:, s].numpy())
        assert epps_pulley(u, 17, 3.0)[s].item() == pytest.approx(exact, rel=0.02, abs=0.02)
        assert epps_pulley(u, 201, 10.0)[s].item() == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_gaussian_samples_have_a_known_mean():
    knots = np.linspace(0, 3, 17)
    phi = np.exp(-(knots**2) / 2)
    expected = 2 * np.trapezoid(phi * (1 - phi**2), knots)  # the variance of exp(itX) is 1 - phi^2
    assert expected == pytest.approx(1.0525, abs=5e-5)
    for num in (2, 50):
        assert epps_pulley(torch.randn(num, 20_000)).mean().item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("num", [2, 64])
def test_collapse_costs_in_proportion_to_the_batch(num):
    assert sigreg(torch.zeros(num, 5), 8).item() == pytest.approx(0.4020 * num, rel=1e-3)


@pytest.mark.parametrize("scale", [0.1, 0.5, 3.0])
def test_scale_of_a_gaussian(scale):
    quantiles = torch.special.ndtri((torch.arange(4096, dtype=torch.float64) + 0.5) / 4096) * scale
    population = 1 / math.sqrt(2 * scale**2 + 1) - 2 / math.sqrt(scale**2 + 2) + 1 / math.sqrt(3)
    value = epps_pulley(quantiles[:, None], 101, 10.0).item() / 4096
    assert value == pytest.approx(math.sqrt(2 * math.pi) * population, rel=1e-2)


def test_moments_do_not_see_what_the_statistic_sees():
    signs = torch.tensor([1.0, -1.0]).repeat(512)[:, None]
    assert signs.mean() == 0 and signs.square().mean() == 1
    one, double = epps_pulley(signs[:512]).item(), epps_pulley(signs).item()
    assert one > 10 and double == pytest.approx(2 * one, rel=1e-4)


@given(seed=st.integers(0, 999), periods=st.integers(-3, 3))
def test_invariances_and_the_period(seed, periods):
    u = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    value = epps_pulley(u)
    torch.testing.assert_close(epps_pulley(u.flip(0)), value)
    torch.testing.assert_close(epps_pulley(-u), value)
    moved = u.clone()
    moved[0] += periods * PERIOD
    torch.testing.assert_close(epps_pulley(moved), value)
    moved[0] += PERIOD / 2
    assert (epps_pulley(moved) - value).abs().max() > 1e-4


@given(offset=st.floats(-1e4, 1e4), scale=st.floats(0.01, 100))
def test_gradient_is_bounded(offset, scale):
    u = (torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale + offset)
    u.requires_grad_()
    (grad,) = torch.autograd.grad(epps_pulley(u).sum(), u)
    assert torch.isfinite(grad).all() and grad.abs().max() < 6


def test_equals_lightly_on_the_same_directions(monkeypatch):
    z = torch.randn(3, 10, 6, requires_grad=True)
    slices = random_slices(6, 33)
    reference = SIGReg(num_vectors=33)
    monkeypatch.setattr(reference, "_generate_unit_vectors", lambda *args, **kwargs: slices)
    loss, expected = sigreg(z, slices=slices), reference(z)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (loss, expected)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, torch.stack([sigreg(view, slices=slices) for view in z]).mean())


def test_rotation_with_the_slices_changes_nothing():
    z, slices = torch.randn(12, 4, dtype=torch.float64), random_slices(4, 50).double()
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    torch.testing.assert_close(sigreg(z @ rotation, slices=rotation.T @ slices), sigreg(z, slices=slices))


def test_pulls_a_batch_towards_a_gaussian():
    z = torch.nn.Parameter(torch.randn(64, 3) * 0.1 + 1)
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        sigreg(z, 16).backward()
        optimizer.step()
    assert z.mean(0).abs().max() < 0.2 and (z.std(0) - 1).abs().max() < 0.25


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    slices = random_slices(3, 4).double()
    assert torch.autograd.gradcheck(lambda x: sigreg(x, slices=slices), z)
    assert torch.autograd.gradgradcheck(lambda x: sigreg(x, slices=slices), z)


def test_large_inputs_take_the_twin_and_agree(monkeypatch):
    results = []
    for threshold in (1, 2**60):
        monkeypatch.setattr(module, "TWIN_ANGLES", threshold)
        z = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
        loss = sigreg(z, 40, generator=torch.Generator().manual_seed(1))
        loss.backward()
        results.append((loss.detach(), z.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_half_precision_and_autocast():
    z, slices = torch.randn(8, 5), random_slices(5, 9)
    for dtype in (torch.float16, torch.bfloat16):
        half = z.to(dtype).requires_grad_()
        loss = sigreg(half, slices=slices)
        assert loss.dtype == torch.float32 and torch.equal(loss, sigreg(half.float(), slices=slices))
        assert torch.autograd.grad(loss, half)[0].dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sigreg(z, slices=slices), sigreg(z.clone(), slices=slices))
    assert sigreg(z.double(), slices=slices).dtype == torch.float64


def test_slices():
    draw = lambda seed: random_slices(6, 20, torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    torch.testing.assert_close(draw(1).norm(dim=0), torch.ones(20))
    z = torch.randn(5, 6)
    slices = draw(1).requires_grad_()
    drawn = sigreg(z.requires_grad_(), 20, generator=torch.Generator().manual_seed(1))
    given = sigreg(z, slices=slices)
    assert torch.equal(drawn, given)
    given.backward()
    assert slices.grad is None
    assert not torch.equal(sigreg(z, 20), sigreg(z, 20))  # new directions in each call
    with pytest.raises(ValueError, match="at least 1"):
        random_slices(0, 3)


@given(shape=st.lists(st.integers(0, 4), min_size=0, max_size=4))
def test_bad_shapes_are_refused(shape):
    z = torch.randn(shape)
    good = len(shape) in (2, 3) and shape[-2] >= 2 and z.numel() > 0
    for loss in (lambda x: sigreg(x, 4), epps_pulley):
        if good:
            assert torch.isfinite(loss(z)).all()
        else:
            with pytest.raises(ValueError, match="expected"):
                loss(z)


Z = torch.randn(4, 3)


@pytest.mark.parametrize(
    ("z", "options", "error", "message"),
    [
        (Z.long(), {}, TypeError, "floating"),
        ([[1.0]], {}, TypeError, "torch.Tensor"),
        (Z * math.nan, {}, ValueError, "finite"),
        (Z, {"num_slices": 0}, ValueError, "num_slices"),
        (Z, {"num_knots": 1}, ValueError, "num_knots"),
        (Z, {"t_max": 0.0}, ValueError, "t_max"),
        (Z, {"t_max": math.inf}, ValueError, "t_max"),
        (Z, {"slices": torch.randn(4, 5)}, ValueError, "slices"),
        (Z, {"slices": torch.randn(3, 0)}, ValueError, "slices"),
        (Z, {"slices": torch.randn(3)}, ValueError, "slices"),
        (Z, {"slices": torch.full((3, 2), math.nan)}, ValueError, "slices"),
        (Z, {"slices": torch.ones(3, 2, dtype=torch.long)}, TypeError, "slices"),
        (Z, {"slices": torch.ones(3, 2, device="meta")}, ValueError, "one device"),
        (Z, {"group": object()}, ValueError, "init_process_group"),
    ],
)
def test_bad_input_is_refused(z: Tensor, options: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        sigreg(z, **options)
