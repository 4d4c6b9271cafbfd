"""Autoregression in pixels: the patches of the next cluster, predicted from the clusters before it."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.objectives.masked import masked_pixel_loss, patchify
from sslcore.validate import check_rank, check_tensor, require, values_are_checked


def next_cluster_loss(
    pred: Tensor, images: Tensor, places: Tensor, patch_size: int, norm_pix: bool = True
) -> Tensor:
    """Mean squared error at the patches that were predicted, against each patch's own standardised pixels.

        target = standardise(patchify(images))          # each patch by its own mean and unbiased variance, plus 1e-6
        return mean((pred[b, i] - target[b, places[i]]) ** 2 for b, i)

    pred: (B, Q, P), pred[:, i] is what was said about patch places[i], P = patch_size**2 * C in patchify's order.
    images: (B, C, H, W) on the scale the network saw. places: (Q,) int64, all different: in ARM every patch but those
    of the first cluster, cluster by cluster. That pred[:, i] saw nothing of patch places[i] or later is the network's
    duty; no loss can tell. norm_pix=False scores raw pixels.
    Returns a scalar, (P - 1) / P for a zero prediction of patches that are not flat. Raises ValueError for shapes or
    places that do not fit; TypeError for places that are not int64.
    Source: ARM (arXiv 2406.07537), section 3; the target is that of MAE.
    """
    check_rank("pred", pred, 3)
    check_tensor("places", places)
    if places.dtype != torch.int64:
        raise TypeError(f"places: expected int64 indices, got {places.dtype}")
    require(places.shape == pred.shape[1:2], f"places: expected ({pred.shape[1]},), got {tuple(places.shape)}")
    patches = patchify(images[:1], patch_size).shape[1]
    if values_are_checked(places):
        fits = len(places) >= 1 and 0 <= int(places.min()) and int(places.max()) < patches
        require(fits, f"places: expected indices in [0, {patches}), got {places.tolist()}")
        require(len(places.unique()) == len(places), "places: expected every patch at most once")
    # The loss of masked autoencoders wants hidden patches in rising order; the mean does not mind.
    mask = torch.zeros(patches, dtype=torch.bool, device=pred.device).index_fill(0, places, True)
    return masked_pixel_loss(
        pred[:, places.argsort()], images, mask.expand(len(pred), -1), patch_size, norm_pix=norm_pix
    )
