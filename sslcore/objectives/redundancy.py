"""Redundancy-reduction objectives: agree between views, and let every dimension say something of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.distributed import gather_with_grad, is_distributed, mean_over_ranks, world_size
from sslcore.kernels import covariance
from sslcore.objectives.precision import same_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, check_same_shape, require

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


TWIN_VALUES = 2**14  # N * D: from here the closed-form gradient beats a graph of its parts
EPSILON = 1e-5  # of the authors' batch-norm layer


class BarlowTerms(NamedTuple):
    """total = invariance + redundancy; redundancy already carries its weight."""

    total: Tensor
    invariance: Tensor
    redundancy: Tensor


class VICRegTerms(NamedTuple):
    """total = invariance + variance + covariance, each already carrying its weight."""

    total: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def _check_pair(z0: Tensor, z1: Tensor, group: ProcessGroup | None) -> None:
    for name, value in (("z0", z0), ("z1", z1)):
        check_rank(name, value, 2)
        check_float(name, value)
        check_finite(name, value)
    check_same_shape("z0", z0, "z1", z1)
    rows = z0.shape[0] * world_size(group)
    require(z0.shape[0] >= 1 and rows >= 2, f"z0, z1: expected at least two images for batch statistics, got {rows}")
    require(z0.shape[1] >= 1, f"z0, z1: expected at least one dimension, got {tuple(z0.shape)}")


def _centred(z: Tensor, group: ProcessGroup | None) -> Tensor:
    return z - mean_over_ranks(z.mean(dim=0), group)


def _takes_twin(z: Tensor, group: ProcessGroup | None) -> bool:
    """Whether sslcore.kernels.covariance is used: for large inputs of one process."""
    return z.numel() >= TWIN_VALUES and not is_distributed(group) and not torch.compiler.is_compiling()


def _squared_norm(a: Tensor, b: Tensor, group: ProcessGroup | None) -> Tensor:
    """||A'B / N||^2 over the global batch: the energy of a D x D matrix, from whichever side is cheaper.

    a, b: (n, D). With few rows for the dimensions, ||A'B||^2 = <AA', BB'> takes fewer products: two N x N matrices, or
    one when a is b.
    """
    rows = a.shape[0] * world_size(group)
    if not covariance.gram_is_cheaper(rows, a.shape[1], a is b):
        return mean_over_ranks(a.T @ b / a.shape[0], group).square().sum()
    gathered = gather_with_grad(a, group)
    gram = gathered @ gathered.T
    if b is not a:
        gathered = gather_with_grad(b, group)
        return (gram * (gathered @ gathered.T)).sum() / rows**2
    return gram.square().sum() / rows**2


@without_autocast
def barlow_twins(z0: Tensor, z1: Tensor, lambd: float = 5e-3, group: ProcessGroup | None = None) -> BarlowTerms:
    """Barlow Twins: the cross-correlation of two views' dimensions should be the identity.

        a, b = standardise(z0), standardise(z1)        # over the batch, biased variance + 1e-5
        C = a.T @ b / N                                # (D, D)
        invariance = sum((C[i, i] - 1) ** 2 for i in range(D))
        redundancy = lambd * sum(C[i, j] ** 2 for i in range(D) for j in range(D) if i != j)

    z0, z1: (N, D) projections of two views, N >= 2. lambd >= 0: weight of the off-diagonal part; a good value falls
    about as 1/D (5e-3 is for D = 8192). group: as in nt_xent. Returns BarlowTerms of scalars: total = D when
    collapsed. C is never masked: off-diagonal energy = ||C||^2 - ||diag C||^2, and for 2N < D not even formed. Large
    inputs of one process take sslcore.kernels.covariance (same numbers, less memory, no second derivative).
    Raises ValueError for wrong rank, differing shapes, N < 2, NaN or negative lambd; TypeError for integers.
    Source: Zbontar et al. 2021, equations 1 and 2; the 1e-5 is that of the authors' batch-norm layer.
    """
    _check_pair(z0, z1, group)
    require(0 <= lambd < float("inf"), f"lambd: expected a finite number >= 0, got {lambd}")
    z0, z1 = same_precision(z0, z1)
    if _takes_twin(z0, group):
        diagonal, energy = covariance.correlation(z0, z1, EPSILON)
    else:
        standard = []
        for z in (z0, z1):
            z = _centred(z, group)
            variance = mean_over_ranks(z.square().mean(dim=0), group)
            standard.append(z * torch.rsqrt(variance + EPSILON))
        a, b = standard
        diagonal = mean_over_ranks((a * b).mean(dim=0), group)
        energy = _squared_norm(a, b, group)
    invariance = (diagonal - 1).square().sum()
    redundancy = lambd * (energy - diagonal.square().sum())
    return BarlowTerms(invariance + redundancy, invariance, redundancy)


@without_autocast
def vicreg(
    z0: Tensor,
    z1: Tensor,
    sim: float = 25.0,
    std: float = 25.0,
    cov: float = 1.0,
    group: ProcessGroup | None = None,
) -> VICRegTerms:
    """VICReg: agree between views, keep every dimension's spread above one, decorrelate the dimensions.

        invariance = sim * mean((z0 - z1) ** 2)                        # over N * D
        for z in (z0, z1):
            variance += std * mean(relu(1 - sqrt(var(z, axis=0) + 1e-4))) / 2       # unbiased variance
            C = cov(z)                                                 # (D, D), unbiased
            covariance += cov * sum(C[i, j] ** 2 for i != j) / D

    z0, z1: (N, D) projections of two views, N >= 2, not normalised. sim, std, cov >= 0: the three weights. group: as in
    nt_xent. Returns VICRegTerms of scalars: variance = 0.99 * std when collapsed. The variance term is halved as in
    the authors' code; the paper's equation is not. Covariances are summed as in barlow_twins, for N < D unformed.
    Raises ValueError for wrong rank, differing shapes, N < 2, NaN or a negative weight; TypeError for integers.
    Source: Bardes et al. 2022, equations 1-6.
    """
    _check_pair(z0, z1, group)
    for name, weight in (("sim", sim), ("std", std), ("cov", cov)):
        require(0 <= weight < float("inf"), f"{name}: expected a finite number >= 0, got {weight}")
    z0, z1 = same_precision(z0, z1)
    rows = z0.shape[0] * world_size(group)
    unbiased = rows / (rows - 1)
    lacking, off_diagonal = [], []
    for z in (z0, z1):
        if _takes_twin(z, group):
            variance, energy = covariance.spread(z)
        else:
            z = _centred(z, group)
            variance, energy = mean_over_ranks(z.square().mean(dim=0), group), _squared_norm(z, z, group)
        variance = variance * unbiased
        lacking.append(torch.relu(1 - torch.sqrt(variance + 1e-4)).mean())
        off_diagonal.append(energy * unbiased**2 - variance.square().sum())
    terms = (
        sim * mean_over_ranks(F.mse_loss(z0, z1), group),
        std * (lacking[0] + lacking[1]) / 2,
        cov * (off_diagonal[0] + off_diagonal[1]) / z0.shape[1],
    )
    return VICRegTerms(terms[0] + terms[1] + terms[2], *terms)
