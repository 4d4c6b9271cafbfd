"""AUROC of pairs with intervals from resampled images: pairs of one image are not independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_rank, check_same_shape, require

if TYPE_CHECKING:
    from sslcore.probes.same_object.pairs import Pairs


def check_scored(scores: Tensor, same: Tensor) -> None:
    """Raise unless scores are (P,) finite floats and same (P,) booleans with both kinds among them."""
    check_rank("scores", scores, 1)
    check_float("scores", scores)
    check_rank("same", same, 1)
    if same.dtype != torch.bool:
        raise TypeError(f"same: expected booleans, got {same.dtype}")
    check_same_shape("scores", scores, "same", same)
    kinds = bool(same.any()) and not bool(same.all())
    require(kinds, f"pairs: expected same and different ones, got {int(same.sum())} same of {len(same)}")
    check_finite("scores", scores)


def win_table(scores: Tensor, same: Tensor, image: Tensor, num_images: int) -> Tensor:
    """U[a, b] (num_images, num_images), float64: over same pairs of image a and different pairs of image b, how
    often the first scores higher (ties count one half). The AUROC of any resampled set of images follows from it."""
    order = scores.argsort()
    ordered = scores[order]
    negative = torch.zeros(len(scores), num_images, dtype=torch.float64, device=scores.device)
    negative[torch.arange(len(scores), device=scores.device), image[order]] = (~same[order]).double()
    below = torch.cat([torch.zeros_like(negative[:1]), negative.cumsum(0)])
    positives = scores[same].contiguous()
    left = torch.searchsorted(ordered, positives)
    right = torch.searchsorted(ordered, positives, right=True)
    wins = (below[left] + below[right]) / 2
    return torch.zeros(num_images, num_images, dtype=torch.float64, device=scores.device).index_add_(
        0, image[same], wins
    )


def auroc(scores: Tensor, same: Tensor) -> float:
    """Probability that a same pair outscores a different one. scores, same: (P,); errors as in image_auroc."""
    check_scored(scores, same)
    return image_auroc(scores, same, torch.zeros_like(same, dtype=torch.long))[0]


def image_auroc(
    scores: Tensor, same: Tensor, image: Tensor, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Pooled AUROC of pairs and its percentile interval over bootstrap resamples of the images.

    scores float, same bool, image long: (P,). Returns (value, (low, high)).
    Raises ValueError for unequal shapes, when one of the two kinds is missing, or for scores that are not finite.
    """
    check_scored(scores, same)
    require(image.shape == same.shape, f"image: expected shape {tuple(same.shape)}, got {tuple(image.shape)}")
    image = torch.unique(image, return_inverse=True)[1]
    count = int(image.max()) + 1
    wins = win_table(scores, same, image, count)
    positive = torch.bincount(image[same], minlength=count).double()
    negative = torch.bincount(image[~same], minlength=count).double()
    value = float(wins.sum() / (positive.sum() * negative.sum()))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator).to(scores.device)
    times = torch.zeros(resamples, count, dtype=torch.float64, device=scores.device)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    totals = (times @ positive) * (times @ negative)
    values = ((times @ wins) * times).sum(1)[totals > 0] / totals[totals > 0]
    edges = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=scores.device)
    low, high = torch.quantile(values, edges).tolist()
    return value, (low, high)


def unlikeness_auroc(features: Tensor, pairs: Pairs) -> float:
    """AUROC of minus the cosine of two tokens, nothing trained: what "unlike means same" is worth on these pairs.

    A twin may show the very part of an object a second time, the object itself shows it once. So on pairs of twins this
    lies above 0.5 without any binding: a probe has to beat it. features: (M, T, d), standardised here.
    Raises ValueError for another rank, and as auroc does.
    """
    check_rank("features", features, 3)
    check_float("features", features)
    centred = features - features.mean((0, 1))
    rows = torch.nn.functional.normalize(centred / features.std((0, 1)).clamp_min(1e-6), dim=-1)
    return auroc(-(rows[pairs.image, pairs.first] * rows[pairs.image, pairs.second]).sum(1), pairs.same)


def pair_accuracy(scores: Tensor, same: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, majority rate and skill (accuracy - majority) / (1 - majority) at score > 0.

    scores, same: (P,). Raises as image_auroc.
    """
    check_scored(scores, same)
    hit = (scores > 0) == same
    prior = float(same.float().mean())
    majority = max(prior, 1 - prior)
    accuracy = float(hit.float().mean())
    balanced = float((hit[same].float().mean() + hit[~same].float().mean()) / 2)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced,
        "majority": majority,
        "skill": (accuracy - majority) / max(1 - majority, 1e-12),
    }
