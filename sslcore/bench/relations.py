"""Does one column order the networks as another does? Rank correlation with what few networks allow to be said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.validate import check_tensor, require

EXACT = 8  # networks up to which all orders are tried (8! = 40320)


@dataclass(frozen=True)
class Relation:
    """Spearman's rho over n networks, its 95 % bootstrap interval over networks, a two-sided permutation p-value;
    smallest: the least p that n networks can give; exact: whether all orders were tried."""

    rho: float
    low: float
    high: float
    p: float
    n: int
    smallest: float
    exact: bool

    def __str__(self) -> str:
        return f"rho {self.rho:+.2f} [{self.low:+.2f}, {self.high:+.2f}], p = {self.p:.3f}, n = {self.n}"


def ranks(values: Tensor) -> Tensor:
    """Ranks from 0 along the last axis, ties share their mean rank. values (..., n) -> float64 (..., n).

    Raises ValueError for a scalar or NaN, which has no place in an order.
    """
    check_tensor("values", values)
    require(values.ndim >= 1, "values: expected at least one dimension, got a scalar")
    require(not bool(values.isnan().any()), f"values: expected numbers, got {int(values.isnan().sum())} NaN")
    below = (values[..., None, :] < values[..., :, None]).double().sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).double().sum(-1)
    return below + (equal - 1) / 2


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Correlation of the ranks along the last axis, broadcast over the others; NaN where all values are equal.

    x, y: (..., n). Raises ValueError for columns of different length, fewer than two values, or NaN.
    """
    a, b = (ranks(value) for value in (x, y))
    one, two = a.shape[-1], b.shape[-1]
    require(one == two >= 2, f"x and y: expected equal lengths of at least 2, got {one} and {two}")
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    norm = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(norm > 0, (a * b).sum(-1) / norm, torch.nan)


def orders(count: int, draws: int, generator: torch.Generator) -> tuple[Tensor, bool]:
    """All orders of `count` things (exact), or `draws` random ones with the identity among them."""
    if count <= EXACT:
        return torch.tensor(list(itertools.permutations(range(count)))), True
    drawn = torch.rand(draws, count, generator=generator).argsort(1)
    return torch.cat([torch.arange(count)[None], drawn]), False


def relate(
    x: Sequence[float],
    y: Sequence[float],
    errors: tuple[Sequence[float], Sequence[float]] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Relation:
    """Rank correlation of two columns over the same networks.

    errors: standard errors of x and of y. The interval resamples networks (the two values of one stay together;
    resamples without variation are left out) and adds to each value a normal error of that size. p is the share of
    orders of y whose |rho| is at least as large as the one seen; up to 8 networks every order is tried.
    Raises ValueError for fewer than 4 networks, unequal lengths, non-finite values, or a column without variation.
    """
    require(len(x) == len(y), f"columns: expected equal lengths, got {len(x)} and {len(y)}")
    count = len(x)
    require(count >= 4, f"networks: a rank correlation needs at least 4, got {count}")
    require(all(math.isfinite(value) for value in (*x, *y)), "columns: expected finite values")
    errors = errors or ([0.0] * count, [0.0] * count)
    fits = all(len(column) == count and all(error >= 0 for error in column) for column in errors)
    require(fits, f"errors: expected two columns of {count} numbers from 0 on")
    require(len(set(x)) > 1 and len(set(y)) > 1, "columns: expected values that differ between networks")
    first, second = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    rho = float(spearman(first, second))
    drawn = torch.randint(count, (draws, count), generator=generator)
    noisy = []
    for column, error in zip((first, second), errors, strict=True):
        noise = torch.randn(draws, count, generator=generator, dtype=torch.float64)
        noisy.append((column + noise * torch.tensor(error, dtype=torch.float64)).gather(1, drawn))
    resampled = spearman(*noisy)
    edges = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(resampled[~resampled.isnan()], edges).tolist()
    order, exact = orders(count, draws, generator)
    # The ranks are permuted, not the values: the same result, and ties are ranked once.
    a, b = (r - r.mean() for r in (ranks(first), ranks(second)))
    others = (b[order] @ a) / (a.norm() * b.norm())
    p = float((others.abs() >= abs(rho) - 1e-9).double().mean())
    smallest = 2 / len(order) if exact else 1 / len(order)
    return Relation(rho, low, high, p, count, smallest, exact)
