"""Rank and spread of embeddings: constants computed by other means, bounds, invariances, bad input."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
import torch.nn.functional as F

from sslcore.probes.geometry import alignment, lidar, rankme, uniformity


def test_rankme_constants():
    assert rankme(torch.eye(16)) == pytest.approx(16.0, abs=1e-3)
    assert rankme(torch.ones(40, 16)) == pytest.approx(1.00002, abs=1e-4)
    generator = torch.Generator().manual_seed(0)
    assert rankme(torch.randn(1000, 16, generator=generator)) == pytest.approx(15.97, abs=0.02)


def test_rankme_ignores_scale_and_rotation_and_stays_in_range():
    features = torch.randn(30, 10) * torch.logspace(0, -3, 10)
    basis = torch.linalg.qr(torch.randn(10, 10))[0]
    value = rankme(features)
    assert 1 <= value <= 10
    assert rankme(7 * features @ basis) == pytest.approx(value, rel=1e-4)
    assert rankme(torch.zeros(5, 3)) == pytest.approx(1, abs=1e-4)


def lidar_by_definition(views: numpy.ndarray, delta: float) -> float:
    means = views.mean(1)
    off = means - means.mean(0)
    between = off.T @ off / len(off)
    inner = views - means[:, None]
    within = numpy.einsum("nqd,nqe->de", inner, inner) / (inner.shape[0] * inner.shape[1])
    values, vectors = numpy.linalg.eigh(within + delta * numpy.eye(len(within)))
    root = vectors @ numpy.diag(values**-0.5) @ vectors.T
    spectrum = numpy.linalg.eigvalsh(root @ between @ root).clip(0)
    share = spectrum / spectrum.sum() + 1e-7
    return float(numpy.exp(-(share * numpy.log(share)).sum()))


@pytest.mark.parametrize("shape", [(20, 5, 8), (6, 4, 12)])
def test_lidar_agrees_with_the_definition_and_its_bound(shape):
    views = torch.randn(shape[0], 1, shape[2]) + 0.5 * torch.randn(shape)
    value = lidar(views)
    assert value == pytest.approx(lidar_by_definition(views.double().numpy(), 1e-4), rel=1e-5)
    assert 1 <= value <= min(shape[0] - 1, shape[2]) + 1e-3


def test_lidar_of_identical_views_is_the_rank_of_the_means():
    means = torch.randn(12, 6) * torch.logspace(0, -2, 6)
    off = (means - means.mean(0)).double()
    values = torch.linalg.eigvalsh(off.T @ off / 12)
    share = values / values.sum()
    expected = float(torch.exp(-(share * share.log()).sum()))
    assert lidar(means[:, None].expand(-1, 3, -1)) == pytest.approx(expected, rel=1e-4)


def test_lidar_counts_only_directions_that_beat_the_views():
    signal = torch.zeros(200, 1, 10)
    signal[..., :3] = 10 * torch.randn(200, 1, 3)
    assert lidar(signal + torch.randn(200, 10, 10)) < 3.2
    assert lidar(torch.ones(5, 3, 4)) == pytest.approx(1, abs=1e-4)


def test_alignment_values():
    rows = torch.randn(20, 5)
    assert alignment(rows, 3 * rows) == pytest.approx(0, abs=1e-6)
    assert alignment(rows, -rows) == pytest.approx(4, abs=1e-5)
    first, second = torch.randn(20, 5), torch.randn(20, 5)
    cosine = float(F.cosine_similarity(first, second).mean())
    assert alignment(first, second) == pytest.approx(2 - 2 * cosine, abs=1e-5)


@pytest.mark.parametrize("width, constant", [(2, -1.575), (3, -2.080), (16, -3.513), (128, -3.938)])
def test_uniformity_of_the_uniform_sphere(width, constant):
    generator = torch.Generator().manual_seed(0)
    assert uniformity(torch.randn(1500, width, generator=generator)) == pytest.approx(constant, abs=0.02)


def test_uniformity_of_collapse_and_of_two_poles():
    assert uniformity(torch.ones(10, 4)) == pytest.approx(0, abs=1e-6)
    poles = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    assert uniformity(poles) == pytest.approx(math.log((2 + 4 * math.exp(-8)) / 6), abs=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rankme(torch.zeros(0, 3)), "at least 1"),
        (lambda: rankme(torch.full((3, 3), float("nan"))), "finite"),
        (lambda: uniformity(torch.zeros(1, 3)), "at least 2"),
        (lambda: uniformity(torch.zeros(4, 3), t=0), "t: expected"),
        (lambda: alignment(torch.zeros(2, 3), torch.zeros(3, 3)), "equal shapes"),
        (lambda: alignment(torch.zeros(0, 3), torch.zeros(0, 3)), "at least 1"),
        (lambda: lidar(torch.zeros(1, 3, 4)), "n >= 2"),
        (lambda: lidar(torch.zeros(4, 1, 4)), "q >= 2"),
        (lambda: lidar(torch.zeros(4, 3, 4), delta=0), "delta"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
