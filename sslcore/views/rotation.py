"""Quarter turns, exact to the pixel: the rotation pretext."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import check_images, check_rank, require, values_are_checked


def rotate_quarters(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image counter-clockwise by its own number of quarter turns, without resampling.

    images: (B, C, S, S), square; quarters: (B,) whole numbers in 0..3. Returns the same shape and type. All four turns
    of the batch are made, so that the host need not know which are asked for. Raises ValueError for images that are
    not square or quarters out of range (on the CPU), TypeError for quarters that are not whole numbers.
    Source: Gidaris et al. 2018 (RotNet).
    """
    check_images("images", images)
    batch, _, height, width = images.shape
    require(height == width, f"images: expected square ones, got shape {tuple(images.shape)}")
    check_rank("quarters", quarters, 1)
    require(len(quarters) == batch, f"quarters: expected {batch}, one an image, got {len(quarters)}")
    if quarters.is_floating_point() or quarters.dtype == torch.bool:
        raise TypeError(f"quarters: expected whole numbers, got {quarters.dtype}")
    if values_are_checked(quarters):
        low, high = (int(value) for value in quarters.aminmax())
        require(0 <= low and high <= 3, f"quarters: expected 0 to 3, got {low} to {high}")
    turned = torch.stack([images.rot90(turn, (2, 3)) for turn in range(4)])
    return turned[quarters, torch.arange(batch, device=images.device)]
