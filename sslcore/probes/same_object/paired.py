"""The difference of two AUROCs on the same pairs, with an interval from resampling images for both at once."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.probes.same_object.metrics import win_table
from sslcore.probes.same_object.pairs import Pairs
from sslcore.validate import require


def auroc_difference(
    first: Tensor, second: Tensor, pairs: Pairs, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """AUROC of first minus AUROC of second, and its 95 % bootstrap interval: (difference, low, high).

    first, second: scores (P,) of the same pairs. Every resample draws images once and reads both, so what makes an
    image hard for both cancels. ValueError where one kind of pair is missing.
    """
    same = pairs.same
    require(first.shape == second.shape == same.shape, f"scores: expected {len(pairs)} each, got {tuple(first.shape)}")
    require(bool(same.any()) and not bool(same.all()), "pairs: expected same and different ones")
    image = torch.unique(pairs.image, return_inverse=True)[1]
    count = int(image.max()) + 1
    gap = win_table(first, same, image, count) - win_table(second, same, image, count)
    positive = torch.bincount(image[same], minlength=count).double()
    negative = torch.bincount(image[~same], minlength=count).double()
    value = float(gap.sum() / (positive.sum() * negative.sum()))
    drawn = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed)).to(gap.device)
    times = torch.zeros(resamples, count, dtype=torch.float64, device=gap.device)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    totals = (times @ positive) * (times @ negative)
    values = ((times @ gap) * times).sum(1)[totals > 0] / totals[totals > 0]
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64, device=gap.device)).tolist()
    return value, low, high
