"""Checks of the balanced assignment, the swapped prediction, and what SEER puts around them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_sinkhorn_knopp(fn: Callable | None = None) -> None:
    """fn(scores (B, K), epsilon, num_iters) -> codes (B, K)."""
    if fn is None:
        from sslcore.objectives import sinkhorn_knopp as fn
    report = Report("sinkhorn_knopp")
    scores = 0.5 * draw(24, 6, seed=1).tanh()

    def codes(s, epsilon=0.1, num_iters=3):
        return torch.as_tensor(fn(s, epsilon, num_iters)).detach()

    first = codes(scores, num_iters=1)
    report.close(
        first.sum(1),
        torch.ones(24),
        "the code of each image sums to 1, after one step already",
        "normalise the images last, and return B times the matrix whose rows sum to 1 / B",
    )
    report.close(
        codes(scores, num_iters=300).mean(0),
        torch.full((6,), 1 / 6),
        "after many steps all prototypes get the same share",
        "divide each column by its sum over the batch; a softmax alone keeps no shares",
    )
    matrix = (scores / 0.1).exp()
    matrix = matrix / matrix.sum(0) / 6
    report.close(
        first,
        matrix / matrix.sum(1, keepdim=True),
        "one step: columns first, then rows",
        "the loop is prototypes, then images; exp(scores / epsilon) once, before the loop",
    )
    three = matrix
    for _ in range(2):
        three = three / three.sum(1, keepdim=True) / 24
        three = three / three.sum(0) / 6
    report.close(codes(scores), three / three.sum(1, keepdim=True), "three steps repeat both halves three times")
    report.close(codes(scores + draw(6, seed=2)), codes(scores), "a constant added to a prototype's scores cancels")
    report.close(
        codes(scores, 1e4),
        torch.full((24, 6), 1 / 6),
        "a large epsilon gives uniform codes",
        "divide the scores by epsilon",
        tolerance=1e-3,
    )


@steady
def check_swapped_prediction(fn: Callable | None = None) -> None:
    """fn(scores (V, B, K), codes (A, B, K), temperature) -> scalar; crop a < A has the codes codes[a]."""
    if fn is None:
        from sslcore.objectives import swapped_prediction as fn
    report = Report("swapped_prediction")
    scores, codes = draw(5, 3, 7, seed=1), (3 * draw(2, 3, 7, seed=2)).softmax(2)

    def loss(s, q, temperature=0.1):
        return report.scalar(fn(s, q, temperature))

    report.close(
        loss(torch.zeros(5, 3, 7), codes),
        math.log(7),
        "equal scores give ln K",
        "cross-entropy -sum q log p, mean over pairs and images",
    )
    report.close(loss(scores, codes, 0.2), loss(scores / 0.2, codes, 1.0), "the temperature divides the scores")
    total = 0.0
    for a in range(2):
        for v in range(5):
            if v != a:
                total -= float((codes[a] * torch.log_softmax(scores[v] / 0.1, dim=1)).sum(1).mean())
    report.close(
        loss(scores, codes),
        total / 8,
        "the mean over the pairs of different crops",
        "skip v = a: a crop that predicts its own code has nothing to learn; divide by A * (V - 1)",
    )
    learner, leaf = scores.clone().requires_grad_(), codes.clone().requires_grad_()
    grads = torch.autograd.grad(loss(learner, leaf), (learner, leaf), allow_unused=True)
    report.expect(grads[0] is not None and grads[0].abs().sum() > 0, "the scores receive a gradient", "none")
    report.expect(
        grads[1] is None or not grads[1].any(),
        "the codes receive none",
        "a gradient",
        "detach the codes: they are targets",
    )


@steady
def check_prototype_usage(fn: Callable | None = None) -> None:
    """fn(assignments (N, K)) -> scalar between 1 and K."""
    if fn is None:
        from sslcore.objectives import prototype_usage as fn
    report = Report("prototype_usage")
    report.close(
        report.scalar(fn(torch.eye(5)[torch.zeros(9, dtype=torch.long)])),
        1.0,
        "one winner for all images gives 1",
        "exp of an entropy; 0 log 0 counts as 0",
    )
    report.close(
        report.scalar(fn(torch.eye(5).repeat(4, 1))),
        5.0,
        "equal shares of K winners give K",
        "average the assignments over images first, then take the entropy",
    )
    report.close(
        report.scalar(fn(torch.eye(5)[torch.tensor([0, 3, 3, 0])])),
        2.0,
        "two winners in equal shares give 2",
        "unused prototypes do not count; use the natural logarithm with exp",
    )
    uneven = report.scalar(fn(torch.eye(5)[torch.tensor([0, 0, 0, 1])]))
    report.close(uneven, math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), "uneven shares count less than two")
    report.close(
        report.scalar(fn(torch.full((6, 5), 0.2))),
        5.0,
        "uniform rows give K as well",
        "so the meter says nothing about how sure a single assignment is",
    )


@steady
def check_balanced_prior(fn: Callable | None = None) -> None:
    """fn(scores (B, K), prior (K,), epsilon, num_iters) -> codes (B, K) whose totals follow prior."""
    if fn is None:
        from sslcore.objectives import sinkhorn_knopp

        def fn(scores, prior, epsilon, num_iters):
            return sinkhorn_knopp(scores, epsilon, num_iters, prior=prior)

    from sslcore.objectives import sinkhorn_knopp as balanced

    report = Report("balanced_prior")
    scores, even = 0.5 * draw(24, 4, seed=1).tanh(), torch.full((4,), 0.25)
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])

    def codes(r, num_iters=3, s=scores):
        return torch.as_tensor(fn(s, r, 0.1, num_iters)).detach()

    report.close(codes(even), balanced(scores, 0.1, 3), "equal shares give plain Sinkhorn")
    report.close(
        codes(prior).sum(1),
        torch.ones(24),
        "the code of each image still sums to 1",
        "the prior belongs to the columns; rows end at 1 / B, times B",
    )
    report.close(
        codes(prior, 300).mean(0),
        prior,
        "after many steps the shares are the prior",
        "each column is scaled to the total prior[k] instead of 1 / K",
    )
    report.close(codes(prior), balanced(scores, 0.1, 3, prior=prior), "three steps, columns first")
    order = torch.tensor([2, 0, 3, 1])
    report.close(codes(prior[order], s=scores[:, order]), codes(prior)[:, order], "prior and prototype move together")


@steady
def check_regnet_widths(fn: Callable | None = None) -> None:
    """fn(w0, wa, wm, depth) -> list of `depth` widths, one a block."""
    if fn is None:
        from sslcore.backbones import regnet_widths

        def fn(w0, wa, wm, depth):
            widths, depths = regnet_widths(w0, wa, wm, depth)
            return [width for width, count in zip(widths, depths, strict=True) for _ in range(count)]

    report = Report("regnet_widths")

    def blocks(*settings):
        return [int(width) for width in fn(*settings)]

    def same(got, expected, what, hint=""):
        report.expect(got == expected, what, f"{got}, expected {expected}", hint)

    same(blocks(16, 0.0, 2.0, 3), [16] * 3, "slope 0 gives one width", "w0 + wa * j for block j = 0 .. depth - 1")
    same(
        blocks(16, 16.0, 2.0, 4),
        [16, 32, 64, 64],
        "widths are w0 times whole powers of wm",
        "round the exponent log(line / w0) / log(wm), not the width",
    )
    same(
        blocks(24, 30.0, 2.5, 5),
        [24, 64, 64, 152, 152],
        "every width is a multiple of 8",
        "round(width / 8) * 8, after the power",
    )
    large = blocks(456, 160.83, 2.52, 27)
    runs = [large.count(width) for width in sorted(set(large))]
    same(runs, [2, 7, 17, 1], "RegNetY-128GF has stages of 2, 7, 17 and 1 blocks")
