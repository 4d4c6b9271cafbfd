"""From pixel masks to one object id for each token."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import check_rank, require


def token_grid(height: int, width: int, num_tokens: int) -> tuple[int, int]:
    """Grid (h, w) of num_tokens square patches over a height x width image; ValueError where there is none."""
    rows = round((num_tokens * height / width) ** 0.5)
    fits = rows > 0 and num_tokens % rows == 0 and height % rows == 0 and width % (num_tokens // rows) == 0
    square = fits and height // rows == width // (num_tokens // rows)
    require(square, f"tokens: no grid of {num_tokens} square patches tiles {height} x {width} pixels")
    return rows, num_tokens // rows


def token_labels(masks: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Most frequent pixel id of every patch, and the share of the patch's pixels that carry it.

    masks: (B, H, W) integer ids, 0 = background; H and W are multiples of patch_size (pixels).
    Returns labels (B, N) long and purity (B, N) in (0, 1], tokens in raster order; ties go to the smaller id.
    Raises ValueError on another rank, an empty batch, or sizes that the patches do not tile.
    """
    check_rank("masks", masks, 3)
    batch, height, width = masks.shape
    require(batch >= 1, f"masks: expected at least one image, got shape {tuple(masks.shape)}")
    require(not masks.is_floating_point(), f"masks: expected integer ids, got {masks.dtype}")
    tiled = patch_size >= 1 and height % patch_size == 0 and width % patch_size == 0
    require(tiled, f"masks: expected sides divisible by patch_size {patch_size}, got {height} x {width}")
    patches = masks.unfold(1, patch_size, patch_size).unfold(2, patch_size, patch_size).flatten(3).flatten(1, 2)
    purity = torch.zeros(patches.shape[:2], device=masks.device)
    labels = torch.zeros(patches.shape[:2], dtype=torch.long, device=masks.device)
    for identity in torch.unique(masks).tolist():
        share = (patches == identity).float().mean(-1)
        labels = torch.where(share > purity, identity, labels)
        purity = torch.maximum(purity, share)
    return labels, purity
