"""Claims: the loss is a NumPy loop over places; the order of places does not matter; zero costs (P - 1) / P."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.objectives import next_cluster_loss, patchify


def transcription(pred, images, places, p, norm_pix):
    total, width = [], images.shape[3] // p
    for b in range(len(pred)):
        for i, place in enumerate(places.tolist()):
            row, column = divmod(place, width)
            patch = images[b, :, row * p : (row + 1) * p, column * p : (column + 1) * p]
            patch = patch.permute(1, 2, 0).numpy().ravel()
            if norm_pix:
                patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            total.append(np.mean((pred[b, i].numpy() - patch) ** 2))
    return np.mean(total)


@given(channels=st.sampled_from([1, 3]), p=st.sampled_from([2, 4]), norm_pix=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_equals_the_loop(channels, p, norm_pix, seed):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(2, channels, 8, 12, generator=g, dtype=torch.float64)
    number = 96 // p**2
    places = torch.randperm(number, generator=g)[: int(torch.randint(1, number + 1, (), generator=g))]
    pred = torch.randn(2, len(places), channels * p * p, generator=g, dtype=torch.float64)
    loss = next_cluster_loss(pred, images, places, p, norm_pix)
    assert float(loss) == pytest.approx(transcription(pred, images, places, p, norm_pix), rel=1e-9)
    shuffle = torch.randperm(len(places), generator=g)
    torch.testing.assert_close(next_cluster_loss(pred[:, shuffle], images, places[shuffle], p, norm_pix), loss)


@pytest.mark.parametrize(("p", "channels", "expected"), [(4, 3, 47 / 48), (16, 3, 767 / 768), (4, 1, 15 / 16)])
def test_a_zero_prediction(p, channels, expected):
    images, places = 10 * torch.randn(4, channels, 4 * p, 4 * p), torch.arange(4, 16)
    loss = next_cluster_loss(torch.zeros(4, 12, channels * p * p), images, places, p)
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_the_right_answer_costs_nothing_and_only_predictions_get_a_gradient():
    images, places = torch.randn(2, 1, 8, 8, requires_grad=True), torch.tensor([3, 1])
    patches = patchify(images.detach(), 4)[:, places]
    right = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    assert float(next_cluster_loss(right, images, places, 4)) < 1e-10
    pred = torch.zeros(2, 2, 16, requires_grad=True)
    next_cluster_loss(pred, images, places, 4).backward()
    assert images.grad is None and bool((pred.grad.abs().sum(2) > 0).all())
    other = images.detach().clone()
    other[:, :, :4, :4] = 5  # patch 0 was not asked for
    torch.testing.assert_close(next_cluster_loss(pred, other, places, 4), next_cluster_loss(pred, images, places, 4))


def test_float32_under_autocast():
    pred, images = torch.randn(2, 3, 16), torch.randn(2, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = next_cluster_loss(pred, images, torch.arange(1, 4), 4)
    assert torch.equal(loss, next_cluster_loss(pred, images, torch.arange(1, 4), 4)) and loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("pred", "places", "error", "said"),
    [
        (torch.zeros(3, 16), torch.arange(3), ValueError, "pred: expected 3 dimensions"),
        (torch.zeros(2, 3, 16), torch.arange(2), ValueError, r"places: expected \(3,\), got \(2,\)"),
        (torch.zeros(2, 3, 16), torch.arange(3).float(), TypeError, "places: expected int64"),
        (torch.zeros(2, 3, 16), torch.tensor([1, 2, 4]), ValueError, r"places: expected indices in \[0, 4\)"),
        (torch.zeros(2, 3, 16), torch.tensor([1, 2, 2]), ValueError, "every patch at most once"),
        (torch.zeros(2, 3, 9), torch.arange(3), ValueError, "pred: expected"),
        (torch.full((2, 3, 16), torch.nan), torch.arange(3), ValueError, "NaN"),
    ],
)
def test_bad_input_is_refused(pred, places, error, said):
    with pytest.raises(error, match=said):
        next_cluster_loss(pred, torch.randn(2, 1, 8, 8), places, 4)
