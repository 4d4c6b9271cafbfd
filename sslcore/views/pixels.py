"""Pixel scales: uint8 in 0..255, float in [0, 1], and the normalised values networks see."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_images, check_rank, require

Statistic = float | Sequence[float]


def check_unit(name: str, images: Tensor) -> None:
    """Raise ValueError when float images leave [0, 1] or hold NaN (CUDA: only with SSLCORE_CHECK_VALUES=1)."""
    if images.dtype == torch.uint8 or (images.is_cuda and os.environ.get("SSLCORE_CHECK_VALUES") != "1"):
        return
    low, high = torch.aminmax(images.detach())
    # NaN fails both comparisons, so one test covers range and finiteness
    inside = bool(low >= -1e-3) and bool(high <= 1 + 1e-3)
    require(inside, f"{name}: expected float values in [0, 1], got {float(low):.4g} to {float(high):.4g}")


def check_float_images(name: str, images: Tensor) -> None:
    """Raise unless images is (N, 1|3, H, W) floating point with values in [0, 1]."""
    check_images(name, images)
    check_float(name, images)
    check_unit(name, images)


def _statistic(name: str, value: Statistic, images: Tensor) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float32).flatten()
    channels = images.shape[1]
    fits = tensor.numel() in (1, channels)
    require(fits, f"{name}: expected one number or {channels} (one a channel), got {tensor.numel()}")
    return tensor.view(1, -1, 1, 1).to(images.device, non_blocking=True)


def check_std(std: Statistic) -> None:
    """Raise ValueError unless every std is finite and above 0."""
    values = [std] if isinstance(std, int | float) else list(std)
    require(all(0 < s < float("inf") for s in values), f"std: expected finite numbers above 0, got {std}")


def normalize(images: Tensor, mean: Statistic = 0.5, std: Statistic = 0.25) -> Tensor:
    """Centre and scale pixels for a network: (x - mean) / std with x in [0, 1].

    images (N, 1|3, H, W): uint8 (divided by 255 first) or float in [0, 1]; mean and std: one number, or
    one a channel. Returns float32 of the same shape; the input is not changed. Raises ValueError on wrong
    rank, channel count, std <= 0 or NaN; TypeError on other dtypes.
    """
    check_images("images", images)
    if images.is_floating_point():
        check_finite("images", images)
    check_std(std)
    unit = images.to(torch.float32, copy=True)
    return normalize_(unit.div_(255) if images.dtype == torch.uint8 else unit, mean, std)


def normalize_(images: Tensor, mean: Statistic, std: Statistic) -> Tensor:
    """`normalize` in place on float images, without checks."""
    if isinstance(mean, int | float) and isinstance(std, int | float):
        return images.sub_(mean).mul_(1 / std)
    return images.sub_(_statistic("mean", mean, images)).div_(_statistic("std", std, images))


def denormalize(images: Tensor, mean: Statistic = 0.5, std: Statistic = 0.25) -> Tensor:
    """Undo `normalize`: float images in [0, 1], clamped, ready to plot.

    images (N, C, H, W) float. Raises ValueError on wrong rank, TypeError unless floating point.
    """
    check_rank("images", images, 4)
    check_float("images", images)
    check_std(std)
    return torch.addcmul(_statistic("mean", mean, images), images.float(), _statistic("std", std, images)).clamp_(0, 1)
