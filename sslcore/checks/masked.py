"""Checks of patches, masks and the masked pixel loss."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_patchify(fn: Callable | None = None) -> None:
    """fn(images (B, C, H, W), patch_size) -> (B, N, p * p * C), patches row by row, (row, column, channel) inside."""
    if fn is None:
        from sslcore.objectives import patchify as fn
    report = Report("patchify")
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).float()
    patches = fn(images, 2)
    report.close(torch.tensor(patches.shape), torch.tensor((2, 6, 12)), "4 x 6 pixels in 2 x 2 patches: (2, 6, 12)")
    report.close(patches.sum(), images.sum(), "every pixel is kept once")
    report.close(patches[0, 1].sort().values, images[0, :, 0:2, 2:4].flatten().sort().values,
                 "patch 1 lies to the right of patch 0", "patches run along the rows of the image")
    report.close(patches[0, 3].sort().values, images[0, :, 2:4, 0:2].flatten().sort().values,
                 "patch 3 begins the second row of a 2 x 3 grid")
    report.close(patches[1, 0], images[1, :, 0:2, 0:2].permute(1, 2, 0).flatten(),
                 "inside a patch: row, column, then channel",
                 "permute to (B, rows, columns, p, p, C) before the last reshape")


@steady
def check_random_mask(fn: Callable | None = None) -> None:
    """fn(batch, num_patches, ratio) -> ids_keep (B, M), ids_restore (B, N), mask (B, N) bool with True = hidden."""
    if fn is None:
        from sslcore.views import random_mask as fn
    report = Report("random_mask")
    ids_keep, ids_restore, mask = fn(64, 16, 0.75)
    shapes = (tuple(ids_keep.shape), tuple(ids_restore.shape), tuple(mask.shape))
    report.expect(shapes == ((64, 4), (64, 16), (64, 16)), "a ratio of 0.75 keeps 4 of 16 patches", f"shapes {shapes}")
    kept = fn(64, 9, 0.7)[0].shape[1]
    report.expect(kept == 2, "a ratio of 0.7 keeps int(9 * 0.3) = 2 of 9", f"{kept} kept", "int() rounds down")
    report.expect(mask.dtype == torch.bool and bool((mask.sum(1) == 12).all()), "every image hides 12 of 16 patches",
                  f"{mask.dtype}, {mask.sum(1).unique().tolist()} hidden", "True marks the hidden ones")
    shown = torch.ones(64, 16, dtype=torch.bool).scatter(1, ids_keep.cpu(), False)
    report.expect(torch.equal(shown, mask.cpu()), "mask is False exactly at ids_keep", "they contradict each other")
    rows = ids_restore.cpu().sort(1).values
    report.expect(torch.equal(rows, torch.arange(16).expand(64, 16)), "each row of ids_restore is a permutation",
                  "repeated or missing indices")
    order = torch.arange(16).expand(64, 16)
    hidden = torch.stack([order[b][mask[b].cpu()] for b in range(64)])
    restored = torch.cat([ids_keep.cpu(), hidden], 1).gather(1, ids_restore.cpu())
    visible_back = torch.equal(restored.masked_fill(mask.cpu(), -1), order.masked_fill(mask.cpu(), -1))
    report.expect(visible_back, "gathering [kept, hidden] by ids_restore puts the kept patches back in place",
                  "kept tokens return to other places", "ids_restore = argsort of the shuffle")
    different = len(mask.unique(dim=0))
    report.expect(different > 32, "each image has its own mask", f"{different} masks for 64 images",
                  "draw the noise with shape (batch, num_patches)")
    share = torch.stack([fn(64, 16, 0.75)[2] for _ in range(32)]).flatten(0, 1).float().mean(0)
    report.expect((share - 0.75).abs().max() < 0.07, "every place is hidden equally often",
                  f"between {float(share.min()):.2f} and {float(share.max()):.2f}")


@steady
def check_masked_pixel_loss(fn: Callable | None = None) -> None:
    """fn(pred (B, N, P), images (B, C, H, W), mask (B, N), patch_size) -> scalar, targets standardised a patch."""
    if fn is None:
        from sslcore.objectives import masked_pixel_loss as fn
    from sslcore.objectives import patchify

    report = Report("masked_pixel_loss")
    images = draw(2, 3, 8, 8, seed=1)
    mask = torch.tensor([[True, False, True, False], [False, True, True, True]])
    pred = draw(2, 4, 48, seed=2)
    target = patchify(images, 4)
    target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()

    def loss(p, x=images, m=mask):
        return report.scalar(fn(p, x, m, 4))

    report.close(loss(torch.zeros_like(pred)), 47 / 48, "a zero prediction costs (P - 1) / P",
                 "the unbiased variance leaves P - 1; average over the P values of a patch")
    report.close(loss(target), 0.0, "predicting the standardised patches costs nothing",
                 "subtract each patch's mean, divide by sqrt(unbiased variance + 1e-6)")
    changed = torch.where(mask[..., None], pred, pred + 100)
    report.close(loss(changed), loss(pred), "predictions at visible patches do not count",
                 "average over hidden patches only: mask is True where a patch is hidden")
    errors = (pred - target).square().mean(2)
    report.close(loss(pred), errors[mask].mean(), "the mean over all hidden patches of the batch",
                 "sum over hidden patches, divided by their number, not by B * N nor image by image")
    flat = images.clone()
    flat[:, :, :4, :4] = 0.5  # patch 0 of each image, hidden in the first
    report.close(loss(target, flat), target[0, 0].square().mean() / mask.sum(), "a patch of one colour has target 0",
                 "add 1e-6 to the variance before the root")
    brighter = loss(pred, 5 * images + 2)
    report.close(brighter, loss(pred), "contrast and brightness of the images do not matter", "", 1e-3)
