"""Drawn shapes as sprites: eight outlines, six two-tone fills, one palette that all of them share."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from sslcore.data.sprites import SIDE, Sprites, pack

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "heart", "hexagon")
FILLS = ("halves", "stripes", "checks", "dots", "rim", "quarters")
PALETTE = {
    "red": (0.86, 0.20, 0.18),
    "green": (0.22, 0.62, 0.28),
    "blue": (0.16, 0.36, 0.80),
    "yellow": (0.95, 0.80, 0.22),
    "purple": (0.55, 0.27, 0.66),
    "white": (0.93, 0.93, 0.90),
}


def _polygon(x: Tensor, y: Tensor, corners: int, turn: float) -> Tensor:
    """Signed depth inside a regular polygon of circumradius 1: positive inside."""
    normals = [turn + 2 * math.pi * i / corners for i in range(corners)]
    apothem = math.cos(math.pi / corners)
    return torch.stack([apothem - (x * math.cos(a) + y * math.sin(a)) for a in normals]).amin(dim=0)


def outline(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """True inside the shape; x to the right, y down, the shape fills [-1, 1]."""
    radius = (x * x + y * y).sqrt()
    if shape == "disc":
        return radius < 1
    if shape == "ring":
        return (radius < 1) & (radius > 0.5)
    if shape == "square":
        return (x.abs() < 0.85) & (y.abs() < 0.85)
    if shape == "cross":
        return ((x.abs() < 0.36) & (y.abs() < 1)) | ((y.abs() < 0.36) & (x.abs() < 1))
    if shape == "triangle":
        return _polygon(x, y - 0.2, 3, math.pi / 2) > 0
    if shape == "hexagon":
        return _polygon(x, y, 6, 0.0) > 0
    if shape == "star":
        slice_angle = torch.atan2(x, -y).remainder(2 * math.pi / 5) - math.pi / 5
        return radius * slice_angle.cos() < 0.45 + 0.6 * slice_angle.abs() * radius
    # Heart: two discs over a point
    lobes = ((x.abs() - 0.48) ** 2 + (y + 0.38) ** 2) < 0.27
    return lobes | ((y > -0.38) & (x.abs() < 0.98 * (0.95 - y) / 1.33) & (x.abs() + y.abs() < 1.45) & (y < 0.95))


def fill(kind: str, shape: str, x: Tensor, y: Tensor) -> Tensor:
    """True where the second colour goes."""
    patterns = {
        "halves": lambda: x > 0,
        "stripes": lambda: (y * 1.25).remainder(1) < 0.5,
        "checks": lambda: ((x * 1.5).floor() + (y * 1.5).floor()).remainder(2) < 1,
        "dots": lambda: ((x * 1.4).remainder(1) - 0.5) ** 2 + ((y * 1.4).remainder(1) - 0.5) ** 2 < 0.1,
        "rim": lambda: ~outline(shape, x / 0.72, y / 0.72),
        "quarters": lambda: (x > 0) ^ (y > 0),
    }
    return patterns[kind]()


def shape_pixels() -> Tensor:
    """(8 * 6, 2, 96, 96): alpha times second colour's share, and alpha. Sprite number = shape * 6 + fill."""
    axis = (torch.arange(4 * SIDE) + 0.5) / (2 * SIDE) - 1  # four samples a texel each way
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    tiles = []
    for shape in SHAPES:
        inside = outline(shape, x, y)
        for kind in FILLS:
            fine = torch.stack([inside & fill(kind, shape, x, y), inside]).float()
            tiles.append(fine.unfold(1, 4, 4).unfold(2, 4, 4).mean(dim=(3, 4)))
    return torch.stack(tiles)


@functools.lru_cache(maxsize=8)
def packed_shapes(smallest: float, largest: float, device: str) -> Sprites:
    """All shapes with all fills, ready for sizes between the two."""
    return pack(shape_pixels().to(device), smallest, largest).to(device)


def palette(device: str | torch.device = "cpu") -> Tensor:
    """(6, 3) colours in [0, 1]."""
    return torch.tensor(list(PALETTE.values()), device=device)
