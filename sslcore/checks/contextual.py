"""Checks of data2vec 2.0: its targets, its loss over several masks, and its masks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_contextual_targets(fn: Callable | None = None) -> None:
    """fn(layers: list of (B, N, D)) -> (B, N, D): instance norm of each layer, mean, layer norm."""
    if fn is None:
        from sslcore.objectives import contextual_targets as fn
    report = Report("contextual_targets")
    layers = [draw(2, 9, 6, seed=seed) for seed in (1, 2, 3)]
    before = [layer.clone() for layer in layers]
    target = fn(layers)
    report.close(torch.tensor(target.shape), torch.tensor((2, 9, 6)), "one target of D values for each patch")
    report.close(target.mean(2), torch.zeros(2, 9), "each patch has mean 0", "the last step norms over D, the channels")
    report.close(target.var(2, unbiased=False), torch.ones(2, 9), "each patch has variance 1",
                 "divide by the root of the biased variance; in the end, not before the mean over layers", 1e-2)
    report.close(fn(layers[::-1]), target, "all layers count alike, in whatever order", "the mean of all, not the last")
    shared = [layer + 5 * draw(2, 1, 6, seed=9) for layer in layers]
    report.close(fn(shared), target, "what all patches of an image share drops out, channel by channel",
                 "instance norm: subtract the mean over N, the patches of one image", 1e-3)
    loud = [layers[0], layers[1] * (0.5 + draw(2, 1, 6, seed=8).abs()), 40 * layers[2]]
    report.close(fn(loud), target, "a louder layer or channel counts no more than the others",
                 "norm each layer before the mean, dividing by the deviation over its patches", 1e-2)
    alone = fn([layer[:1] for layer in layers])
    report.close(alone, target[:1], "an image's target does not depend on the rest of the batch",
                 "statistics over patches only, not over images")
    report.expect(all(torch.equal(a, b) for a, b in zip(layers, before, strict=True)), "the layers stay as they were",
                  "changed in place")
    grows = [layer.clone().requires_grad_() for layer in layers]
    report.expect(not fn(grows).requires_grad, "no gradient reaches the teacher", "the target requires a gradient",
                  "compute it under torch.no_grad()")


@steady
def check_data2vec_loss(fn: Callable | None = None) -> None:
    """fn(pred (B, M, N, D), target (B, N, D), mask (B, M, N)) -> scalar: hidden patches of M copies, one target."""
    if fn is None:
        from sslcore.objectives import data2vec_loss as fn
    report = Report("data2vec_loss")
    target = torch.nn.functional.layer_norm(draw(2, 6, 4, seed=1), (4,))
    pred, mask = draw(2, 3, 6, 4, seed=2), draw(2, 3, 6, seed=3) < 0.4
    mask[0, 0] = torch.tensor([True, False, False, False, False, False])

    def loss(p, t=target, m=mask):
        return report.scalar(fn(p, t, m))

    report.close(loss(target[:, None].expand(-1, 3, -1, -1)), 0.0, "every copy of an image is held to its one target",
                 "target[:, None] has the copies' dimension")
    report.close(loss(torch.zeros_like(pred)), 2.0, "a zero prediction costs sqrt(D)",
                 "sum the squares over D and divide by sqrt(D)", 1e-3)
    report.close(loss(torch.where(mask[..., None], pred, pred + 100)), loss(pred), "visible patches do not count",
                 "mask is True where a patch is hidden")
    cost = (pred - target[:, None]).square().sum(3) / 2
    report.close(loss(pred), cost[mask].mean(), "the mean over all hidden patches of all copies",
                 "divide by the number of hidden patches, not copy by copy and not by all patches")
    moving = target.clone().requires_grad_()
    value = fn(pred.requires_grad_(), moving, mask)
    (gradient,) = torch.autograd.grad(getattr(value, "total", value), moving, allow_unused=True)
    still = gradient is None or not gradient.any()
    report.expect(still, "no gradient reaches the target", "it does", "target.detach()")


@steady
def check_inverse_block_mask(fn: Callable | None = None) -> None:
    """fn(batch, grid, ratio, adjust, block) -> (B, h * w) bool, True = hidden; visible patches form squares."""
    if fn is None:
        from sslcore.views import inverse_block_mask

        def fn(batch, grid, ratio, adjust, block):
            return inverse_block_mask(batch, grid, ratio, adjust=adjust, block=block).mask

    report = Report("inverse_block_mask")
    mask = fn(400, (14, 14), 0.8, 0.07, 3)
    right = tuple(mask.shape) == (400, 196) and mask.dtype == torch.bool
    report.expect(right, "one row of 196 bool an image", f"{tuple(mask.shape)}, {mask.dtype}")
    counts = mask.sum(1).unique().tolist()
    report.expect(counts == [157], "all images hide 157 of 196 patches", f"{counts[:5]} hidden",
                  "True = hidden; int(196 * 0.2) = 39 stay visible: add or take away single patches")
    different = len(mask.unique(dim=0))
    report.expect(different > 390, "each image has its own mask", f"{different} masks for 400 images")
    visible = (~mask).view(-1, 14, 14).float()
    pairs = float((visible[:, :, 1:] * visible[:, :, :-1]).sum((1, 2)).mean())
    report.expect(22 < pairs < 27.5, "visible patches lie side by side as five squares and a few single ones do",
                  f"{pairs:.1f} pairs of visible neighbours in a row, about 25 expected",
                  "int(196 * (0.2 + 0.07) / 9) = 5 centres, each with the 8 patches around it")
    turned = float((visible[:, 1:] * visible[:, :-1]).sum((1, 2)).mean())
    report.expect(abs(turned - pairs) < 1.5, "rows and columns are treated alike", f"{turned:.1f} pairs in a column")
    lonely = (1 - fn(2000, (7, 7), 0.8, 0.07, 3).float()).view(-1, 7, 7)
    report.expect(bool((lonely.mean(0) > 0.08).all()), "every place is visible now and then, corners too",
                  f"least often {float(lonely.mean(0).min()):.3f}", "centres fall on all patches, also at the border")
    wide = (1 - fn(400, (4, 16), 0.75, 0.0, 2).float()).view(-1, 4, 16)
    blocks = float((wide[:, :, 1:] * wide[:, :, :-1]).sum((1, 2)).mean())
    report.expect(5 < blocks < 11, "other grids and block sides work too", f"{blocks:.1f} pairs, about 8 expected")
