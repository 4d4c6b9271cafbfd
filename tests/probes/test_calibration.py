"""expected_calibration_error equals a loop; calibrated draws come near 0; sure and wrong gives the confidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslcore.probes import expected_calibration_error


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_equals_a_loop(bins):
    probabilities = (2 * torch.randn(300, 4)).softmax(1)
    labels = torch.randint(4, (300,))
    sure, right = probabilities.numpy().max(1), (probabilities.argmax(1) == labels).numpy()
    expected = 0.0
    for b in range(bins):
        inside = (sure > b / bins) & (sure <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(float(expected), abs=1e-6)


def test_calibrated_predictions_have_almost_none():
    probabilities = (2 * torch.randn(20_000, 5)).softmax(1)
    labels = torch.multinomial(probabilities, 1)[:, 0]
    assert expected_calibration_error(probabilities, labels) < 0.02
    sharper = probabilities.pow(3)
    assert expected_calibration_error(sharper / sharper.sum(1, keepdim=True), labels) > 0.1


def test_extremes():
    sure = torch.tensor([[0.75, 0.25]]).expand(8, 2)
    assert expected_calibration_error(sure, torch.ones(8).long()) == pytest.approx(0.75)
    mostly = torch.tensor([0, 0, 0, 1]).repeat(2)
    assert expected_calibration_error(sure, mostly) == pytest.approx(0.0)
    assert expected_calibration_error(torch.eye(2), torch.tensor([0, 1])) == 0.0
    assert np.isfinite(expected_calibration_error(torch.ones(1, 1), torch.zeros(1).long()))


def test_bad_input_is_refused():
    good, labels = torch.eye(3), torch.arange(3)
    for probabilities, answers, bins in (
        (good[0], labels, 5), (good, labels[:2], 5), (good, labels, 0), (2 * good, labels, 5), (good - 0.1, labels, 5),
        (good * torch.nan, labels, 5), (good, labels + 1, 5), (good, labels - 1, 5),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            expected_calibration_error(probabilities, answers, bins)
    with pytest.raises(TypeError, match="floating"):
        expected_calibration_error(good.long(), labels)
