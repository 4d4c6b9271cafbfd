"""Shape of an embedding without labels: effective rank, LiDAR, alignment, uniformity."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_positive, check_rank, check_same_shape, require

SMOOTHING = 1e-7  # added to every share of the spectrum, as in RankMe


def check_rows(name: str, features: Tensor, least: int) -> None:
    """Raise unless features is a finite float (n >= least, D)."""
    check_rank(name, features, 2)
    check_float(name, features)
    require(len(features) >= least, f"{name}: expected at least {least} rows, got shape {tuple(features.shape)}")
    check_finite(name, features)


def spectrum_rank(values: Tensor) -> float:
    """exp(entropy) of non-negative values (k,) taken as shares; a spectrum of zeros counts as rank 1."""
    share = values / values.sum().clamp_min(1e-300) + SMOOTHING
    return float(torch.exp(-(share * share.log()).sum()))


def rankme(features: Tensor) -> float:
    """Effective rank of features (n, D), between 1 (one direction) and min(n, D): exp entropy of singular values.

    Not centred, as in the paper. Depends on n and on the layer: compare at equal n only. Raises ValueError for an
    empty or non-finite matrix. Source: Garrido et al. 2023 (arXiv 2210.02885).
    """
    check_rows("features", features, 1)
    return spectrum_rank(torch.linalg.svdvals(features.double()))


def lidar(views: Tensor, delta: float = 1e-4) -> float:
    """Effective rank of what tells images apart relative to what tells views of one image apart.

    views: (n >= 2 images, q >= 2 views, D). S_b = covariance of the images' means, S_w = mean covariance inside an
    image + delta I; exp entropy of the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2), at most min(n - 1, D) up to the
    smoothing. Collapsed features give 1. Report delta, n and q with the number. Raises ValueError on other shapes.
    Source: Thilak et al. 2023 (arXiv 2312.04000).
    """
    check_rank("views", views, 3)
    check_float("views", views)
    enough = views.shape[0] >= 2 and views.shape[1] >= 2
    require(enough, f"views: expected (n >= 2, q >= 2, D), got {tuple(views.shape)}")
    check_finite("views", views)
    check_positive("delta", delta)
    points = views.double()
    means = points.mean(1)
    between = means - means.mean(0)
    within = (points - means[:, None]).flatten(0, 1)
    identity = torch.eye(points.shape[-1], dtype=points.dtype, device=points.device)
    factor = torch.linalg.cholesky(within.T @ within / len(within) + delta * identity)
    # L^-1 S_b L^-T has the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2) for any factor L L^T = S_w.
    whitened = torch.linalg.solve_triangular(factor, between.T, upper=False)
    values = torch.linalg.svdvals(whitened).square() / len(means)
    padding = torch.zeros(points.shape[-1] - len(values), dtype=values.dtype, device=values.device)
    return spectrum_rank(torch.cat([values, padding]))


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of positive pairs on the unit sphere, in [0, 4]; rows (n, D) are normalised here.

    Raises ValueError on unequal shapes or an empty batch. Source: Wang & Isola 2020 (arXiv 2005.10242).
    """
    check_same_shape("first", first, "second", second)
    check_rows("first", first, 1)
    check_rows("second", second, 1)
    difference = F.normalize(first.float(), dim=1) - F.normalize(second.float(), dim=1)
    return float(difference.square().sum(1).mean())


def uniformity(features: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t |z_i - z_j|^2) over i != j, in [-4 t, 0]; rows (n >= 2, D) are normalised here.

    0 = collapsed; at t = 2 about -2.08 for a uniform sphere in 3 dimensions, about -3.94 in 128. Raises ValueError
    for fewer than 2 rows. Source: Wang & Isola 2020 (arXiv 2005.10242).
    """
    check_rows("features", features, 2)
    check_positive("t", t)
    squared = torch.pdist(F.normalize(features.double(), dim=1)).square()
    return float(torch.logsumexp(-t * squared, 0) - math.log(len(squared)))
