"""LeJEPA: views agree, and the batch of embeddings looks like a standard Gaussian. Nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sslcore.distributed import from_first_rank, mean_over_ranks
from sslcore.objectives.precision import full_precision, same_precision, without_autocast
from sslcore.objectives.sigreg import random_slices, sigreg
from sslcore.validate import check_finite, check_float, check_rank, require, unknown

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup

REGULARIZERS = ("sigreg", "moments")


class LeJEPATerms(NamedTuple):
    """total = (1 - lambd) * invariance + lambd * regularizer; the two terms are given without their weights."""

    total: Tensor
    invariance: Tensor
    regularizer: Tensor


def _check_views(z: Tensor) -> None:
    check_rank("z", z, 3)
    check_float("z", z)
    require(z.numel() >= 1, f"z: expected (V >= 1, N >= 1, D >= 1), got {tuple(z.shape)}")
    check_finite("z", z)


@without_autocast
def slice_moments(
    z: Tensor,
    num_slices: int = 1024,
    slices: Tensor | None = None,
    generator: torch.Generator | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """What SIGReg would be if it asked for two moments only: mean 0 and standard deviation 1 along random directions.

        for v in range(V):
            u = z[v] @ A                                               # (N, S), A as in sigreg
            losses[v] = mean(mean(u[:, s]) ** 2 + (std(u[:, s]) - 1) ** 2 for s in range(S))
        return mean(losses)

    z: (V, N, D). slices, generator, group: as in sigreg (equal N on every rank here). std is that of the N samples
    (divided by N) with 1e-6 under the root. Returns a scalar >= 0: 1 for embeddings that are all zero, near 0 for any
    distribution with these moments, Gaussian or not. Raises as sigreg. A control of this course, not from the paper.
    """
    _check_views(z)
    if slices is None:
        slices = from_first_rank(random_slices(z.shape[2], num_slices, generator, z.device), group)
    views, slices = same_precision(full_precision(z), slices.detach())
    u = views @ slices
    mean, square = mean_over_ranks(torch.stack([u.mean(dim=1), u.square().mean(dim=1)]), group)
    std = ((square - mean.square()).clamp_min(0) + 1e-6).sqrt()
    return (mean.square() + (std - 1).square()).mean()


@without_autocast
def lejepa(
    z: Tensor,
    lambd: float = 0.05,
    num_global: int | None = None,
    regularizer: str = "sigreg",
    num_slices: int = 1024,
    group: ProcessGroup | None = None,
    **sliced: object,
) -> LeJEPATerms:
    """LeJEPA: each view is near the mean of its image's global views, and each view's batch looks Gaussian.

        c = mean(z[:num_global], over views)                           # (N, D), gradients flow through it
        invariance = mean((z - c) ** 2)
        total = (1 - lambd) * invariance + lambd * sigreg(z)           # sigreg of each view, averaged over views

    z: (V, N, D) embeddings of V views of N images, global views first; not normalised. lambd in [0, 1].
    num_global: how many views make the centre, None = all. regularizer: "sigreg", or "moments" (slice_moments) as a
    control. num_slices and sliced (slices, generator, num_knots, t_max): see sigreg. group: processes over which the
    images are spread (equal N on every rank), None = this process only.
    Returns LeJEPATerms. The total's floor for Gaussian embeddings that agree is 1.0525 * lambd, not 0. With the factor
    N inside sigreg, a larger batch presses harder at the same lambd.
    Raises ValueError for wrong rank, V < 1, num_global outside 1..V, lambd outside [0, 1], an unknown regularizer, and
    as sigreg; TypeError for integers. Source: Balestriero & LeCun 2025 (LeJEPA), arXiv 2511.08544.
    """
    _check_views(z)
    require(0 <= lambd <= 1, f"lambd: expected a weight in [0, 1], got {lambd}")
    num_global = len(z) if num_global is None else num_global
    require(1 <= num_global <= len(z), f"num_global: expected 1 to V={len(z)}, got {num_global}")
    if regularizer not in REGULARIZERS:
        unknown("regularizer", regularizer, REGULARIZERS)
    z = full_precision(z)
    center = z[:num_global].mean(dim=0)
    invariance = mean_over_ranks((z - center).square().mean(), group)
    penalty = sigreg if regularizer == "sigreg" else slice_moments
    regular = penalty(z, num_slices, group=group, **sliced)
    return LeJEPATerms((1 - lambd) * invariance + lambd * regular, invariance, regular)
