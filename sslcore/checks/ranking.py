"""Checks of the rank correlation and of its permutation p-value."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_spearman(fn: Callable | None = None) -> None:
    """fn(x (n,), y (n,)) -> scalar in [-1, 1]: correlation of the ranks, ties share their mean rank."""
    from sslcore.bench import spearman

    fn = spearman if fn is None else fn
    report = Report("spearman")
    x, y = draw(7, seed=1).double(), draw(7, seed=2).double()
    report.close(report.scalar(fn(x, x.exp())), 1.0, "equal order gives 1, whatever the spacing",
                 "correlate ranks, not values")
    report.close(report.scalar(fn(x, -(x**3))), -1.0, "opposite order gives -1")
    report.close(report.scalar(fn(x, y)), report.scalar(fn(y, x)), "the two columns may change places")
    first, second = torch.tensor([1.0, 2, 3, 4, 5]).double(), torch.tensor([2.0, 1, 4, 3, 5]).double()
    report.close(report.scalar(fn(first, second)), 0.8, "1 2 3 4 5 against 2 1 4 3 5 gives 0.8",
                 "the rank of a value is how many lie below it; argsort once is not yet a rank")
    tied = torch.tensor([1.0, 1, 3, 4, 5]).double()
    report.close(report.scalar(fn(tied, first)), 0.9746794345, "ties share their mean rank",
                 "count the values below, and half of the others that are equal")
    report.close(report.scalar(fn(x, y)), spearman(x, y), "the correlation of the ranks")


@steady
def check_permutation_p(fn: Callable | None = None) -> None:
    """fn(x (n,), y (n,)) -> share of all n! orders of y whose |rho| is at least as large as the one seen. n <= 7."""
    from sslcore.bench import relate

    def library(x, y):
        return relate(x.tolist(), y.tolist()).p

    fn = library if fn is None else fn
    report = Report("permutation_p")
    x = torch.arange(5.0).double()
    report.close(torch.as_tensor(fn(x, x)), 2 / 120, "a perfect order of 5: itself and its mirror, 2 of 120",
                 "count |rho|: the opposite order is as surprising; the order seen is one of the 120")
    y = x[[1, 0, 2, 4, 3]]
    shares = [(x - x.mean()) @ (y[list(order)] - y.mean()) for order in itertools.permutations(range(5))]
    seen = abs(shares[0]) - 1e-9
    report.close(torch.as_tensor(fn(x, y)), sum(abs(s) >= seen for s in shares) / 120, "orders at least as extreme",
                 "ties with the value seen count; allow for rounding")
    report.close(torch.as_tensor(fn(x.exp(), y)), torch.as_tensor(fn(x, y)), "only ranks matter")
    report.close(torch.as_tensor(fn(x, -y)), torch.as_tensor(fn(x, y)), "the sign does not matter")
