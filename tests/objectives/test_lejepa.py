"""LeJEPA's two terms against NumPy, and what each of its regularizers can and cannot see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.objectives import lejepa, random_slices, sigreg, slice_moments


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def transcribed(z, slices, lambd, num_global, moments):
    """One sample, slice and knot at a time."""
    z, slices = z.double().numpy(), slices.double().numpy()
    views, rows, dim = z.shape
    total = 0.0
    for v in range(views):
        for n in range(rows):
            for d in range(dim):
                total += (z[v, n, d] - np.mean([z[g, n, d] for g in range(num_global)])) ** 2
    invariance, penalties = total / z.size, []
    for v in range(views):
        for s in range(slices.shape[1]):
            u = z[v] @ slices[:, s]
            if moments:
                penalties.append(u.mean() ** 2 + (math.sqrt(u.var() + 1e-6) - 1) ** 2)
                continue
            knots, values = np.linspace(0, 3, 17), []
            for t in knots:
                phi = math.exp(-t * t / 2)
                values.append(phi * abs(np.exp(1j * t * u).mean() - phi) ** 2)
            penalties.append(2 * rows * np.trapezoid(values, knots) if hasattr(np, "trapezoid")
                             else 2 * rows * np.trapz(values, knots))
    return (1 - lambd) * invariance + lambd * np.mean(penalties), invariance, np.mean(penalties)


@pytest.mark.parametrize("num_global", [1, 2, 3])
@pytest.mark.parametrize("moments", [False, True])
def test_equals_a_slow_transcription(num_global, moments):
    z, slices = 1.5 * draw(3, 7, 4) + 0.3, random_slices(4, 5, torch.Generator().manual_seed(1))
    name = "moments" if moments else "sigreg"
    terms = lejepa(z, 0.3, num_global, name, slices=slices)
    assert [float(term) for term in terms] == pytest.approx(transcribed(z, slices, 0.3, num_global, moments), rel=1e-4)


def test_two_views_are_compared_through_their_middle():
    """With two views and both as centre, the term is a quarter of the mean squared distance between them."""
    z = draw(2, 9, 5)
    expected = torch.nn.functional.mse_loss(z[0], z[1]) / 4
    torch.testing.assert_close(lejepa(z, 0.0, num_slices=2).invariance, expected)
    torch.testing.assert_close(lejepa(z, 0.0, num_slices=2).total, expected)


def test_one_view_that_agrees_with_itself_leaves_the_regularizer():
    z, slices = draw(1, 12, 3), random_slices(3, 4)
    terms = lejepa(z, 1.0, slices=slices)
    assert float(terms.invariance) == 0
    torch.testing.assert_close(terms.total, sigreg(z, slices=slices))


def test_floor_of_the_total_is_not_zero():
    """Views that agree and are Gaussian: 1.0525 * lambd on average."""
    z = draw(1, 4096, 8).repeat(2, 1, 1)
    assert float(lejepa(z, 0.05, num_slices=2048).total) == pytest.approx(1.0525 * 0.05, rel=0.25)


def test_signs_have_the_right_moments_and_sigreg_sees_through_them():
    """Plus and minus one in one dimension: mean 0, deviation 1, and as far from Gaussian as it gets."""
    z = torch.tensor([1.0, -1.0]).repeat(64)[None, :, None]
    direction = torch.ones(1, 1)
    assert float(slice_moments(z, slices=direction)) == pytest.approx(0, abs=1e-6)
    assert float(sigreg(z, slices=direction)) > 10
    assert float(sigreg(z.repeat(1, 4, 1), slices=direction)) == pytest.approx(
        4 * float(sigreg(z, slices=direction)), rel=1e-4
    )


def test_a_collapsed_batch_costs():
    z = torch.zeros(2, 50, 4)
    assert float(lejepa(z, 1.0, num_slices=8).total) == pytest.approx(0.402 * 50, rel=1e-3)
    assert float(lejepa(z, 1.0, regularizer="moments", num_slices=8).total) == pytest.approx(1, rel=3e-3)


@given(seed=st.integers(0, 99), name=st.sampled_from(["sigreg", "moments"]))
@settings(max_examples=20, deadline=None)
def test_order_of_images_and_a_turn_of_the_space_change_nothing(seed, name):
    z, slices = draw(2, 10, 4, seed=seed), random_slices(4, 6, torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(draw(4, 4, seed=seed + 1))[0]
    shuffled = z[:, torch.randperm(10, generator=torch.Generator().manual_seed(seed))]
    first = lejepa(z, 0.4, regularizer=name, slices=slices).total
    torch.testing.assert_close(first, lejepa(shuffled, 0.4, regularizer=name, slices=slices).total)
    torch.testing.assert_close(first, lejepa(z @ turn, 0.4, regularizer=name, slices=turn.T @ slices).total)


@pytest.mark.parametrize("name", ["sigreg", "moments"])
def test_gradients_are_exact(name):
    z = draw(2, 5, 3).double().requires_grad_()
    slices = random_slices(3, 4).double()
    assert torch.autograd.gradcheck(lambda x: lejepa(x, 0.3, 1, name, slices=slices).total, z)


def test_gradients_flow_through_the_centre():
    """No stop-gradient: without it the gradient of the invariance alone sums to zero over the views of an image."""
    z = draw(3, 6, 4).requires_grad_()
    lejepa(z, 0.0, num_slices=2).total.backward()
    torch.testing.assert_close(z.grad.sum(0), torch.zeros(6, 4), atol=1e-7, rtol=0)


def test_half_precision_is_computed_in_full():
    z, slices = draw(2, 16, 4), random_slices(4, 8)
    half = lejepa(z.bfloat16(), 0.5, slices=slices)
    assert half.total.dtype == torch.float32
    torch.testing.assert_close(half.total, lejepa(z.bfloat16().float(), 0.5, slices=slices).total)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(4, 3),), "3 dimensions"),
        ((torch.zeros(2, 0, 3),), "N >= 1"),
        ((torch.full((2, 4, 3), float("nan")),), "NaN"),
        ((torch.zeros(2, 4, 3), 1.5), "lambd"),
        ((torch.zeros(2, 4, 3), 0.1, 3), "num_global"),
        ((torch.zeros(2, 4, 3), 0.1, 2, "gaussian"), "regularizer"),
        ((torch.zeros(2, 1, 3),), "two samples"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lejepa(*arguments)


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError):
        lejepa(torch.zeros(2, 4, 3, dtype=torch.long))
