"""Histograms of oriented gradients as a target: what an edge looks like, without its colour and contrast."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, require


@without_autocast
@torch.no_grad()
def hog_targets(
    images: Tensor, patch_size: int = 16, cell_size: int = 8, num_bins: int = 9, normalize: bool = True
) -> Tensor:
    """HOG of each patch: for every cell and colour, how much gradient points in each of num_bins directions.

        for each colour c and pixel (y, x), the image mirrored at its borders:
            gx, gy = Sobel differences along x and y
            bin = floor(num_bins * atan2(gx, gy) / pi) mod num_bins    # a direction and its opposite are one
            histogram[c, cell of (y, x), bin] += sqrt(gx**2 + gy**2)
        if normalize:
            histogram[c, cell] /= norm(histogram[c, cell])             # over its bins; a flat cell stays zero

    images: (B, C, H, W) floating point, after cropping; sides are multiples of patch_size, and patch_size of cell_size.
    normalize=False leaves out the division, which is what makes the target indifferent to brightness and contrast.
    Returns (B, N, D) float32 (float64 for float64) without gradient: N patches row by row, D = C * num_bins *
    (patch_size / cell_size)**2 in the order (colour, bin, cell row, cell column). A cell that is not flat has length
    one, so predicting zero everywhere scores 1 / num_bins. Raises ValueError for wrong rank, sides that do not divide,
    sides below 2, num_bins < 1 or NaN; TypeError for integers. Source: Wei et al. 2022 (MaskFeat), section 3.
    """
    check_rank("images", images, 4)
    check_float("images", images)
    batch, channels, height, width = images.shape
    require(images.numel() >= 1, f"images: expected at least one value, got {tuple(images.shape)}")
    require(min(height, width) >= 2, f"images: expected sides of at least 2, got {height} x {width}")
    require(
        cell_size >= 1 and patch_size >= 1 and patch_size % cell_size == 0,
        f"patch_size: expected a multiple of cell_size {cell_size}, got {patch_size}",
    )
    require(
        height % patch_size == 0 and width % patch_size == 0,
        f"patch_size: expected a divisor of the sides {height} x {width}, got {patch_size}",
    )
    require(num_bins >= 1, f"num_bins: expected at least 1, got {num_bins}")
    check_finite("images", images)
    padded = F.pad(full_precision(images), (1, 1, 1, 1), mode="reflect")
    # Sobel is a difference along one axis of sums with weights 1, 2, 1 along the other.
    across, down = padded[..., :-2] - padded[..., 2:], padded[..., :-2, :] - padded[..., 2:, :]
    gx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    gy = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    bins = torch.floor(torch.atan2(gx, gy) * (num_bins / math.pi)).remainder_(num_bins)
    rows, columns = height // cell_size, width // cell_size

    def by_cell(x: Tensor) -> Tensor:
        x = x.reshape(batch, channels, rows, cell_size, columns, cell_size)
        return x.transpose(3, 4).reshape(batch, channels, rows, columns, -1)

    length, bins = by_cell(torch.hypot(gx, gy)), by_cell(bins)
    # One pass a bin: sums in a fixed order on every device, and nothing num_bins times the size of the images.
    histogram = torch.stack([(length * (bins == k)).sum(dim=-1) for k in range(num_bins)], dim=2)
    if normalize:
        histogram = F.normalize(histogram, dim=2, eps=1e-12)
    side = patch_size // cell_size
    patches = histogram.reshape(batch, channels, num_bins, rows // side, side, columns // side, side)
    return patches.permute(0, 3, 5, 1, 2, 4, 6).reshape(batch, (rows // side) * (columns // side), -1)
