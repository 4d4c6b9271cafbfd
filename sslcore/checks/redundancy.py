"""Checks of the redundancy-reduction objectives."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_barlow_twins(fn: Callable | None = None) -> None:
    """fn(z0 (N, D), z1 (N, D), lambd) -> scalar, or a NamedTuple with .total."""
    if fn is None:
        from sslcore.objectives import barlow_twins as fn
    report = Report("barlow_twins")

    def loss(a, b, lambd=0.1):
        return report.scalar(fn(a, b, lambd))

    white = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])  # two uncorrelated dimensions of variance one
    report.close(loss(white, white), 0.0, "equal views with uncorrelated dimensions cost nothing",
                 "the cross-correlation is the identity there: diagonal 1, the rest 0; divide by N", 1e-3)
    twins = white[:, :1].repeat(1, 3)
    report.close(loss(twins, twins), 0.6, "three copies of one dimension cost lambd * 6",
                 "six off-diagonal entries of the 3 x 3 cross-correlation are 1; square and sum them", 1e-3)
    report.close(loss(white, -white, 0.0), 8.0, "opposite views cost (1 + 1)^2 for each of two dimensions",
                 "the diagonal is pulled to 1, not to any unit length", 1e-3)
    report.close(loss(twins, twins, 0.2), 2 * loss(twins, twins), "lambd scales the off-diagonal part", "", 1e-3)
    z0, z1 = draw(16, 4, seed=1), draw(16, 4, seed=2)
    scale, shift = torch.tensor([1.0, 5.0, 0.5, 2.0]), torch.tensor([0.0, 3.0, -2.0, 1.0])
    report.close(loss(scale * z0 + shift, z1), loss(z0, z1), "scale and offset of a dimension do not matter",
                 "standardise each dimension over the batch: mean 0, biased standard deviation 1", 1e-3)
    report.expect(abs(loss(z0.roll(1, 0), z1, 0.0) - loss(z0, z1, 0.0)) > 1e-3, "the pairing of the views matters",
                  "shifting one view by a row changes nothing", "C = z0' z1 / N pairs row n with row n")
    crossed = torch.stack([white[:, 1], white[:, 0]], dim=1)
    report.close(loss(white, crossed), 2 + 0.1 * 2, "two views with their dimensions exchanged, worked by hand",
                 "correlate across the views, z0 with z1, not within one", 1e-3)


@steady
def check_vicreg(fn: Callable | None = None) -> None:
    """fn(z0 (N, D), z1 (N, D), sim=25, std=25, cov=1) -> scalar, or a NamedTuple with .total."""
    if fn is None:
        from sslcore.objectives import vicreg as fn
    report = Report("vicreg")

    def loss(a, b, sim=0.0, std=0.0, cov=0.0):
        return report.scalar(fn(a, b, sim=sim, std=std, cov=cov))

    z0, z1 = draw(8, 3, seed=1), draw(8, 3, seed=2)
    zeros = torch.zeros(8, 3)
    report.close(loss(zeros, zeros + 2, sim=1), 4.0, "invariance: a distance of 2 in every entry costs 4",
                 "mean over N * D entries of the squared difference, not the sum over D")
    report.close(loss(zeros, zeros, std=1), 0.99, "variance: collapsed views cost 1 - sqrt(1e-4)",
                 "mean of relu(1 - sqrt(var + 1e-4)), averaged over both views", 1e-3)
    report.close(loss(10 * z0, 10 * z1, std=1), 0.0, "variance: no reward for spread beyond one", "relu cuts there")
    report.close(loss(zeros, 10 * z0, std=1), 0.495, "variance: both views are guarded, each with half the weight",
                 "", 1e-3)
    column = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    sure = column.repeat(1, 3)  # every entry of its unbiased covariance is 4/3
    report.close(loss(sure, torch.zeros(4, 3), cov=1), 6 * (4 / 3) ** 2 / 3,
                 "covariance: squared off-diagonal entries, summed, over D",
                 "divide the sum by D; use the unbiased covariance (N - 1); leave out the diagonal")
    report.close(loss(torch.zeros(4, 3), sure, cov=1), loss(sure, torch.zeros(4, 3), cov=1),
                 "covariance: both views count alike")
    report.close(loss(z0 + 5, z1 + 5, std=1, cov=1), loss(z0, z1, std=1, cov=1),
                 "variance and covariance ignore an offset", "centre over the batch")
    parts = loss(z0, z1, sim=25) + loss(z0, z1, std=25) + loss(z0, z1, cov=1)
    report.close(loss(z0, z1, 25, 25, 1), parts, "the total is the sum of the weighted terms")
