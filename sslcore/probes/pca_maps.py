"""Patch tokens as colours: the picture that shows which patches a network thinks alike. Qualitative only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.validate import check_finite, check_rank, require


@dataclass(frozen=True)
class PatchPCA:
    """rgb: (B, h, w, 3) in [0, 1], background 0 where foreground is given; foreground: (B, h, w) bool or None."""

    rgb: Tensor
    foreground: Tensor | None


def principal(rows: Tensor, count: int) -> Tensor:
    """Scores (n, count) of centred rows (n, D) on their leading principal directions; each direction's largest entry
    is made positive, so that the same rows always give the same signs."""
    centred = (rows - rows.mean(0)).double()
    directions = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :count]
    largest = directions.abs().argmax(0)
    signs = directions[largest, torch.arange(directions.shape[1], device=rows.device)].sign()
    return (centred @ (directions * signs)).float()


def border(grid: tuple[int, int]) -> Tensor:
    """Bool (h, w), True on the outermost ring of patches."""
    ring = torch.ones(grid, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    return ring


def patch_pca(tokens: Tensor, grid: tuple[int, int], foreground: bool = False) -> PatchPCA:
    """Three principal components of patch tokens, over the whole set of images, as red, green and blue.

    tokens: (B, h * w, D >= 3), from images that belong together. foreground=True splits the first component at 0,
    calls the side that most border patches lie on background, and colours only the rest by a second PCA.
    Each channel is stretched to [0, 1]. Raises ValueError on bad shapes, non-finite tokens, or fewer than 4 patches
    to colour. Source: the figures of DINOv2 (Oquab et al. 2023).
    """
    check_rank("tokens", tokens, 3)
    batch, count, width = tokens.shape
    fits = batch >= 1 and count == grid[0] * grid[1] and width >= 3
    require(fits, f"tokens: expected (B >= 1, {grid[0]} * {grid[1]}, D >= 3), got {tuple(tokens.shape)}")
    check_finite("tokens", tokens)
    rows = tokens.flatten(0, 1).float()
    chosen = torch.ones(len(rows), dtype=torch.bool, device=tokens.device)
    if foreground:
        side = principal(rows, 1)[:, 0] > 0
        ring = border(grid).flatten().repeat(batch).to(tokens.device)
        chosen = side if float(side[ring].float().mean()) <= 0.5 else ~side
    require(int(chosen.sum()) >= 4, f"patch_pca: expected at least 4 patches to colour, got {int(chosen.sum())}")
    scores = principal(rows[chosen], 3)
    low, high = scores.amin(0), scores.amax(0)
    rgb = torch.zeros(len(rows), 3, device=tokens.device)
    rgb[chosen] = (scores - low) / (high - low).clamp_min(1e-12)
    return PatchPCA(rgb.view(batch, *grid, 3), chosen.view(batch, *grid) if foreground else None)
