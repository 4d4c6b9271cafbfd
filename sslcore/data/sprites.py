"""Sprites: small pictures with alpha, sampled at any size, angle and place for a whole batch at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.data.embedded import stamp_pixels

SIDE = 96
STEPS = 8  # mip levels are 96 * 2^(-j/2) texels: 96, 68, 48, ... 6


@dataclass(frozen=True)
class Sprites:
    """One texture that holds every sprite at every mip level that may be asked for.

    Attributes:
        texture: (1, C, S * row, width) float in [0, 1]; the last channel is alpha, the others are premultiplied by it.
        row: texels a sprite takes in height; sprite s starts at row s * row.
        first: finest mip step kept; level j lies at column `columns[j - first]` with side `sides[j - first]`.
        extents: (S, 2) half height and half width of the opaque part, as fractions of the longer side.
    """

    texture: Tensor
    row: int
    first: int
    columns: Tensor
    sides: Tensor
    extents: Tensor

    def to(self, device: str | torch.device) -> Sprites:
        """The same textures on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("texture", "columns", "sides", "extents")}
        return replace(self, **moved)


def mip_step(size: Tensor) -> Tensor:
    """Mip step whose texels are nearest in size to the pixels of a sprite `size` pixels long."""
    return (2 * torch.log2(SIDE / size)).round().clamp(0, STEPS).long()


def pack(pixels: Tensor, smallest: float, largest: float) -> Sprites:
    """Build the texture for drawing sprites between `smallest` and `largest` pixels long.

    Args:
        pixels: (S, C, 96, 96) float in [0, 1], last channel alpha, premultiplied.
        smallest, largest: lengths in pixels that will be asked for; only these mip levels are made.
    """
    first, last = mip_step(torch.tensor([largest, smallest])).tolist()
    sides = [round(SIDE * 2 ** (-step / 2)) for step in range(first, last + 1)]
    tiles = []
    for side in sides:
        level = pixels
        if side != SIDE:
            level = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(
                0, 1
            )
            level = torch.minimum(level, level[:, -1:])  # bicubic overshoot must not make light without matter
        # A transparent rim of one texel: samples outside are clamped onto it instead of reading the neighbour.
        tiles.append(F.pad(level, (1, 1, 1, 1 + sides[0] - side)))
    columns = torch.tensor([0, *[tile.shape[-1] for tile in tiles]]).cumsum(0)[:-1]
    stack = torch.cat(tiles, dim=-1)  # (S, C, row, width)
    opaque = pixels[:, -1] > 0.25
    middle = SIDE / 2 - 0.5
    away = (torch.arange(SIDE, device=pixels.device) - middle).abs() + 0.5
    tall = (opaque.any(dim=2) * away).amax(dim=1)
    wide = (opaque.any(dim=1) * away).amax(dim=1)
    return Sprites(
        texture=stack.transpose(0, 1).flatten(1, 2)[None].contiguous(),
        row=stack.shape[2],
        first=first,
        columns=columns,
        sides=torch.tensor(sides),
        extents=torch.stack([tall, wide], dim=1) / SIDE,
    )


@functools.lru_cache(maxsize=8)
def packed_stamps(smallest: float, largest: float, device: str) -> Sprites:
    """All 258 photo cut-outs, ready for sizes between the two. Kept: the same texture serves every batch."""
    return pack(stamp_pixels().to(device).float() / 255, smallest, largest).to(device)


@dataclass(frozen=True)
class Poses:
    """Where and how sprites are drawn: fields are (B,), but centre is (B, 2): row and column in pixels."""

    sprite: Tensor
    centre: Tensor
    size: Tensor
    angle: Tensor
    flip: Tensor
    aspect: Tensor

    def half_extents(self, sprites: Sprites) -> Tensor:
        """(B, 2) half height and width of the upright box round the turned sprite's own box."""
        tall, wide = (sprites.extents[self.sprite] * self.size[:, None]).unbind(1)
        tall = tall * self.aspect
        cosine, sine = self.angle.cos().abs(), self.angle.sin().abs()
        return torch.stack([tall * cosine + wide * sine, tall * sine + wide * cosine], dim=1)


def draw(sprites: Sprites, poses: Poses, side: int, unit: float = 1.0, alpha_only: bool = False) -> Tensor:
    """Sample one sprite an image on a side x side canvas whose cells are `unit` pixels wide.

    Returns (B, C, side, side) premultiplied, or (B, 1, side, side) alpha.
    """
    device = sprites.texture.device
    axis = (torch.arange(side, device=device) + 0.5) * unit
    down = axis[None, :, None] - poses.centre[:, 0, None, None]
    right = axis[None, None, :] - poses.centre[:, 1, None, None]
    cosine, sine = poses.angle.cos()[:, None, None], poses.angle.sin()[:, None, None]
    size = poses.size[:, None, None]
    across = (right * cosine + down * sine) * torch.where(poses.flip, -1.0, 1.0)[:, None, None] / size
    along = (down * cosine - right * sine) / (size * poses.aspect[:, None, None])
    level = (mip_step(poses.size / unit) - sprites.first).clamp(0, len(sprites.sides) - 1)
    texels = sprites.sides[level][:, None, None].to(across.dtype)
    low, high = -0.5, texels + 0.5
    column = ((across + 0.5) * texels).clamp_min(low).minimum(high) + (sprites.columns[level] + 1)[:, None, None]
    row = ((along + 0.5) * texels).clamp_min(low).minimum(high) + (poses.sprite * sprites.row + 1)[:, None, None]
    texture = sprites.texture[:, -1:] if alpha_only else sprites.texture
    height, width = texture.shape[-2:]
    grid = torch.stack([column * (2 / width) - 1, row * (2 / height) - 1], dim=-1)
    return F.grid_sample(texture.expand(len(grid), -1, -1, -1), grid, padding_mode="zeros", align_corners=False)
