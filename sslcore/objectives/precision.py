"""Objectives compute in float32 (or float64 when given it), whatever autocast says."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def full_precision(x: Tensor) -> Tensor:
    """Half-precision numbers as float32; float32 and float64 pass unchanged. Any shape."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def same_precision(*tensors: Tensor) -> list[Tensor]:
    """Tensors of any shapes, all as float64 if one of them is, else as float32: matmuls refuse to mix the two."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return [tensor.to(torch.float64 if wide else torch.float32) for tensor in tensors]


def without_autocast(objective: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator: run an objective with autocast off, for autocast would turn its float32 matmuls into bf16 ones."""

    @wraps(objective)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        tensor = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        device = "cpu" if tensor is None else tensor.device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return objective(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return objective(*args, **kwargs)

    return run


def unit_rows(x: Tensor) -> Tensor:
    """Rows scaled to length one, in full precision.

    x: (..., D). Dividing by the largest entry first keeps the squares of very long or short rows in range; it is
    taken as a constant, which is exact because the result does not depend on it. A row shorter than 1e-12 has no
    direction: it is left as it is, so its gradient is that of an unnormalised row, finite and of ordinary size.
    """
    x = full_precision(x)
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    tiny = largest <= 1e-12
    x = x / largest.masked_fill(tiny, 1.0)
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).masked_fill(tiny, 1.0)
