"""K-means on tensors: many problems at once, no empty cluster, nothing read back to the host; and a two-level form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.objectives.precision import full_precision, unit_rows, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, require, unknown

SEEDINGS = ("k-means++", "random")


class Clusters(NamedTuple):
    """labels (..., N) int64; centroids (..., k, D), the means of their rows; inertia (...), squared distances added."""

    labels: Tensor
    centroids: Tensor
    inertia: Tensor


class TwoLevels(NamedTuple):
    """Label pairs of N rows: supers (N,) in 0..m-1, and subs (N,) in 0..k-1, which count within a super only."""

    supers: Tensor
    subs: Tensor


def _squared_distances(x: Tensor, centroids: Tensor) -> Tensor:
    """(B, N, D), (B, k, D) -> (B, N, k). The products cancel badly far from the origin, so callers centre x first."""
    products = torch.baddbmm(x.square().sum(2, keepdim=True), x, centroids.mT, alpha=-2)
    return (products + centroids.square().sum(2)[:, None]).clamp_min_(0)


def _means(x: Tensor, labels: Tensor, k: int) -> Tensor:
    """Mean row of each label, every label being in use."""
    sums = x.new_zeros(len(x), k, x.shape[2]).scatter_add_(1, labels[..., None].expand_as(x), x)
    return sums / _counts(labels, k)[..., None]


def _counts(labels: Tensor, k: int) -> Tensor:
    return torch.zeros(len(labels), k, device=labels.device).scatter_add_(1, labels, torch.ones_like(labels).float())


def _fill_empty(labels: Tensor, distances: Tensor, k: int) -> Tensor:
    """Give each empty cluster the row that lies farthest from its own centroid. labels, distances: (B, N).

    One row of each occupied cluster stays put, so no cluster is emptied; N >= k leaves enough rows for the others.
    """
    batch, count = labels.shape
    empty = _counts(labels, k) == 0
    rows = torch.arange(count, device=labels.device).expand(batch, -1)
    keeper = torch.full((batch, k), count, device=labels.device).scatter_reduce_(1, labels, rows, "amin")
    movable = rows != keeper.gather(1, labels)
    farthest = torch.where(movable, distances, -1.0).topk(k, dim=1).indices
    # The j-th empty cluster takes the j-th farthest row; occupied ones write that row's own label back.
    turn = (empty.long().cumsum(1) - 1).clamp_min(0)
    row = torch.where(empty, farthest.gather(1, turn), keeper.clamp_max(count - 1))
    return labels.scatter(1, row, torch.arange(k, device=labels.device).expand(batch, -1))


def _seed(x: Tensor, k: int, seeding: str, generator: torch.Generator | None) -> Tensor:
    """(B, k, D) rows of x: spread by k-means++, or drawn without return."""
    batch, count, width = x.shape
    source = x.device if generator is None else generator.device

    def draw(weights: Tensor, number: int) -> Tensor:
        return torch.multinomial(weights.to(source), number, generator=generator).to(x.device)

    def take(index: Tensor) -> Tensor:
        return x.gather(1, index[..., None].expand(-1, -1, width))

    flat = torch.ones(batch, count, device=x.device)
    if seeding == "random":
        return take(draw(flat, k))
    chosen = [take(draw(flat, 1))]
    nearest = torch.full((batch, count), torch.inf, device=x.device, dtype=x.dtype)
    while len(chosen) < k:
        nearest = torch.minimum(nearest, _squared_distances(x, chosen[-1])[..., 0])
        # Where all rows are taken already, any will do: empty clusters are filled later.
        weights = torch.where(nearest.sum(1, keepdim=True) > 0, nearest, flat.to(nearest.dtype))
        chosen.append(take(draw(weights, 1)))
    return torch.cat(chosen, dim=1)


@torch.no_grad()
@without_autocast
def kmeans(
    x: Tensor,
    k: int,
    *,
    num_iters: int = 10,
    num_init: int = 1,
    seeding: str | Tensor = "k-means++",
    generator: torch.Generator | None = None,
) -> Clusters:
    """K-means: k centroids such that rows lie close to the nearest one.

        centroids = seeding(x)
        repeat num_iters times, then once more for the labels alone:
            for n in range(N):
                labels[n] = argmin over c of |x[n] - centroids[c]|^2
            every empty cluster takes the row farthest from its own centroid
            centroids[c] = mean of x[n] over labels[n] == c

    x: (N, D), or (B, N, D) for B separate problems at once; N >= k. seeding: "k-means++", "random" rows, or start
    centroids (k, D) or (B, k, D). num_init: seedings tried, the one with the lowest inertia is returned.
    generator: the same one gives the same draws on any device if it lives on the CPU.
    Returns Clusters. Every label 0..k-1 occurs, also when rows repeat. No gradient.
    Raises ValueError for wrong shapes, k outside 1..N, num_iters or num_init below 1, num_init above 1 with given
    centroids, or NaN; TypeError for integers. Nothing waits for the device. Memory: num_init * B * N * k numbers.
    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (seeding). DeeperCluster (Caron et al. 2019) starts from random rows
    and fills an empty cluster with half of another; taking the farthest row can only lower the inertia.
    """
    check_float("x", x)
    require(x.ndim in (2, 3), f"x: expected (N, D) or (B, N, D), got shape {tuple(x.shape)}")
    require(1 <= k <= x.shape[-2], f"k: expected 1 to {x.shape[-2]} (rows), got {k}")
    require(num_iters >= 1, f"num_iters: expected at least 1, got {num_iters}")
    require(num_init >= 1, f"num_init: expected at least 1, got {num_init}")
    check_finite("x", x)
    rows = full_precision(x if x.ndim == 3 else x[None])
    shift = rows.mean(1, keepdim=True)
    rows, batch = rows - shift, len(rows)
    if isinstance(seeding, Tensor):
        require(num_init == 1, f"num_init: expected 1 with given centroids, got {num_init}")
        start = seeding if seeding.ndim == 3 else seeding[None].expand(batch, -1, -1)
        expected = (batch, k, rows.shape[2])
        require(start.shape == expected, f"seeding: expected centroids {expected}, got {tuple(start.shape)}")
        centroids = start.to(rows.dtype) - shift
    else:
        if seeding not in SEEDINGS:
            unknown("seeding", seeding, SEEDINGS)
        rows = rows.repeat(num_init, 1, 1)
        centroids = _seed(rows, k, seeding, generator)
    for _ in range(num_iters + 1):
        distances, labels = _squared_distances(rows, centroids).min(2)
        labels = _fill_empty(labels, distances, k)
        centroids = _means(rows, labels, k)
    nearest = centroids.gather(1, labels[..., None].expand_as(rows))
    inertia = (rows - nearest).square().sum((1, 2)).unflatten(0, (-1, batch))
    best = inertia.argmin(0)
    pick = torch.arange(batch, device=x.device)
    labels, centroids = (part.unflatten(0, (-1, batch))[best, pick] for part in (labels, centroids))
    found = Clusters(labels, centroids + shift, inertia[best, pick])
    return found if x.ndim == 3 else Clusters(*(part[0] for part in found))


def two_level_kmeans(
    x: Tensor, num_super: int, num_sub: int, *, num_iters: int = 10, generator: torch.Generator | None = None
) -> TwoLevels:
    """K-means into num_super clusters, then each of them on its own into num_sub.

        supers = kmeans(x, num_super)
        for c in range(num_super):
            subs[supers == c] = kmeans(x[supers == c], num_sub)

    The second level costs N * num_sub distances an iteration where one flat level with as many clusters would cost
    N * num_super * num_sub. A super-cluster of fewer than num_sub rows gets as many sub-clusters as it has rows.
    x: (N, D) with N >= num_super, num_sub >= 1. Raises as kmeans does. Source: Caron et al. 2019, section 3.2.
    """
    check_rank("x", x, 2)
    require(num_sub >= 1, f"num_sub: expected at least 1, got {num_sub}")
    supers = kmeans(x, num_super, num_iters=num_iters, generator=generator).labels
    subs = torch.zeros_like(supers)
    for cluster in range(num_super):
        index = (supers == cluster).nonzero()[:, 0]
        part = kmeans(x[index], min(num_sub, len(index)), num_iters=num_iters, generator=generator)
        subs[index] = part.labels
    return TwoLevels(supers, subs)


@torch.no_grad()
@without_autocast
def pca_whiten(x: Tensor, dim: int, floor: float = 1e-5) -> Tensor:
    """Rows turned to their principal axes, each axis divided by its deviation, rows scaled to length one.

        x = x - mean(x); eigenvalues, axes = eigh(x.T @ x / N), largest first
        y = x @ axes[:, :dim] / sqrt(max(eigenvalues, floor * eigenvalues[0]))
        return normalise(y)

    x: (N >= 2, D); dim in 1..D. Returns (N, dim) without gradient: what DeeperCluster clusters. Raises ValueError for
    wrong rank, too few rows, dim out of range or NaN; TypeError for integers. Source: Caron et al. 2018 (DeepCluster),
    section 3.3.
    """
    check_rank("x", x, 2)
    check_float("x", x)
    require(x.shape[0] >= 2, f"x: expected at least two rows, got shape {tuple(x.shape)}")
    require(1 <= dim <= x.shape[1], f"dim: expected 1 to {x.shape[1]}, got {dim}")
    check_finite("x", x)
    x = full_precision(x)
    x = x - x.mean(0)
    values, axes = torch.linalg.eigh(x.T @ x / len(x))
    values, axes = values.flip(0)[:dim], axes.flip(1)[:, :dim]
    scale = torch.maximum(values, floor * values[0]).clamp_min(torch.finfo(x.dtype).tiny)
    return unit_rows(x @ axes / scale.sqrt())
