"""From attention to object masks: the smallest set with most of the mass, and how well it covers objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcore.probes.attention import Preprocess, attention_maps
from sslcore.probes.untrained import untrained_copy
from sslcore.validate import check_finite, check_float, check_rank, require


@dataclass(frozen=True)
class Jaccard:
    """Intersection over union with objects, in [0, 1]: best head for each object (an oracle), and mean over heads;
    the same two for the untrained network (None where it was not asked for)."""

    best_head: float
    mean_head: float
    untrained_best_head: float | None = None
    untrained_mean_head: float | None = None


def mass_threshold(maps: Tensor, mass: float = 0.6) -> Tensor:
    """The smallest set of entries that holds at least `mass` of each map's sum.

    maps: (..., h, w), non-negative -> bool (..., h, w). Equal values are kept in sort order.
    Raises ValueError for mass outside (0, 1], negative or non-finite entries, or a map that sums to 0. Source: DINO.
    """
    check_float("maps", maps)
    require(maps.ndim >= 2, f"maps: expected (..., h, w), got shape {tuple(maps.shape)}")
    require(0 < mass <= 1, f"mass: expected a share in (0, 1], got {mass}")
    check_finite("maps", maps)
    flat = maps.flatten(-2).double()
    total = flat.sum(-1, keepdim=True)
    proper = bool((flat >= 0).all()) and bool((total > 0).all())
    require(proper, "maps: expected non-negative entries with a positive sum in every map")
    share, order = (flat / total).sort(dim=-1, descending=True)
    # An entry stays while what lies before it does not reach the mass; the slack absorbs round-off.
    keep = share.cumsum(-1) - share < mass - 1e-9
    return torch.zeros_like(keep).scatter(-1, order, keep).view_as(maps)


def object_jaccard(selected: Tensor, masks: Tensor) -> Tensor:
    """IoU (B, H, K) of thresholded maps with objects; NaN where an object has no pixel.

    selected: bool (B, H, h, w), enlarged to the pixels of masks (B, H_px, W_px), ids 0 = background, 1..K.
    """
    check_rank("selected", selected, 4)
    check_rank("masks", masks, 3)
    require(len(masks) == len(selected), f"masks: expected {len(selected)} images, got {len(masks)}")
    masks = masks.to(selected.device)
    count = int(masks.max())
    require(count > 0, "masks: expected at least one object, got background only")
    chosen = nn.functional.interpolate(selected.float(), size=masks.shape[1:], mode="nearest").flatten(2)
    objects = torch.stack([masks.flatten(1) == identity for identity in range(1, count + 1)], -1).float()
    overlap = chosen @ objects
    size = objects.sum(1)[:, None]
    score = overlap / (chosen.sum(-1, keepdim=True) + size - overlap)
    return torch.where(size > 0, score, torch.full_like(score, float("nan")))


def jaccard_of_maps(maps: Tensor, masks: Tensor, mass: float = 0.6) -> tuple[float, float]:
    """(best head, mean head) IoU of maps (B, H, h, w) with masks: mean over an image's objects, then over images."""
    score = object_jaccard(mass_threshold(maps, mass), masks)
    best = score.amax(1).nanmean(1)  # an absent object is NaN for every head, so amax keeps it out
    mean = score.mean(1).nanmean(1)
    return float(best.nanmean()), float(mean.nanmean())


def dino_jaccard(
    backbone: nn.Module,
    images: Tensor,
    masks: Tensor,
    layer: int = -1,
    mass: float = 0.6,
    untrained: nn.Module | bool = True,
    batch_size: int = 64,
    preprocess: Preprocess = None,
    seed: int = 0,
) -> Jaccard:
    """How well thresholded class-token attention covers objects, beside the same network before training.

    images (N, C, H, W), masks (N, H, W) ids. The best head is picked for each object with the answer in hand, and
    that oracle rises with the number of heads: read it only against `untrained` (True: a copy with fresh weights; a
    module: that network; False: left out). Raises ValueError without attention or without any object.
    Source: DINO (Caron et al. 2021), appendix; rule as answered in dino issue 54.
    """
    best, mean = jaccard_of_maps(attention_maps(backbone, images, layer, batch_size, preprocess), masks, mass)
    if untrained is False:
        return Jaccard(best, mean)
    fresh = untrained_copy(backbone, seed) if untrained is True else untrained
    control = jaccard_of_maps(attention_maps(fresh, images, layer, batch_size, preprocess), masks, mass)
    return Jaccard(best, mean, *control)
