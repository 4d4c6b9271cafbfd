"""Gaussian blur with one width an image, one axis at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import check_rank, require
from sslcore.views.filters import Taps, separable
from sslcore.views.pixels import check_float_images


def default_kernel_size(side: int) -> int:
    """A tenth of the side (SimCLR's rule), odd, at least 3."""
    return max(3, side // 10 | 1)


def reflected_taps(pixels: int, kernel_size: int, device: torch.device) -> Tensor:
    """Source pixel of each tap, (pixels, kernel_size) long; beyond the border the row is mirrored."""
    reach = kernel_size // 2
    place = torch.arange(pixels, device=device).view(-1, 1) + torch.arange(-reach, reach + 1, device=device)
    place = place.abs()
    return torch.where(place >= pixels, 2 * (pixels - 1) - place, place)


def gaussian_taps(sigma: Tensor, kernel_size: int) -> Tensor:
    """Normalised weights (B, kernel_size) of a Gaussian of width sigma (B,), truncated at the kernel's edge."""
    reach = kernel_size // 2
    offset = torch.arange(-reach, reach + 1, device=sigma.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offset / sigma.float().view(-1, 1)) ** 2)
    return weights / weights.sum(1, keepdim=True)


def blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """`gaussian_blur` without its checks."""
    weight = gaussian_taps(sigma, kernel_size).unsqueeze(1)
    rows, columns = (
        Taps(
            reflected_taps(pixels, kernel_size, images.device).expand(len(images), -1, -1),
            weight.expand(-1, pixels, -1),
        )
        for pixels in images.shape[2:]
    )
    return separable(images, rows, columns)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int | None = None) -> Tensor:
    """Blur each image with its own Gaussian width.

    images (B, 1|3, H, W) float in [0, 1]; sigma (B,) > 0, in pixels; kernel_size odd, default a tenth of the
    shorter side (odd, at least 3), no wider than the image allows mirroring: kernel_size // 2 < side. Borders
    are mirrored. Equal to torchvision's gaussian_blur for one sigma. Returns a new tensor of the same shape.
    Raises ValueError on wrong shapes, sigma <= 0, an even kernel or values outside [0, 1].
    """
    check_float_images("images", images)
    check_rank("sigma", sigma, 1)
    require(len(sigma) == len(images), f"sigma: expected {len(images)} widths, one an image, got {len(sigma)}")
    if not sigma.is_cuda:
        positive = bool(((sigma > 0) & torch.isfinite(sigma)).all())
        require(positive, f"sigma: expected finite numbers above 0, got {sigma.tolist()[:8]}")
    side = min(images.shape[2:])
    kernel_size = default_kernel_size(side) if kernel_size is None else kernel_size
    require(kernel_size >= 1 and kernel_size % 2 == 1, f"kernel_size: expected an odd number, got {kernel_size}")
    require(kernel_size // 2 < side, f"kernel_size: {kernel_size} is too wide to mirror a side of {side}")
    return blur(images.float(), sigma.to(images.device), kernel_size)
