"""Checks of what it takes to mask a convolutional net: batch norm of visible cells, and a loss at the hidden ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from sslcore.checks.report import CheckFailed, Report, draw, steady


@steady
def check_norm_of_visible(fn: Callable | None = None) -> None:
    """fn(x (B, C, H, W), hidden (B, 1, H, W) bool) -> (B, C, H, W): mean 0, variance 1 over visible cells, 0 else.

    No gain, no offset, 1e-5 added to the variance; see sslcore.backbones.sparse.norm_of_visible.
    """
    if fn is None:
        fn = _library_norm
    report = Report("norm_of_visible")
    x, hidden = 3 * draw(3, 2, 4, 4, seed=1) + 5, draw(3, 1, 4, 4, seed=2) > 0.3
    hidden[2] = True  # one image shows nothing
    kept = x.clone()
    out = fn(x, hidden)
    if not isinstance(out, torch.Tensor):
        raise CheckFailed(f"norm_of_visible: expected a tensor (B, C, H, W), got {type(out).__name__}")
    report.expect(out.shape == x.shape, "the result has the shape of x", f"shape {tuple(out.shape)}")
    report.expect(torch.equal(x, kept), "x comes back as it was", "it has been written to", "work on a new tensor")
    everywhere = hidden.expand_as(x)
    report.expect(not bool(out[everywhere].any()), "hidden cells are exactly 0",
                  f"up to {float(out.detach()[everywhere].abs().max()):.3g} there", "set them to 0 after normalising")
    rows = out.transpose(0, 1)[(~hidden).expand_as(x).transpose(0, 1)].view(2, -1)
    report.close(rows.mean(1), torch.zeros(2), "each channel has mean 0 over the visible cells of the batch",
                 "one mean a channel, over images and visible places together, dividing by their number")
    report.close(rows.var(1, unbiased=False), torch.ones(2), "each channel has variance 1 over the visible cells",
                 "square the distances of visible cells only; divide by their number", 1e-3)
    other = torch.where(hidden, 100.0, x)
    report.close(fn(other, hidden), out, "what stands in hidden cells changes nothing",
                 "neither mean nor variance may read them")
    flat = fn(torch.full_like(x, 5.0), hidden)
    report.expect(bool(torch.isfinite(flat).all()), "a channel without spread gives no infinity", "a value not finite",
                  "add 1e-5 to the variance")
    report.close(fn(x, hidden & False), F.batch_norm(x, None, None, training=True),
                 "with nothing hidden it is batch norm", "add 1e-5 to the variance under the root")


def _library_norm(x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    from sslcore.backbones.sparse import Visibility, norm_of_visible

    return norm_of_visible(torch.nn.BatchNorm2d(x.shape[1]), x, Visibility(hidden.flatten(1), len(x), x.shape[2:]))


@steady
def check_masked_latent_loss(fn: Callable | None = None) -> None:
    """fn(pred (B, N, D), target (B, N, D), mask (B, N) bool, True = hidden) -> scalar, 1 - cosine at hidden cells."""
    if fn is None:
        from sslcore.objectives import masked_latent_loss as fn
    report = Report("masked_latent_loss")
    mask = torch.tensor([[True, False, True], [False, True, False]])
    pred, target = draw(2, 3, 4, seed=3).abs(), draw(2, 3, 4, seed=4).abs()

    def loss(p, t, m=mask):
        return report.scalar(fn(p, t, m))

    report.close(loss(2 * target, target), 0.0, "the right direction costs 0, whatever the length",
                 "divide pred and target by their lengths, cell by cell, over channels")
    axes = torch.eye(3).expand(2, 3, 3)
    report.close(loss(axes.roll(1, 1), axes), 1.0, "features at right angles cost 1",
                 "the squared distance of unit vectors is 2 - 2 cosine: take half of it")
    visible = torch.where(mask[..., None], pred, pred.flip(2) + 9)
    report.close(loss(visible, target), loss(pred, target), "predictions at visible cells do not count",
                 "mask is True where a cell is hidden")
    each = 1 - F.cosine_similarity(pred, target, dim=2)
    report.close(loss(pred, target), each[mask].mean(), "the mean over all hidden cells of the batch",
                 "sum over hidden cells, divided by their number; not image by image, not by B * N")
    said, given = pred.clone().requires_grad_(), target.clone().requires_grad_()
    value = loss(said, given)
    report.expect(value.requires_grad, "gradients reach the prediction", "a loss without gradient")
    to_said, to_given = torch.autograd.grad(value, (said, given), allow_unused=True)
    report.expect(to_said is not None and bool((to_said[mask].norm(dim=1) > 0).all()),
                  "every hidden cell's prediction gets a gradient", "a prediction without gradient")
    report.expect(to_given is None or not to_given.any(), "no gradient reaches the target",
                  "targets are pulled towards predictions", "target.detach()")
