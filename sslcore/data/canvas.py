"""Garments somewhere on a larger canvas: real images whose pixels no longer line up."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from sslcore.data.embedded import load_fashion_mnist
from sslcore.data.imageset import ImageSet
from sslcore.validate import require

CANVAS_SEEDS = {"train": 0, "val": 1, "test": 2}


def place_on_canvas(images: ImageSet, size: int = 40, noise: float = 0.1, seed: int = 0) -> ImageSet:
    """Paste each image at a random place of a black canvas, relight it and add sensor noise.

    Fashion-MNIST is centred, upright and evenly lit, so raw pixels already classify it well. One draw of place and
    exposure for each image takes that away and leaves the garment what it was.

    Args:
        images: (N, 1, H, W) set. size: side of the canvas, at least max(H, W).
        noise: standard deviation of the pixel noise, in units of full white. The gain is uniform in 0.5 to 1.2.
        seed: non-negative; the same seed gives the same canvases.

    Returns:
        ImageSet with images (N, 1, size, size); labels and the rest are kept; extras["offset"] (N, 2) row and column.

    Raises ValueError for a canvas smaller than the image, colour images, or negative noise.
    """
    count, channels, height, width = images.images.shape
    require(channels == 1, f"images: expected 1 channel, got {channels}")
    require(size >= max(height, width), f"size: expected at least {max(height, width)}, got {size}")
    require(noise >= 0, f"noise: expected 0 or more, got {noise}")
    generator = torch.Generator().manual_seed(seed)
    top = torch.randint(size - height + 1, (count,), generator=generator)
    left = torch.randint(size - width + 1, (count,), generator=generator)
    gain = 0.5 + 0.7 * torch.rand(count, 1, 1, 1, generator=generator)
    room = F.pad(images.images, (size - width, size - width, size - height, size - height))
    rows = (size - height - top)[:, None] + torch.arange(size)
    columns = (size - width - left)[:, None] + torch.arange(size)
    canvas = room[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
    grain = torch.randn(canvas.shape, generator=generator).mul_(255 * noise)
    lit = canvas.float().mul_(gain).add_(grain).round_().clamp_(0, 255).to(torch.uint8)
    extras = {**images.extras, "offset": torch.stack([top, left], dim=1)}
    return replace(images, name=f"{images.name}_canvas", images=lit, extras=extras)


def load_fashion_canvas(split: str = "train", size: int = 40, noise: float = 0.1) -> ImageSet:
    """The embedded Fashion-MNIST subset, each garment once on a canvas (train 10000, val 1000, test 1000)."""
    garments = load_fashion_mnist(split)
    canvas = place_on_canvas(garments, size, noise, seed=CANVAS_SEEDS[split])
    canvas.name = "fashion_canvas"
    return canvas
