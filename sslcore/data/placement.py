"""Place objects so that none hides too much of another: every place on a coarse grid is weighed at once.

Moving a mask over the picture and adding up what it would cover is a cross-correlation, so one FFT gives the cost of
all places for a whole batch. Nothing is tried and rejected: a place is drawn uniformly from those that are good.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sslcore.data.sprites import Poses, Sprites, draw

CELLS = 32


def covering_cost(weights: Tensor, mask: Tensor) -> Tensor:
    """Weight covered by a mask at every shift.

    Args:
        weights: (B, G, G) cost of covering each cell.
        mask: (B, G, G) coverage in [0, 1] of an object whose centre is at (G/2, G/2).

    Returns:
        (B, G, G): entry (r, c) is the cost when the object's centre is moved to (r, c). The grid wraps round; the
        caller leaves out places where the object would cross the frame.
    """
    cells = weights.shape[-1]
    spectrum = torch.fft.rfft2(weights) * torch.fft.rfft2(mask).conj()
    shifted = torch.fft.irfft2(spectrum, s=(cells, cells))
    return shifted.roll((cells // 2, cells // 2), dims=(-2, -1))


def choose(allowed: Tensor, uniform: Tensor) -> Tensor:
    """Index (B,) of a cell drawn uniformly among the allowed ones. allowed: (B, G*G) bool; uniform: (B,) in [0, 1)."""
    running = allowed.to(torch.float32).cumsum(dim=1)
    target = uniform * running[:, -1]
    return torch.searchsorted(running, target[:, None], right=True)[:, 0].clamp_max(allowed.shape[1] - 1)


def place(
    sprites: Sprites, poses: list[Poses], uniform: Tensor, side: int, max_overlap: float, present: Tensor
) -> Tensor:
    """Centres for K objects drawn in order, later ones on top.

    Args:
        sprites: the textures. poses: K poses whose centre is ignored.
        uniform: (B, K, 3) draws in [0, 1): which cell, and the place inside the cell.
        side: picture side in pixels.
        max_overlap: largest fraction of any object that later ones may hide. Kept up to half a cell (side / 64);
            where no such place is left, the least harmful one is taken.
        present: (B, K) bool; absent objects hide nothing.

    Returns:
        (B, K, 2) centres (row, column) in pixels; every object's box lies inside the frame if it fits at all.
    """
    unit = side / CELLS
    device = sprites.texture.device
    cell = torch.arange(CELLS, device=device) * unit
    middle = torch.full((len(uniform), 2), side / 2, device=device)
    visible: list[Tensor] = []  # coverage of each placed object that is still seen
    area: list[Tensor] = []
    centres = []
    for k, pose in enumerate(poses):
        half = pose.half_extents(sprites).clamp_max(side / 2)
        fits = (cell >= half[..., None] - unit / 2) & (cell <= side - half[..., None] + unit / 2)  # (B, 2, G)
        fits[:, :, CELLS // 2] = True  # something as large as the picture still has the middle
        inside = (fits[:, 0, :, None] & fits[:, 1, None, :]).flatten(1)
        mask = draw(sprites, replace(pose, centre=middle), CELLS, unit, alpha_only=True)[:, 0]
        allowed = inside
        if visible:
            weights = torch.zeros_like(mask)
            for seen, whole in zip(visible, area, strict=True):
                left = max_overlap - (1 - seen.sum(dim=(1, 2)) / whole)
                weights += seen / (whole * left.clamp_min(5e-3))[:, None, None]
            cost = covering_cost(weights, mask).flatten(1).masked_fill(~inside, torch.inf)
            allowed = cost <= cost.amin(dim=1, keepdim=True).clamp_min(1.0)
        index = choose(allowed, uniform[:, k, 0])
        corner = torch.stack([index // CELLS, index % CELLS], dim=1) * unit
        centre = corner + (uniform[:, k, 1:] - 0.5) * unit
        centre = centre.maximum(half).minimum(side - half)
        centres.append(centre)
        shown = draw(sprites, replace(pose, centre=centre), CELLS, unit, alpha_only=True)[:, 0]
        shown = shown * present[:, k, None, None]
        visible = [seen * (1 - shown) for seen in visible] + [shown]
        area.append(shown.sum(dim=(1, 2)).clamp_min(1e-3))
    return torch.stack(centres, dim=1)
