"""How a check speaks: one ok line a property, or one failure that names the property and what was seen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CheckFailed(AssertionError):
    """A property of an exercise does not hold; the message says which one, what was seen, and often why."""


class Report:
    """Collects the properties of one check. `name` is the exercise, shown in every message."""

    def __init__(self, name: str) -> None:
        self.name = name

    def expect(self, holds: bool | Tensor, what: str, seen: str, hint: str = "") -> None:
        """Print "ok: what", or raise CheckFailed with what was seen and a hint at the usual cause."""
        if not bool(holds):
            behind = f"\n  hint: {hint}" if hint else ""
            raise CheckFailed(f"{self.name}: this should hold: {what}\n  seen: {seen}{behind}")
        print(f"ok: {what}")

    def close(self, got: Any, expected: Any, what: str, hint: str = "", tolerance: float = 1e-4) -> None:
        """expect() that two numbers or tensors agree within `tolerance`, relative and absolute."""
        got, expected = torch.as_tensor(got).detach().double(), torch.as_tensor(expected).detach().double()
        if got.shape != expected.shape:
            self.expect(False, what, f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}", hint)
        if got.numel() == 1:
            seen = f"{float(got):.5g}, expected {float(expected):.5g}"
        else:
            seen = f"values off by up to {float((got - expected).abs().max()):.3g}"
        self.expect(torch.allclose(got, expected, rtol=tolerance, atol=tolerance), what, seen, hint)

    def scalar(self, value: Any) -> Tensor:
        """The loss as a 0-d tensor; takes a NamedTuple with `.total` too. Fails on other shapes, NaN and infinity."""
        value = getattr(value, "total", value)
        if value is None:
            raise CheckFailed(f"{self.name}: returned None; is a return statement missing?")
        value = torch.as_tensor(value)
        if value.numel() != 1 or value.ndim != 0:
            raise CheckFailed(f"{self.name}: expected one number (a 0-d tensor), got shape {tuple(value.shape)}")
        if not torch.isfinite(value):
            raise CheckFailed(f"{self.name}: expected a finite number, got {float(value)}")
        return value


def steady(check: Callable) -> Callable:
    """Decorator: the same random numbers in every run of a check, and none taken from the notebook's generator."""

    @functools.wraps(check)
    def run(*args: Any, **kwargs: Any) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            check(*args, **kwargs)

    return run


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
