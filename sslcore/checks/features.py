"""Checks of gradient histograms and of the loss on hidden features."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_hog(fn: Callable | None = None) -> None:
    """fn(images (B, C, H, W), cell_size) -> (B, cells, C * 9): normalised histograms, colour by colour."""
    from sslcore.objectives import hog_targets

    def library(x, c):
        return hog_targets(x, c, c)

    fn = library if fn is None else fn
    report = Report("hog")
    images = draw(2, 3, 8, 12, seed=4)
    hog = fn(images, 4)
    report.expect(tuple(hog.shape) == (2, 6, 27), "8 x 12 pixels in cells of 4: (2, 6, 3 * 9)",
                  f"shape {tuple(hog.shape)}")
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    across, down = (fn(x, 4).reshape(9, 9)[4] for x in (ramp, ramp.mT))
    report.close(across, torch.eye(9)[4], "a ramp from left to right fills bin 4 alone",
                 "the angle is atan2(gx, gy), gx first; bin = floor(9 * angle / pi) mod 9")
    report.close(down, torch.eye(9)[0], "a ramp from top to bottom fills bin 0 alone")
    report.close(fn(-images, 4), hog, "a negative has the same histograms: a direction and its opposite are one",
                 "take the bin modulo 9, not 18")
    report.close(fn(torch.ones(1, 1, 8, 8), 4), torch.zeros(1, 4, 9), "a flat image gives zeros, not NaN",
                 "divide by max(length, 1e-12)")
    report.close(hog.reshape(2, 6, 3, 9).norm(dim=3), torch.ones(2, 6, 3), "each cell of each colour has length one",
                 "normalise over the nine bins, cell by cell and colour by colour")
    report.close(fn(3 * images + 2, 4), hog, "gain and offset of the image do not matter")
    report.close(hog, library(images, 4), "the nine sums of gradient lengths, cell by cell, colour by colour",
                 "each pixel adds its length, not one; cells run row by row; borders are mirrored ('reflect')")


@steady
def check_masked_feature_loss(fn: Callable | None = None) -> None:
    """fn(pred (B, N, D), target (B, N, D), mask (B, N) bool, True = hidden) -> scalar."""
    from sslcore.objectives import hog_targets

    if fn is None:
        from sslcore.objectives import masked_feature_loss as fn
    report = Report("masked_feature_loss")
    target, pred = hog_targets(draw(2, 3, 8, 8, seed=1), 4, 4), draw(2, 4, 27, seed=2)
    mask = torch.tensor([[True, False, True, False], [False, True, True, True]])

    def loss(p, t=target, m=mask):
        return report.scalar(fn(p, t, m))

    report.close(loss(torch.zeros_like(pred)), 1 / 9, "predicting zero costs 1 / 9 where no cell is flat",
                 "average over the D numbers of a patch; nine bins share a length of one")
    report.close(loss(target), 0.0, "predicting the target costs nothing")
    changed = torch.where(mask[..., None], pred, pred + 100)
    report.close(loss(changed), loss(pred), "predictions at visible patches do not count",
                 "average over hidden patches only: mask is True where a patch is hidden")
    errors = (pred - target).square().mean(2)
    report.close(loss(pred), errors[mask].mean(), "the mean over all hidden patches of the batch",
                 "sum over hidden patches, divided by their number, not by B * N nor image by image")
