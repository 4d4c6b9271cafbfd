"""Checks of LeJEPA's parts: the test of one column, and the loss over many directions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_epps_pulley(fn: Callable | None = None) -> None:
    """fn(u (N,)) -> scalar: 17 knots on [0, 3], trapezoid rule for the line from -3 to 3."""
    if fn is None:
        from sslcore.objectives import epps_pulley

        def fn(u):
            return epps_pulley(u[:, None])[0]

    report = Report("epps_pulley")

    def statistic(u):
        return report.scalar(fn(u))

    report.close(statistic(torch.zeros(100)), 40.2, "a hundred zeros give 0.402 * 100",
                 "multiply by N; the weight is phi(t) = exp(-t^2 / 2), once; double the half line", 1e-3)
    u = draw(200, seed=1)
    pairs = torch.exp(-(u[:, None] - u).square() / 2).sum() / 200
    closed = math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * torch.exp(-u.square() / 4).sum() + 200 / math.sqrt(3))
    report.close(statistic(u), closed, "close to the integral over the whole line, which has a closed form",
                 "both parts of the characteristic function count: (c - phi)^2 + s^2", 0.03)
    report.close(statistic(-u), statistic(u), "turning all signs changes nothing")
    report.close(statistic(u.flip(0)), statistic(u), "the order of the samples does not matter")
    moved = u.clone()
    moved[3] += 2 * math.pi * 16 / 3
    report.close(statistic(moved), statistic(u), "one sample moved by 2 pi * 16 / 3 goes unnoticed",
                 "17 equally spaced knots on [0, 3], so their distance is 3 / 16", 1e-3)
    report.close(statistic(u.repeat(2)), 2 * statistic(u), "each sample twice doubles it", "N stands in front", 1e-3)
    report.expect(statistic(u + 2) > 10 * statistic(u), "a shifted sample costs more", "a shift that goes unnoticed",
                  "compare with the standard normal, not with a normal of the same mean")


@steady
def check_sigreg(fn: Callable | None = None) -> None:
    """fn(z (N, D), slices (D, S)) -> scalar; slices need not have length one."""
    if fn is None:
        from sslcore.objectives import sigreg as library

        def fn(z, slices):
            return library(z, slices=slices / slices.norm(dim=0))

    from sslcore.objectives import epps_pulley

    report = Report("sigreg")
    z, slices = 1.4 * draw(40, 3, seed=1) + 0.2, draw(3, 5, seed=2)
    unit = slices / slices.norm(dim=0)

    def loss(a, b):
        return report.scalar(fn(a, b))

    report.close(loss(z, slices), epps_pulley(z @ unit).mean(), "the mean of epps_pulley over the directions",
                 "mean over slices, not sum; columns of length one: divide by the norm over dim 0")
    report.close(loss(z, slices * torch.tensor([2.0, 0.1, 1, 5, 3])), loss(z, slices),
                 "the length of a direction does not matter", "normalise each column of slices")
    turn = torch.linalg.qr(draw(3, 3, seed=3))[0]
    report.close(loss(z @ turn, turn.T @ slices), loss(z, slices), "turning space and directions together is free")
    report.expect(abs(loss(3 * z, slices) - loss(z, slices)) > 1, "the length of the embeddings matters",
                  "no change", "do not normalise z: its spread is what is tested")
    learner = z.clone().requires_grad_()
    given = slices.clone().requires_grad_()
    grads = torch.autograd.grad(loss(learner, given), (learner, given), allow_unused=True)
    report.expect(grads[0] is not None and bool(grads[0].abs().sum() > 0), "the embeddings receive a gradient", "none")
    report.expect(grads[1] is None or not grads[1].any(), "the directions receive none", "a gradient",
                  "directions are drawn, not learnt: detach them")
