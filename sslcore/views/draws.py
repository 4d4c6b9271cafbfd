"""Random numbers for views: drawn where the generator lives, used where the images live."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import require


def check_generator(generator: torch.Generator | None) -> None:
    """Raise TypeError unless generator is a torch.Generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}")


def uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device | str | None) -> Tensor:
    """Uniform numbers in [0, 1), float32, on `device`.

    A generator draws on its own device and the result moves, so one CPU generator gives the same views
    on every device. Raises TypeError if generator is not a torch.Generator.
    """
    check_generator(generator)
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source).to(device, non_blocking=True)


def check_probability(name: str, number: float) -> None:
    """Raise ValueError unless 0 <= number <= 1."""
    require(0.0 <= number <= 1.0, f"{name}: expected a probability between 0 and 1, got {number}")


def check_range(name: str, limits: tuple[float, float], low: float = 0.0, high: float = float("inf")) -> None:
    """Raise ValueError unless limits is a pair with low < limits[0] <= limits[1] <= high, all finite."""
    require(len(limits) == 2, f"{name}: expected a (low, high) pair, got {limits}")
    first, last = limits
    in_order = low < first <= last <= high and last < float("inf")
    require(in_order, f"{name}: expected {low} < low <= high <= {high}, both finite, got {limits}")
