"""Input checks shared by every floor. Each raises an error that says what was expected and what came."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NoReturn

import torch
from torch import Tensor


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless condition holds."""
    if not condition:
        raise ValueError(message)


def check_tensor(name: str, value: object) -> None:
    """Raise TypeError unless value is a torch tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def check_rank(name: str, tensor: Tensor, rank: int) -> None:
    """Raise ValueError unless tensor has `rank` dimensions."""
    check_tensor(name, tensor)
    require(tensor.ndim == rank, f"{name}: expected {rank} dimensions, got shape {tuple(tensor.shape)}")


def check_float(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless tensor holds floating-point numbers."""
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {tensor.dtype}")


def check_same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise ValueError unless a and b agree in shape and device."""
    require(
        a.shape == b.shape, f"{name_a} and {name_b}: expected equal shapes, got {tuple(a.shape)} and {tuple(b.shape)}"
    )
    check_same_device(name_a, a, name_b, b)


def check_same_device(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise ValueError unless a and b are on one device."""
    require(a.device == b.device, f"{name_a} and {name_b}: expected one device, got {a.device} and {b.device}")


def values_are_checked(tensor: Tensor) -> bool:
    """Whether checks may look at the numbers in tensor.

    Reading a value from an accelerator stalls the host, so only CPU tensors are looked at unless the environment
    has SSLCORE_CHECK_VALUES=1. Inside torch.compile nothing is looked at: it would break the graph.
    """
    if torch.compiler.is_compiling() or tensor.device.type == "meta":
        return False
    return tensor.device.type == "cpu" or os.environ.get("SSLCORE_CHECK_VALUES") == "1"


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError on NaN or infinity, where values are checked (see values_are_checked).

    Elsewhere a non-finite input reaches the loss, which the training loop catches.
    """
    if not values_are_checked(tensor) or tensor.numel() == 0:
        return
    # One pass and no copies: NaN is passed on by the smallest and the largest, infinity is one of them.
    if not bool(torch.isfinite(torch.stack(torch.aminmax(tensor.detach()))).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name}: expected finite values, got {bad} NaN or infinite of {tensor.numel()}")


def check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless mask is boolean, has this shape and, where values are checked, at least one True."""
    check_tensor(name, mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: expected a boolean mask (True = hidden), got {mask.dtype}")
    require(tuple(mask.shape) == tuple(shape), f"{name}: expected shape {tuple(shape)}, got {tuple(mask.shape)}")
    if values_are_checked(mask):
        require(bool(mask.any()), f"{name}: expected at least one True, got an empty mask of shape {tuple(mask.shape)}")


def check_images(name: str, images: Tensor) -> None:
    """Raise unless images is (N >= 1, 1 or 3, H, W), uint8 or floating point."""
    check_rank(name, images, 4)
    require(images.shape[0] >= 1, f"{name}: expected at least one image, got shape {tuple(images.shape)}")
    require(
        images.shape[1] in (1, 3), f"{name}: expected 1 or 3 channels in dimension 1, got shape {tuple(images.shape)}"
    )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{name}: expected uint8 or floating point, got {images.dtype}")


def check_positive(name: str, number: float) -> None:
    """Raise ValueError unless number is finite and greater than zero."""
    require(0 < number < float("inf"), f"{name}: expected a finite number above 0, got {number}")


def unknown(kind: str, name: object, known: Iterable[str]) -> NoReturn:
    """Raise ValueError naming the known choices."""
    raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
