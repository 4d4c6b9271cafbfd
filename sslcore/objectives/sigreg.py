"""SIGReg: make embeddings look like a standard Gaussian, one random direction at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import from_first_rank, is_distributed, mean_over_ranks, world_size
from sslcore.objectives.precision import full_precision, same_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_positive, check_rank, check_same_device, require

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


TWIN_ANGLES = 2**16  # angles t * u of a step: from here the recurrence beats computing each cosine and sine


def random_slices(
    dim: int, num_slices: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """(dim, num_slices) float32: columns of length one, uniform over directions.

    generator: None takes torch's global one on `device`; a seeded one gives the same slices again, whatever the
    device they are wanted on. Raises ValueError for dim or num_slices below 1.
    """
    require(dim >= 1 and num_slices >= 1, f"expected dim and num_slices of at least 1, got {dim} and {num_slices}")
    drawn = torch.randn(dim, num_slices, generator=generator, device=device if generator is None else generator.device)
    return (drawn / torch.linalg.vector_norm(drawn, dim=0)).to(device)


def _sums_of(u: Tensor, num_knots: int, t_max: float) -> Tensor:
    knots = torch.arange(1, num_knots, device=u.device, dtype=u.dtype) * (t_max / (num_knots - 1))
    angles = u[:, None] * knots[:, None, None]  # (V, knots, N, S)
    return torch.stack([angles.cos().sum(dim=2), angles.sin().sum(dim=2)], dim=-1)


def characteristic_sums(z: Tensor, slices: Tensor, num_knots: int, t_max: float) -> Tensor:
    """Sums over the samples of cos(t u) and sin(t u), u = z @ slices, at the knots t = t_max * j / (num_knots - 1).

    z: (V, N, D). slices: (D, S). Returns (V, num_knots - 1, S, 2), cosine first; j = 0 is left out, where the sums are
    N and 0 for any data. This is the plain form, which holds V * N * S * num_knots angles; sslcore.kernels.sigreg is
    its twin.
    """
    return _sums_of(z @ slices, num_knots, t_max)


def _sums(z: Tensor, slices: Tensor, num_knots: int, t_max: float) -> Tensor:
    """characteristic_sums by the form that suits the size."""
    if z.shape[:2].numel() * slices.shape[1] * num_knots < TWIN_ANGLES or torch.compiler.is_compiling():
        return characteristic_sums(z, slices, num_knots, t_max)
    from sslcore.kernels import sigreg as twin  # here, because importing Triton takes a while

    return twin.characteristic_sums(z, slices, num_knots, t_max)


def _statistic(sums: Tensor, count: Tensor | int, num_knots: int, t_max: float) -> Tensor:
    """(V, S): count * sum over knots of weight * phi * |mean characteristic function - phi|^2."""
    step = t_max / (num_knots - 1)
    knots = torch.arange(1, num_knots, device=sums.device, dtype=sums.dtype) * step
    phi = torch.exp(-knots.square() / 2)
    # The trapezoid rule on [-t_max, t_max]: the integrand is even, so inner knots count twice and the end knot once.
    weights = 2 * step * phi
    weights[-1] /= 2
    means = sums / count
    distance = (means[..., 0] - phi[:, None]).square() + means[..., 1].square()
    return count * (weights[:, None] * distance).sum(dim=1)


def _check(z: Tensor, name: str, num_knots: int, t_max: float, group: ProcessGroup | None) -> Tensor:
    check_float(name, z)
    require(z.ndim in (2, 3), f"{name}: expected 2 or 3 dimensions, got shape {tuple(z.shape)}")
    views = z if z.ndim == 3 else z[None]
    rows = views.shape[1] * world_size(group)
    enough = views.shape[1] >= 1 and rows >= 2
    require(enough, f"{name}: expected at least two samples to compare with a Gaussian, got {rows}")
    require(views.numel() >= 1, f"{name}: expected at least one view and one dimension, got {tuple(z.shape)}")
    require(num_knots >= 2, f"num_knots: expected at least 2, got {num_knots}")
    check_positive("t_max", t_max)
    check_finite(name, z)
    return full_precision(views)


@without_autocast
def epps_pulley(u: Tensor, num_knots: int = 17, t_max: float = 3.0) -> Tensor:
    """Epps-Pulley statistic of each column: how far its samples are from a standard Gaussian.

        for t, w in trapezoid(num_knots points on [0, t_max]):         # w = 2 step inside, step at both ends
            phi = exp(-t**2 / 2)                                       # characteristic function of the Gaussian
            c, s = mean(cos(t * u)), mean(sin(t * u))                  # that of the samples
            T += N * w * phi * ((c - phi) ** 2 + s**2)

    u: (N, S), N samples of S quantities, or (V, N, S). Returns (S,) or (V, S). Gaussian samples give 1.0525 on average
    for the default knots, whatever N is; samples that are all zero give 0.402 N. A sample moved by
    2 pi (num_knots - 1) / t_max changes nothing. Raises as sigreg. Source: Epps & Pulley 1983; arXiv 2511.08544.
    """
    views = _check(u, "u", num_knots, t_max, None)
    result = _statistic(_sums_of(views, num_knots, t_max), views.shape[1], num_knots, t_max)
    return result if u.ndim == 3 else result[0]


@without_autocast
def sigreg(
    z: Tensor,
    num_slices: int = 1024,
    num_knots: int = 17,
    t_max: float = 3.0,
    slices: Tensor | None = None,
    generator: torch.Generator | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """SIGReg: along random directions, the batch of embeddings should be distributed like a standard Gaussian.

        A = num_slices random columns of length one                    # (D, S), new ones in each call
        for v in range(V):
            u = z[v] @ A                                               # (N, S)
            losses[v] = mean(epps_pulley(u[:, s]) for s in range(S))
        return mean(losses)

    z: (N, D) embeddings, or (V, N, D) for V views, each tested on its own; not normalised, N >= 2. num_knots, t_max:
    points of the quadrature, see epps_pulley. slices: (D, S) directions to use instead of drawing num_slices; taken as
    they are, and no gradient reaches them. generator: where directions are drawn from, see random_slices. group:
    process group over which the samples are spread (unequal N is fine), None = this process only; all ranks use the
    first rank's directions, and the value is that of the global batch. From 65 536 angles on a twin from
    sslcore.kernels.sigreg is taken (same numbers, nothing of size N x S x num_knots, no second derivative).
    Returns a scalar: on average 1.0525 for Gaussian embeddings, not 0; 0.402 N when all are zero. It grows with N.
    Raises ValueError for wrong rank, N < 2, num_slices < 1, num_knots < 2, t_max <= 0, NaN, slices that do not fit;
    TypeError for integers. Source: Balestriero & LeCun 2025 (LeJEPA), arXiv 2511.08544, section 4.
    """
    views = _check(z, "z", num_knots, t_max, group)
    dim = views.shape[2]
    if slices is None:
        slices = from_first_rank(random_slices(dim, num_slices, generator, z.device), group)
    else:
        check_rank("slices", slices, 2)
        check_float("slices", slices)
        fits = slices.shape[0] == dim and slices.shape[1] >= 1
        require(fits, f"slices: expected ({dim}, S >= 1), got {tuple(slices.shape)}")
        check_same_device("z", z, "slices", slices)
        check_finite("slices", slices)
    views, slices = same_precision(views, slices.detach())
    sums, count = _sums(views, slices, num_knots, t_max), views.shape[1]
    if is_distributed(group):
        # The count travels with the sums, so ranks may hold different numbers of samples.
        packed = mean_over_ranks(torch.cat([sums.flatten(), sums.new_full((1,), count)]), group) * world_size(group)
        sums, count = packed[:-1].reshape(sums.shape), packed[-1]
    return _statistic(sums, count, num_knots, t_max).mean()
