"""Calibration: whether 70 % sure is right 70 % of the time."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_rank, require


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean gap between how sure the predictions are and how often they are right, over bins of equal width.

        sure, guess = max(probabilities), argmax(probabilities)
        for b in range(bins):
            inside = rows with b / bins < sure <= (b + 1) / bins
            error += len(inside) / N * abs(mean(sure[inside]) - mean(guess[inside] == labels[inside]))

    probabilities: (N, C), rows that sum to 1. labels: (N,) class indices. Returns a number in [0, 1]; few samples bias
    it upwards. Raises ValueError for other shapes, values outside [0, 1], rows that do not sum to 1, labels that are no
    class, or bins < 1.
    Source: Naeini et al. 2015; Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    check_rank("probabilities", probabilities, 2)
    check_float("probabilities", probabilities)
    check_finite("probabilities", probabilities)
    check_rank("labels", labels, 1)
    count = len(probabilities)
    require(count >= 1 and len(labels) == count, f"labels: expected {count}, one a row, got {len(labels)}")
    named = bool(((labels >= 0) & (labels < probabilities.shape[1])).all())
    require(named, f"labels: expected 0 to {probabilities.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    require(bins >= 1, f"bins: expected at least 1, got {bins}")
    proper = bool((probabilities >= 0).all()) and bool(((probabilities.double().sum(1) - 1).abs() < 1e-3).all())
    require(proper, "probabilities: expected rows of shares that sum to 1")
    sure, guess = probabilities.double().max(dim=1)
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    right = (guess == labels.to(guess.device)).double()
    gaps = torch.zeros(bins, dtype=torch.float64, device=sure.device).index_add_(0, place, sure - right)
    return float(gaps.abs().sum() / count)
