"""Collapse meters: numbers to watch next to a loss, which may fall to its minimum while the embedding dies."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.objectives.precision import full_precision, unit_rows, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, require


def _check(z: Tensor) -> None:
    check_rank("z", z, 2)
    check_float("z", z)
    require(z.shape[0] >= 2 and z.shape[1] >= 1, f"z: expected (N >= 2, D >= 1), got {tuple(z.shape)}")
    check_finite("z", z)


@torch.no_grad()
@without_autocast
def embedding_std(z: Tensor) -> Tensor:
    """Spread of normalised embeddings: sqrt(D) times the mean standard deviation of a dimension.

    z: (N, D), N >= 2. Returns a scalar without gradient: 0 = collapsed to a point, about 1 = spread evenly over the
    sphere. Raises ValueError for wrong rank, N < 2 or NaN; TypeError for integers.
    Source: Chen & He 2021 (SimSiam), section 4.1.
    """
    _check(z)
    return unit_rows(z).std(dim=0, correction=0).mean() * z.shape[1] ** 0.5


@torch.no_grad()
@without_autocast
def effective_rank(z: Tensor) -> Tensor:
    """How many directions the centred embeddings use: exp of the entropy of their singular values.

        sigma = svd(z - mean(z, axis=0)); p = sigma / sum(sigma)
        return exp(-sum(p * log(p)))

    z: (N, D), N >= 2. Returns a scalar without gradient: 0 when all rows coincide, else between 1 and min(N - 1, D).
    Raises as embedding_std. Takes an SVD: for every hundredth step, not for every step.
    Source: Roy & Vetterli 2007, equation 4; centred here, so that a common offset does not count as a direction.
    """
    _check(z)
    z = full_precision(z)
    sigma = torch.linalg.svdvals(z - z.mean(dim=0))
    # Rounding of the mean leaves noise of this size even when all rows are equal; it is not a direction.
    noise = torch.finfo(z.dtype).eps * max(z.shape) * torch.linalg.matrix_norm(z)
    sigma = sigma * (sigma > noise)
    total = sigma.sum()
    share = sigma / total.clamp_min(torch.finfo(z.dtype).tiny)
    return torch.exp(torch.special.entr(share).sum()) * (total > 0)


@torch.no_grad()
@without_autocast
def prototype_usage(assignments: Tensor) -> Tensor:
    """How many prototypes a set of images uses: the perplexity of their mean assignment.

        share = mean(assignments over images)
        return exp(-sum(share * log(share)))

    assignments: (N, K), rows summing to 1: probabilities, codes, or one-hot winners. Returns a scalar without gradient:
    1 = one prototype takes all, K = equal shares. Uniform rows give K too: look at their entropy as well, or give
    one-hot winners. Raises ValueError for wrong rank, an empty set or NaN; TypeError for integers.
    """
    check_rank("assignments", assignments, 2)
    check_float("assignments", assignments)
    require(assignments.numel() >= 1, f"assignments: expected (N >= 1, K >= 1), got {tuple(assignments.shape)}")
    check_finite("assignments", assignments)
    return torch.exp(torch.special.entr(full_precision(assignments).mean(dim=0)).sum())
