"""Grounds for composed scenes: smooth random colour, so that neither brightness nor hue alone gives an object away."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BACKGROUNDS = ("noise", "gradient", "texture", "mixed", "plain")
Draws = dict[str, Tensor]


def background_draws(count: int, generator: torch.Generator) -> Draws:
    """Random numbers for `count` grounds of any family; drawn on the CPU so that every device paints the same."""
    return {
        "colours": torch.rand(count, 2, 3, generator=generator),
        "coarse": torch.randn(count, 3, 4, 4, generator=generator),
        "middle": torch.randn(count, 3, 9, 9, generator=generator),
        "fine": torch.randn(count, 1, 20, 20, generator=generator),
        "numbers": torch.rand(count, 6, generator=generator),
    }


def _smooth(noise: Tensor, side: int) -> Tensor:
    """Bicubic enlargement (B, C, n, n) -> (B, C, side, side) as two matrix products: ten times faster on a CPU."""
    cells = noise.shape[-1]
    unit = torch.eye(cells, device=noise.device)[None, None]
    weights = F.interpolate(unit, size=(side, cells), mode="bicubic", align_corners=False)[0, 0]
    return weights @ noise @ weights.T


def _muted(colour: Tensor) -> Tensor:
    """Half way to grey, so that vivid colour means an object more often than ground."""
    return 0.5 * (colour + colour.mean(dim=1, keepdim=True))


def noise(draws: Draws, side: int) -> Tensor:
    """Muted coloured noise of three octaves round one base colour: (B, 3, side, side)."""
    base = 0.25 + 0.5 * draws["colours"][:, 0, :, None, None]
    waves = 0.11 * _smooth(draws["coarse"], side) + 0.05 * _smooth(draws["middle"], side)
    return _muted(base + waves) + 0.02 * _smooth(draws["fine"], side)


def _coordinate(draws: Draws, side: int) -> tuple[Tensor, Tensor]:
    """Two axes at right angles, turned at random, from about -0.7 to 0.7 over the picture."""
    axis = (torch.arange(side, device=draws["numbers"].device) + 0.5) / side - 0.5
    angle = 2 * math.pi * draws["numbers"][:, 0, None, None]
    along = angle.cos() * axis[None, :, None] + angle.sin() * axis[None, None, :]
    across = angle.cos() * axis[None, None, :] - angle.sin() * axis[None, :, None]
    return along, across


def _between(share: Tensor, draws: Draws) -> Tensor:
    low, high = (0.15 + 0.7 * draws["colours"][:, i, :, None, None] for i in (0, 1))
    return low + (high - low) * share[:, None]


def gradient(draws: Draws, side: int) -> Tensor:
    """One colour turning into another along a random direction."""
    along, _ = _coordinate(draws, side)
    return _between((along / 1.4 + 0.5).clamp(0, 1), draws)


def texture(draws: Draws, side: int) -> Tensor:
    """Soft stripes, checks or blots in two colours; which, how fine and how strong is drawn for each picture."""
    along, across = _coordinate(draws, side)
    numbers = draws["numbers"][:, :, None, None]
    wave = 2 * math.pi * (3 + 6 * numbers[:, 1])
    stripes = (wave * along + 6 * numbers[:, 2]).sin()
    checks = stripes * (wave * across).sin()
    blots = (2 * _smooth(draws["middle"], side)[:, 0]).tanh()
    kind = numbers[:, 3]
    pattern = torch.where(kind < 1 / 3, stripes, torch.where(kind < 2 / 3, checks, blots))
    return _between(0.5 + pattern * (0.15 + 0.3 * numbers[:, 4]), draws)


def paint(kind: str, draws: Draws, side: int) -> Tensor:
    """(B, 3, side, side) float in [0, 1]. kind: one of BACKGROUNDS; "mixed" draws a family for each picture."""
    if kind == "plain":
        ground = (0.2 + 0.6 * draws["colours"][:, 0, :, None, None]).expand(-1, -1, side, side)
    elif kind == "mixed":
        which = draws["numbers"][:, 5, None, None, None]
        other = torch.where(which < 2 / 3, gradient(draws, side), texture(draws, side))
        ground = torch.where(which < 1 / 3, noise(draws, side), other)
    else:
        ground = {"noise": noise, "gradient": gradient, "texture": texture}[kind](draws, side)
    return ground.clamp(0, 1)
