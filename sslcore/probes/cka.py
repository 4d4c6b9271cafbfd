"""How alike two representations of the same inputs are, whatever their widths and rotations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcore.probes.geometry import check_rows
from sslcore.validate import require


def hsic_unbiased(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased HSIC_1 of two Gram matrices (n, n), n >= 4 (Song et al. 2012, equation 5). Scalar tensor."""
    count = len(first)
    first, second = first.clone().fill_diagonal_(0), second.clone().fill_diagonal_(0)
    trace = (first * second).sum()
    sums = first.sum() * second.sum() / ((count - 1) * (count - 2))
    cross = 2 / (count - 2) * (first.sum(0) @ second.sum(0))
    return (trace + sums - cross) / (count * (count - 3))


def cka(first: Tensor, second: Tensor, unbiased: bool = False) -> float:
    """Linear centred kernel alignment of features (n, p) and (n, q), rows = the same n inputs.

    Plain: |Y'X|^2 / (|X'X| |Y'Y|) of centred features, in [0, 1]. It is pulled towards 1 when n is not much larger
    than the widths; unbiased=True uses HSIC_1, which is near 0 for independent features and may be negative.
    Unchanged by rotations, one common scale and shifts; changed by other linear maps.
    Raises ValueError on unequal n, n < 2 (n < 4 unbiased), non-finite or constant features.
    Source: Kornblith et al. 2019 (arXiv 1905.00414); HSIC_1 for CKA: Nguyen et al. 2021 (arXiv 2010.15327).
    """
    least = 4 if unbiased else 2
    check_rows("first", first, least)
    check_rows("second", second, least)
    require(len(first) == len(second), f"rows: expected the same inputs, got {len(first)} and {len(second)}")
    x, y = (f.double() - f.double().mean(0) for f in (first, second))
    if unbiased:
        grams = x @ x.T, y @ y.T
        cross = hsic_unbiased(*grams)
        own = hsic_unbiased(grams[0], grams[0]) * hsic_unbiased(grams[1], grams[1])
    elif len(x) < max(x.shape[1], y.shape[1]):  # the smaller of the two equal products
        grams = x @ x.T, y @ y.T
        cross = (grams[0] * grams[1]).sum()
        own = grams[0].square().sum() * grams[1].square().sum()
    else:
        cross = (y.T @ x).square().sum()
        own = (x.T @ x).square().sum() * (y.T @ y).square().sum()
    require(bool(own > 0), "cka: expected features that vary over the inputs, got a constant set or too few rows")
    return float(cross / torch.sqrt(own))


def cka_matrix(features: Sequence[Tensor], unbiased: bool = False) -> Tensor:
    """CKA of every pair of representations of the same n inputs: m x (n, D_i) -> (m, m), float64, ones on the diagonal.

    The same numbers as `cka`, from one Gram matrix a representation and three products for all pairs.
    Raises ValueError as `cka` does, or for an empty list.
    """
    require(len(features) > 0, "features: expected at least one representation, got none")
    least = 4 if unbiased else 2
    grams = []
    for number, rows in enumerate(features):
        check_rows(f"features {number}", rows, least)
        same = len(rows) == len(features[0])
        require(same, f"rows: expected the same inputs, got {len(rows)} and {len(features[0])}")
        centred = rows.double() - rows.double().mean(0)
        grams.append(centred @ centred.T)
    stack = torch.stack(grams)
    count = stack.shape[1]
    if unbiased:
        stack.diagonal(dim1=1, dim2=2).zero_()
    flat = stack.flatten(1)
    energy = flat @ flat.T
    if unbiased:
        sums = stack.sum(2)
        totals = sums.sum(1)
        energy = energy + totals[:, None] * totals / ((count - 1) * (count - 2)) - 2 / (count - 2) * sums @ sums.T
    own = energy.diagonal()
    require(bool((own > 0).all()), "cka: expected features that vary over the inputs, got a constant set or few rows")
    return energy / torch.sqrt(own[:, None] * own)
